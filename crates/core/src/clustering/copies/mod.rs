//! Decides where copies of a command run side by side, and when one of them ends.
//!
//! No copy excludes another, so nothing is proven and no lease is needed: a copy goes on without a
//! majority. Agreed is only where copies run if not everywhere, and whose turn it is to start anew.
//! As for a primary, two planners without memory: `controller` for the service, on the Raft leader;
//! `copy` for the own copy, on every node. And where each door leads: `door`.
//!
//! In the facts of an instance, `process` `Primary` is "it runs", `promoted` what it was started
//! for (`Copies::term`), `serving` "it is healthy", `withdrawn` "send nothing new",
//! `pending_restart` "it runs as an earlier configuration said".
//! Keeps: INV-14, by its parts.

pub mod controller;
pub mod copy;
pub mod door;
pub mod left;
pub mod placement;

use crate::cluster::state::Copies;
use crate::facts::{InstanceFacts, Process};
use crate::ids::NodeId;
use crate::spec::{ClusterSpec, NodeRole, NodeSpec, ServiceSpec};
use alloc::collections::{BTreeMap, BTreeSet};

/// The nodes on which a copy shall run, drained ones included.
pub fn wanted(
    nodes: &BTreeMap<NodeId, NodeSpec>,
    spec: &ServiceSpec,
    agreed: &Copies,
) -> BTreeSet<NodeId> {
    let is_data = |node: &NodeId| nodes.get(node).is_some_and(|it| it.role == NodeRole::Data);
    match spec.copies.and_then(|copies| copies.replicas) {
        Some(_) => agreed.nodes.iter().filter(|node| is_data(node)).cloned().collect(),
        None => nodes.keys().filter(|node| is_data(node)).cloned().collect(),
    }
}

/// Whether a node's copy may be away for a while: another one that stays takes work, or there never
/// is another.
pub fn is_spared(
    node: &NodeId,
    (wanted, draining): (&BTreeSet<NodeId>, &BTreeSet<NodeId>),
    takes: impl Fn(&NodeId) -> bool,
) -> bool {
    let mut others = wanted.iter().filter(|other| *other != node).peekable();
    others.peek().is_none() || others.any(|other| !draining.contains(other) && takes(other))
}

/// Whether doors may send work to a copy.
pub fn takes_work(own: &InstanceFacts) -> bool {
    serves(own) && own.withdrawn.is_none()
}

/// Whether it runs and is healthy.
fn serves(own: &InstanceFacts) -> bool {
    own.process == Process::Primary && own.serving.is_some()
}

/// Whether a service is one of copies that run side by side.
pub fn is_copies(spec: &ClusterSpec, service: &crate::ids::ServiceId) -> bool {
    spec.services.get(service).is_some_and(|it| it.copies.is_some())
}

#[cfg(test)]
mod tests;
