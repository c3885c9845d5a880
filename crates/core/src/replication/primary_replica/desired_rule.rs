//! Decides which commit rule a primary should have, given who is fed by it.
//! In: the durability asked for, the present rule, the standbys that stream. Out: `CommitRule`.
//! Keeps: in `Quorum` mode the rule never shrinks below the acknowledgements asked for, so with too
//! few standbys writes wait and nothing is lost; in `Preferred` mode it shrinks to the primary.
//! Not here: how a change is made safe (`Appointment::rules`, H8).

use super::sync_quorum::CommitRule;
use crate::ids::NodeId;
use crate::spec::Durability;
use alloc::collections::BTreeSet;

/// The rule to aim for; equal to `present` where nothing should change.
pub fn desired(
    durability: Durability,
    present: &CommitRule,
    streaming: &BTreeSet<NodeId>,
) -> CommitRule {
    let with = |standbys: BTreeSet<NodeId>, acks| CommitRule {
        primary: present.primary.clone(),
        standbys,
        acks,
    };
    match durability {
        Durability::Quorum { acks } if streaming.len() >= acks => with(streaming.clone(), acks),
        Durability::Quorum { acks } if present.acks == acks => present.clone(),
        // Asked for more than there is: keep whom we have and wait.
        Durability::Quorum { acks } => with(&present.standbys | streaming, acks),
        Durability::Preferred { acks } => with(streaming.clone(), acks.min(streaming.len())),
        Durability::Async { .. } => with(BTreeSet::new(), 0),
    }
}

/// The rule for a primary that was just appointed, before anyone streams from it.
pub fn initial(
    durability: Durability,
    primary: &NodeId,
    reachable: BTreeSet<NodeId>,
    everyone: BTreeSet<NodeId>,
) -> CommitRule {
    let (standbys, acks) = match durability {
        Durability::Quorum { acks } if reachable.len() >= acks => (reachable, acks),
        Durability::Quorum { acks } => (everyone, acks),
        Durability::Preferred { acks } => {
            let acks = acks.min(reachable.len());
            (reachable, acks)
        }
        Durability::Async { .. } => (BTreeSet::new(), 0),
    };
    CommitRule { primary: primary.clone(), standbys, acks }
}
