//! Talks about divided work: what each node has of it, and where one partition stands.
//! In: what the core says of it (`active_active/standing.rs`). Out: `ShareNow`, `OnePartition`.
//! Not here: words for people (`cli/ask/explain/divided.rs`).
//! Tested by: `cli/tests/explain.rs`, `node/operations/tests/divided.rs`.

use super::{Planned, Reason};
use crate::api::status::words;
use serde::{Deserialize, Serialize};
use std::fmt;
use tandem_core::ids::{Epoch, NodeId, PartitionId, ServiceId};

/// What one node has of divided work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareNow {
    /// Which.
    pub node: NodeId,
    /// So many its copy may work on.
    pub owned: u32,
    /// Of them it was asked to release so many.
    pub releasing: u32,
    /// So many it will own once all that shall move has.
    pub wanted: u32,
    /// It may be given more.
    pub gains: bool,
    /// Why it is as it is.
    pub because: String,
}

/// Where one partition stands, as the asked node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnePartition {
    /// Of which service.
    pub service: ServiceId,
    /// Which.
    pub partition: PartitionId,
    /// Of so many.
    pub count: u32,
    /// The key that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its hash, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Grows with each change of its owner.
    pub epoch: Epoch,
    /// How it is owned.
    pub state: PartitionState,
    /// Who may work on it; the last one who could, where that one is lost.
    pub owner: Option<NodeId>,
    /// Who shall own it instead.
    pub to: Option<NodeId>,
    /// The node that has to do something before that.
    pub waits_for: Option<NodeId>,
    /// For so long it has been releasing, as far as the asked node saw it.
    pub releasing_ms: Option<u64>,
    /// For its owner's copy to release it; past that the copy is ended.
    pub release_max_ms: u64,
    /// Why it is as it is, or what it waits for.
    pub because: Reason,
    /// Where doors send what belongs to it; none where the service has no door by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// What was planned last for its owner's copy, newest first.
    pub plans: Vec<Planned>,
}

words! {
    /// How a partition is owned.
    PartitionState {
        /// Its owner works on it.
        Owned => "owned",
        /// Its owner was asked to end that, and may still be at it.
        Releasing => "releasing",
        /// Its owner's copy is proven gone: nobody works on it.
        Lost => "lost",
        /// It never had an owner.
        Unowned => "unowned",
    }
}
