//! Talks to openraft in this product's types: what is proposed, what comes of it, who takes part.
//! Not here: what a command does (`tandem_core::cluster::state`).

use bytes::Bytes;
use openraft::type_config::alias::{
    EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use tandem_core::cluster::command::Command;
use tandem_core::cluster::state::Applied;
use tandem_core::ids::NodeId;

// openraft's default kind of leader id: in one term the leadership may pass from a candidate to one
// with a greater name, so candidates that collide need no second round. A leadership is thus named
// by (term, node), and no node leads twice in one term.
openraft::declare_raft_types!(
    /// Binds openraft to the types below.
    pub TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = NodeId,
        Node = Member,
);

/// The Raft node of this process.
pub type Raft = openraft::Raft<TypeConfig, super::store::machine::Machine>;
/// Position in the log.
pub type LogId = LogIdOf<TypeConfig>;
/// What a node voted for.
pub type Vote = VoteOf<TypeConfig>;
/// One line of the log.
pub type Entry = EntryOf<TypeConfig>;
/// Who takes part, and since which entry.
pub type Membership = StoredMembershipOf<TypeConfig>;
/// Up to where a snapshot reaches.
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
/// A snapshot: the bytes are the encoded state.
pub type Snapshot = SnapshotOf<TypeConfig, Bytes>;

/// A command on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Command);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Command::Noop => f.write_str("noop"),
            Command::Found { cluster, .. } => write!(f, "found {cluster}"),
            Command::Configure { expected, .. } => write!(f, "configure after {expected}"),
            Command::Drain { node, draining } => write!(f, "drain {node}: {draining}"),
            Command::Service { service, expected, .. } => write!(f, "{service} after {expected}"),
        }
    }
}

/// A node that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where the others reach it.
    pub address: String,
}
