//! Decides who is the next primary among those that promised.
//! In: ballots. Out: the best, and who else is needed if there is none.
//! Keeps: INV-11 the winner holds every acknowledged commit, since it is the most advanced of a set
//! that meets every commit quorum (H7); H16 priority and zone only break ties between equal
//! positions.
//! Not here: whether an election is due (`controller.rs`).
//! Tested by: the scenarios `priority_*.txt`, `zone.txt`.

use super::controller::ControllerView;
use crate::facts::{Ballot, Position};
use crate::ids::{NodeId, Term};
use crate::spec::NodeSpec;
use crate::time::Timestamp;
use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;

/// How much its owner would like a node to be primary, among nodes that hold the same: greater is
/// preferred. In the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preference {
    priority: u32,
    in_the_old_zone: bool,
    name: Reverse<NodeId>,
}

/// The preference for `node` as successor of `old`: priority, then the old primary's zone, where
/// clients are near, then the order of names.
pub fn preference(nodes: &BTreeMap<NodeId, NodeSpec>, old: &NodeId, node: &NodeId) -> Preference {
    let zone = |node| nodes.get(node).and_then(|spec| spec.zone.as_ref());
    Preference {
        priority: nodes.get(node).map_or(0, |spec| spec.priority),
        in_the_old_zone: zone(node).is_some() && zone(node) == zone(old),
        name: Reverse(node.clone()),
    }
}

/// The valid ballots of a term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ballots {
    /// Everyone who promised, witnesses included.
    pub promised: BTreeSet<NodeId>,
    /// What those with data hold.
    pub positions: BTreeMap<NodeId, Position>,
}

/// Collects the ballots for `term` of the nodes that are reachable now: a winner that cannot be
/// reached would help nobody, and a ballot that is missing is waited for (H7).
pub fn ballots(view: &ControllerView<'_>, term: Term, now: Timestamp) -> Ballots {
    let mut ballots = Ballots::default();
    for node in view.nodes.keys() {
        let Some(facts) = view.fresh(node, now) else { continue };
        let Some(instance) = facts.instances.get(view.service) else { continue };
        let Some(Ballot { position, .. }) = instance.ballot.filter(|ballot| ballot.term == term)
        else {
            continue;
        };
        let is_ours = view.state.system.is_none() || instance.system == view.state.system;
        ballots.promised.insert(node.clone());
        if let Some(position) = position.filter(|_| is_ours) {
            ballots.positions.insert(node.clone(), position);
        }
    }
    ballots
}

impl Ballots {
    /// Those that promised and hold data: the only ones that count towards an election.
    pub fn holders(&self) -> BTreeSet<NodeId> {
        self.positions.keys().cloned().collect()
    }

    /// The most advanced; among equals one that is not being emptied, then the preferred one. A
    /// node of priority 0 wins only where it alone holds that much, and hands over soon
    /// (`steady.rs`).
    pub fn best(&self, view: &ControllerView<'_>, old: &NodeId) -> Option<NodeId> {
        let key = |(node, position): &(&NodeId, &Position)| {
            (**position, !view.draining.contains(*node), preference(view.nodes, old, node))
        };
        self.positions.iter().max_by_key(key).map(|(node, _)| node.clone())
    }
}
