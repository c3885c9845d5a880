//! Decides on which nodes copies run where not every node shall have one.
//! In: the present nodes, who could run one and how well, how many are wanted. Out: the nodes.
//! Keeps: INV-14 what can stay stays: no copy moves but off a node that is drained, lost or fails.
//! The rest is spread: first over zones, then by capacity, then by name, so that every leader
//! chooses alike.
//! Not here: who is lost (`controller.rs`).
//! Tested by: `tests.rs`, over all small cases.

use crate::ids::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::cmp::Reverse;

/// How well a node can run a copy; a smaller one is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As far as is known.
    Good,
    /// It failed there again and again.
    Failing,
    /// The node does not answer; it may come back.
    Lost,
}

/// A node that could run a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How well.
    pub grade: Grade,
    /// Where it stands; one that does not say so stands alone.
    pub zone: Option<String>,
    /// How much work it can do.
    pub capacity: u32,
}

/// Nodes by name.
pub type Candidates = BTreeMap<NodeId, Candidate>;

/// The nodes that shall have a copy: `replicas` of them, or as many as there are.
pub fn place(
    present: &BTreeSet<NodeId>,
    candidates: &Candidates,
    replicas: usize,
) -> BTreeSet<NodeId> {
    let is_good = |node: &&NodeId| {
        candidates.get(*node).is_some_and(|candidate| candidate.grade == Grade::Good)
    };
    let mut chosen: BTreeSet<NodeId> = present.iter().filter(is_good).cloned().collect();
    while chosen.len() > replicas {
        let Some(worst) = worst(&chosen, candidates) else { break };
        chosen.remove(&worst);
    }
    while chosen.len() < replicas {
        let Some(best) = best(present, &chosen, candidates) else { break };
        chosen.insert(best);
    }
    chosen
}

/// How many of `chosen` stand where a node stands, itself not counted.
fn neighbours(node: &NodeId, chosen: &BTreeSet<NodeId>, candidates: &Candidates) -> usize {
    let zone = |node: &NodeId| candidates.get(node).and_then(|it| it.zone.as_deref());
    let Some(own) = zone(node) else { return 0 };
    chosen.iter().filter(|other| *other != node && zone(other) == Some(own)).count()
}

fn worst(chosen: &BTreeSet<NodeId>, candidates: &Candidates) -> Option<NodeId> {
    let key = |node: &&NodeId| {
        let capacity = candidates.get(*node).map_or(0, |it| it.capacity);
        (neighbours(node, chosen, candidates), Reverse(capacity), (*node).clone())
    };
    chosen.iter().max_by_key(key).cloned()
}

/// Who is present goes before who is not where both are no better than each other.
fn best(
    present: &BTreeSet<NodeId>,
    chosen: &BTreeSet<NodeId>,
    candidates: &Candidates,
) -> Option<NodeId> {
    let key = |(node, it): &(&NodeId, &Candidate)| {
        let moves = !present.contains(*node);
        let crowded = neighbours(node, chosen, candidates);
        (it.grade, moves, crowded, Reverse(it.capacity), (*node).clone())
    };
    // A lost node that has none could not be told to start one.
    let can = |(node, it): &(&NodeId, &Candidate)| {
        !chosen.contains(*node) && (it.grade != Grade::Lost || present.contains(*node))
    };
    candidates.iter().filter(can).min_by_key(key).map(|(node, _)| node.clone())
}
