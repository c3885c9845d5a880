//! Talks about the cluster in the documented, stable JSON of `tandem status --json`.
//! In: what a node knows. Out: `Status`. Fields are added, never renamed or removed.
//! These are not the core's types: those may change, this may not.
//! Not here: the table for people (`cli/ask/status.rs`).
//! Tested by: a snapshot of every field, in `tests/status.rs`.

use crate::api::balanced::{BalancedStatus, UpstreamStatus};
use serde::{Deserialize, Serialize};
use std::fmt;
use tandem_core::ids::{ConfigVersion, NodeId, PartitionId, ServiceId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::pairing::{Clustering, Kind, Replication};

/// A word that is written in kebab-case; a reader takes a word of a later version as `Unknown`.
macro_rules! words {
    ($(#[doc = $type_doc:literal])+ $type:ident {
        $($(#[doc = $doc:literal])+ $variant:ident => $word:literal),+ $(,)?
    }) => {
        $(#[doc = $type_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $type {
            $($(#[doc = $doc])+ $variant,)+
            /// Not known, or a word of a later version.
            #[serde(other)]
            Unknown,
        }

        impl $type {
            /// The word as written in JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ Self::Unknown => "unknown" }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

pub(crate) use words;

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// Version of the agreed configuration.
    pub config_version: ConfigVersion,
    /// Who leads the consensus; none if the asked node knows of nobody.
    pub leader: Option<NodeId>,
    /// What of the agreed configuration is not in force on the asked node, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
    /// Every member.
    pub nodes: Vec<NodeStatus>,
    /// Every service that Tandem runs.
    pub services: Vec<ServiceStatus>,
    /// Every service whose endpoints something else runs.
    #[serde(default)]
    pub balanced: Vec<BalancedStatus>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeId,
    /// Where its peers reach it.
    pub address: String,
    /// What it is for.
    pub role: NodeRole,
    /// Where it stands.
    pub zone: Option<String>,
    /// How the asked node sees it.
    pub state: NodeState,
}

words! {
    /// What a node is for.
    NodeRole {
        /// Votes and runs instances.
        Data => "data",
        /// Votes, holds no data.
        Witness => "witness",
    }
}

words! {
    /// How a node is seen.
    NodeState {
        /// Heard in time.
        Up => "up",
        /// Heard in time, being emptied.
        Draining => "draining",
        /// A member that does not vote yet.
        Joining => "joining",
        /// Not heard for longer than the suspicion time.
        Silent => "silent",
        /// Its daemon is gone: connections are refused.
        Down => "down",
    }
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceId,
    /// What kind of service.
    pub kind: Kind,
    /// Who serves.
    pub clustering: Clustering,
    /// Who holds the data.
    pub replication: Replication,
    /// What an acknowledged commit is worth.
    pub durability: Durability,
    /// There if copies of it run side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<CopiesStatus>,
    /// There if its work is divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionsStatus>,
    /// The asked node's door, where its work is spread; of one service only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<Box<BalancedStatus>>,
    /// The present term; 0 before the first primary.
    pub term: Term,
    /// How far it has come.
    pub phase: Phase,
    /// Automatic failover is off.
    pub paused: bool,
    /// A switchover that waits for its time; none if no node that is heard keeps one.
    #[serde(default)]
    pub scheduled: Option<ScheduledSwitchover>,
    /// The primary of the term, whether it serves already or not.
    pub primary: Option<NodeId>,
    /// Where clients connect: any of them reaches the right instance.
    pub endpoints: Vec<Endpoint>,
    /// Every instance.
    pub instances: Vec<InstanceStatus>,
    /// The replicas as the door for reads on the asked node has them, once it was used.
    #[serde(default)]
    pub readers: Vec<UpstreamStatus>,
    /// What the owner should know, loudest first, as "commits are confirmed by nobody else".
    pub warnings: Vec<String>,
}

/// How many copies run side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesStatus {
    /// So many shall serve.
    pub wanted: usize,
    /// So many do.
    pub serving: usize,
    /// Whose is being started anew, in turns.
    pub turn: Option<NodeId>,
}

/// Who owns the partitions of a service whose work is divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionsStatus {
    /// Into so many parts.
    pub count: u32,
    /// So many have an owner that may work on them.
    pub owned: u32,
    /// On these nobody works.
    #[serde(default)]
    pub unowned_ids: Vec<PartitionId>,
    /// By node.
    pub nodes: Vec<NodePartitions>,
}

/// What one node owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePartitions {
    /// Which node.
    pub node: NodeId,
    /// So many.
    pub owned: u32,
    /// So many of those it shall release.
    pub releasing: u32,
    /// So many it will own once all that shall move has.
    #[serde(default)]
    pub wanted: u32,
    /// Those that it owns.
    #[serde(default)]
    pub owned_ids: Vec<PartitionId>,
    /// Those of them that it shall release.
    #[serde(default)]
    pub releasing_ids: Vec<PartitionId>,
}

/// A switchover that waits for its time in the memory of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledSwitchover {
    /// The next primary; none is the best standby at that time.
    pub to: Option<NodeId>,
    /// Its time, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The node that keeps it: when its daemon ends before, nothing happens.
    pub kept_by: NodeId,
}

words! {
    /// What an acknowledged commit is worth.
    Durability {
        /// Confirmed by standbys; with too few of them, writes wait.
        Quorum => "quorum",
        /// Confirmed by standbys while there are any.
        Preferred => "preferred",
        /// Confirmed by nobody else.
        Async => "async",
        /// Nothing is kept that Tandem knows of.
        None => "none",
    }
}

words! {
    /// How far a service has come.
    Phase {
        /// The first copy is being made.
        Founding => "founding",
        /// A primary was chosen and does not serve yet.
        Appointed => "appointed",
        /// The primary serves.
        Active => "active",
        /// A planned move is under way.
        Switchover => "switchover",
        /// The primary is lost, standbys are recruited.
        Electing => "electing",
    }
}

/// Where clients connect on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The node.
    pub node: NodeId,
    /// For reads and writes: reaches the primary.
    pub listen: String,
    /// For reads: spread over replicas; none if not configured.
    pub read_listen: Option<String>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Whose.
    pub node: NodeId,
    /// What it is in the present term.
    pub role: InstanceRole,
    /// What it does.
    pub state: InstanceState,
    /// Where PostgreSQL itself listens.
    pub address: String,
    /// The timeline of its data.
    pub timeline: Option<TimelineId>,
    /// End of what is flushed there.
    pub lsn: Option<Lsn>,
    /// Bytes behind the primary; none where not known, 0 on the primary.
    pub lag_bytes: Option<u64>,
    /// Seconds behind the primary; none where not known, 0 on the primary.
    pub lag_s: Option<f64>,
    /// Its confirmation may count for a commit.
    pub in_commit_quorum: bool,
    /// Writes wait for its confirmation, which does not come: too few of those that may confirm
    /// are fed.
    #[serde(default)]
    pub awaited: bool,
    /// Why it is not as it should be.
    pub reason: Option<String>,
}

words! {
    /// What an instance is.
    InstanceRole {
        /// Takes writes.
        Primary => "primary",
        /// A replica that may be promoted.
        Standby => "standby",
        /// One of many, none of them alone.
        Copy => "copy",
        /// Fed by another, may not be promoted.
        Replica => "replica",
        /// Of a command that runs once: the node that runs it.
        Active => "active",
        /// Of a command that runs once: a node that may take it over.
        Passive => "passive",
        /// There is no instance: the node holds no data.
        Witness => "witness",
    }
}

words! {
    /// What an instance does.
    InstanceState {
        /// Runs and serves its role: a primary takes writes.
        Running => "running",
        /// A standby that receives what the primary writes.
        Streaming => "streaming",
        /// A standby that runs but receives nothing.
        Disconnected => "disconnected",
        /// Runs, does not answer yet.
        Starting => "starting",
        /// Leaves recovery.
        Promoting => "promoting",
        /// Asked to stop.
        Stopping => "stopping",
        /// Gets nothing new; what it still has may end.
        Draining => "draining",
        /// Does not run.
        Stopped => "stopped",
        /// Promised a term and waits for its outcome.
        Promised => "promised",
        /// Is being rewound.
        Rewinding => "rewinding",
        /// Is being filled by a base backup.
        Cloning => "cloning",
        /// Runs, does not answer.
        Hung => "hung",
        /// Not to be touched without a human.
        Quarantined => "quarantined",
        /// Its disk may have lost a write: not started before a human looked.
        Suspect => "suspect",
        /// A command that failed so often in a row that it is tried rarely, or elsewhere.
        CrashLoop => "crash-loop",
        /// There is nothing to run.
        Absent => "absent",
    }
}
