//! Talks of what can go wrong with an agreement.

use super::refusal::Refusal;
use super::store;
use super::types::TypeConfig;
use openraft::errors::Fatal;
use std::time::Duration;
use tandem_core::ids::NodeId;

/// Why something was not agreed, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store of this node.
    #[error("the Raft store of this node cannot be used")]
    Store(#[from] store::Error),
    /// The configured times contradict each other.
    #[error("the timing of Raft makes no sense")]
    Timing(#[source] openraft::ConfigError),
    /// Raft has ended on this node, most often because its disk failed.
    #[error("Raft has stopped on this node")]
    Stopped(#[source] Fatal<TypeConfig>),
    /// `found` without this node.
    #[error("{me} is not among the nodes that found the cluster")]
    NotInMembers {
        /// This node.
        me: NodeId,
    },
    /// Surely not agreed.
    #[error(
        "not proposed: within {waited:?} no leader took it, the last known is {}",
        leader.as_ref().map_or("none", NodeId::as_str)
    )]
    NotProposed {
        /// How long it was tried.
        waited: Duration,
        /// Who was last believed to lead.
        leader: Option<NodeId>,
    },
    /// Perhaps agreed, perhaps not: look at the state before proposing it again.
    #[error(
        "the outcome is unknown after {waited:?}: the leader took it, or may have, and did not \
         confirm"
    )]
    Unknown {
        /// How long it was waited for.
        waited: Duration,
    },
    /// This node cannot prove that it leads now.
    #[error(
        "this node does not lead, or cannot prove it; the last known leader is {}",
        leader.as_ref().map_or("none", NodeId::as_str)
    )]
    NotLeading {
        /// Who was last believed to lead.
        leader: Option<NodeId>,
    },
    /// The own state is not known to be new enough.
    #[error(
        "this node's state did not reach log index {index} within {waited:?}, it is at {applied}"
    )]
    Behind {
        /// What was needed.
        index: u64,
        /// What was reached.
        applied: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The command is larger than a log entry may be.
    #[error("the command has {bytes} bytes, over the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The leader refused a change of members or leader.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Error {
    /// Whether waiting may help.
    pub fn may_pass_by_itself(&self) -> bool {
        match self {
            Self::NotProposed { .. }
            | Self::Unknown { .. }
            | Self::NotLeading { .. }
            | Self::Behind { .. } => true,
            Self::Refused(refusal) => refusal.may_pass_by_itself(),
            Self::Store(_)
            | Self::Timing(_)
            | Self::Stopped(_)
            | Self::NotInMembers { .. }
            | Self::TooLarge { .. } => false,
        }
    }
}
