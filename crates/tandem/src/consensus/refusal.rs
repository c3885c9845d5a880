//! Talks of changes of members or leader that the leader refuses, with the numbers.
//! Not here: when they are refused (`membership.rs`).

use super::types::TypeConfig;
use openraft::errors::ChangeMembershipError;
use openraft::type_config::alias::CommittedLeaderIdOf;
use serde::{Deserialize, Serialize};
use tandem_core::ids::NodeId;

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another one is not complete (H48).
    #[error("another change of the members is under way")]
    ChangeUnderWay,
    /// It is known under another address.
    #[error("{node} is a member at {known}; remove it before adding it at {given}")]
    OtherAddress {
        /// The member.
        node: NodeId,
        /// Its address.
        known: String,
        /// The address that was asked for.
        given: String,
    },
    /// It votes, and was to be added as a learner.
    #[error("{node} is a voter; remove it before adding it as a learner")]
    Votes {
        /// The member.
        node: NodeId,
    },
    /// It does not vote.
    #[error("{node} is not a voter")]
    NotAVoter {
        /// The node.
        node: NodeId,
    },
    /// Nobody would be left.
    #[error("{node} is the last voter")]
    LastVoter {
        /// The node.
        node: NodeId,
    },
    /// Too few of the voters that would remain are alive (H48).
    #[error("only {live} voters would be alive, and {needed} are needed to agree on anything")]
    NoMajority {
        /// Alive among those that would vote.
        live: usize,
        /// A majority of them.
        needed: usize,
    },
    /// It does not hold everything yet; a new node stays a learner.
    #[error(
        "{node} holds the log up to {}, and {needed} is needed",
        matched.map_or_else(|| "nothing".into(), |index| index.to_string())
    )]
    Behind {
        /// The node.
        node: NodeId,
        /// What it holds.
        matched: Option<u64>,
        /// What it should.
        needed: u64,
    },
    /// The leadership went elsewhere, or stayed.
    #[error(
        "the leadership did not go to {to}; {} leads",
        leader.as_ref().map_or("nobody", NodeId::as_str)
    )]
    NotTransferred {
        /// The target.
        to: NodeId,
        /// Who leads instead.
        leader: Option<NodeId>,
    },
}

impl Refusal {
    /// Whether waiting may help.
    pub fn may_pass_by_itself(&self) -> bool {
        match self {
            Self::ChangeUnderWay
            | Self::NoMajority { .. }
            | Self::Behind { .. }
            | Self::NotTransferred { .. } => true,
            Self::OtherAddress { .. }
            | Self::Votes { .. }
            | Self::NotAVoter { .. }
            | Self::LastVoter { .. } => false,
        }
    }
}

type MembershipError = ChangeMembershipError<CommittedLeaderIdOf<TypeConfig>, NodeId>;

impl From<MembershipError> for Refusal {
    fn from(error: MembershipError) -> Self {
        match error {
            ChangeMembershipError::LearnerNotFound(error) => {
                Self::NotAVoter { node: error.node_id }
            }
            ChangeMembershipError::InProgress(_)
            | ChangeMembershipError::EmptyMembership(_)
            | ChangeMembershipError::UnsupportedMembershipTransition(_)
            | ChangeMembershipError::UncommittedLeaderLog(_)
            | ChangeMembershipError::NodeMetadataChanged(_) => Self::ChangeUnderWay,
        }
    }
}
