//! Decides who is the next primary among those that promised.
//! In: ballots. Out: the best, and who else is needed if there is none.
//! Keeps: INV-2 the winner holds every acknowledged commit, since it is the most advanced of a set
//! that meets every commit quorum (H7); H16 priority only breaks ties between equal positions.
//! Not here: whether an election is due (`controller.rs`).

use super::controller::ControllerView;
use crate::facts::{Ballot, Position};
use crate::ids::{NodeId, Term};
use crate::time::Timestamp;
use alloc::collections::{BTreeMap, BTreeSet};

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

    /// The most advanced; ties by not draining, then by priority, then by name.
    pub fn best(&self, view: &ControllerView<'_>) -> Option<NodeId> {
        self.positions
            .iter()
            .max_by_key(|(node, position)| {
                let priority = view.nodes.get(*node).map_or(0, |spec| spec.priority);
                (
                    **position,
                    !view.draining.contains(*node),
                    priority,
                    core::cmp::Reverse((*node).clone()),
                )
            })
            .map(|(node, _)| node.clone())
    }
}
