//! Decides which commit rule a primary should have, given who is fed by it.
//! In: the durability asked for, the present rule, the standbys that stream. Out: `CommitRule`.
//! Keeps: in `Quorum` mode the rule never shrinks below the acknowledgements asked for, so with too
//! few standbys writes wait and nothing is lost; in `Preferred` mode it shrinks to the primary.
//! Tested by: below, and the simulator, whose operators change the durability.
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
    everyone: &BTreeSet<NodeId>,
) -> CommitRule {
    let with = |standbys: BTreeSet<NodeId>, acks| CommitRule {
        primary: present.primary.clone(),
        standbys,
        acks,
    };
    match durability {
        Durability::Quorum { acks } if streaming.len() >= acks => with(streaming.clone(), acks),
        Durability::Quorum { acks } if present.acks == acks => present.clone(),
        // Asked for more than there is: keep whom we have and wait. Where even those are too few,
        // anybody who comes may confirm: a rule that nobody can satisfy would never be left again.
        Durability::Quorum { acks } => {
            let kept = &present.standbys | streaming;
            with(if kept.len() >= acks { kept } else { everyone.clone() }, acks)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes<const N: usize>(names: [&str; N]) -> BTreeSet<NodeId> {
        names.map(NodeId::from).into()
    }

    #[test]
    fn a_rule_can_always_be_satisfied_by_somebody() {
        let alone = CommitRule { primary: "a".into(), standbys: nodes([]), acks: 0 };
        let everyone = nodes(["b", "c"]);
        let quorum = Durability::Quorum { acks: 1 };
        let rule = desired(quorum, &alone, &nodes([]), &everyone);
        assert_eq!((rule.standbys, rule.acks), (everyone.clone(), 1), "from async or preferred");
        let rule = desired(quorum, &alone, &nodes(["b"]), &everyone);
        assert_eq!((rule.standbys, rule.acks), (nodes(["b"]), 1));
        let one = CommitRule { standbys: nodes(["b"]), acks: 1, ..alone };
        assert_eq!(desired(quorum, &one, &nodes([]), &everyone), one, "writes wait");
    }
}
