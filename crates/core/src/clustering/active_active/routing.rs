//! Decides where a door sends the requests of each partition, and when it holds them.
//! In: `RoutingView`. Out: a `Route` for each partition.
//! States of one: held (nobody's, releasing, its owner lost) ⇄ to its owner's copy.
//! Keeps: INV-8 what a node said too long ago counts only where this node is cut off itself: then
//! what it knew last is all that there is. A route may be old, so it never permits anything: who
//! owns a partition is agreed (INV-13), and a copy that does not says so to the door.
//! Not here: what becomes of a request that a copy turns away (`load_balanced/owners.rs`), its key
//! (`load_balanced/key.rs`), the sockets (the shell).
//! Tested by: `tests/routing.rs`, the simulator (`sim/src/singleton/keyed`), `tests/keys`.

use crate::cluster::partitions::Partition;
use crate::cluster::state::ServiceState;
use crate::facts::{InstanceFacts, NodeFacts, Process};
use crate::ids::{Epoch, NodeId, ServiceId};
use crate::spec::{NodeSpec, Seat};
use crate::time::{Observed, Timestamp};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// What a node knows when it routes.
#[derive(Clone, Copy, Debug)]
pub struct RoutingView<'a> {
    /// The service whose work is divided.
    pub service: &'a ServiceId,
    /// Every node.
    pub nodes: &'a BTreeMap<NodeId, NodeSpec>,
    /// Every service, as agreed: seats among them.
    pub services: &'a BTreeMap<ServiceId, ServiceState>,
    /// What every node last said, this one included.
    pub facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
    /// What a node said longer ago is not known to be so now.
    pub suspicion: Duration,
}

/// Where the requests of a partition go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this node's copy, which owns it under this epoch.
    To(NodeId, Epoch),
    /// Nowhere for now: they wait.
    Held(Held),
}

/// Why they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nobody owns it, or its owner is proven gone.
    Unowned,
    /// Its owner was asked to release it, and begins nothing.
    Releasing,
    /// Its owner's node is not heard.
    Silent,
    /// Its owner's copy does not run, or is not well.
    Down,
}

/// A route for each partition; none while it is not known how many there are.
pub fn routes(view: &RoutingView<'_>, now: Timestamp) -> Vec<Route> {
    let table = view.services.get(view.service).and_then(|state| state.partitions.as_ref());
    let Some(table) = table else { return Vec::new() };
    let is_cut_off = is_cut_off(view, now);
    table.iter().map(|(_, it)| route(view, it, (is_cut_off, now))).collect()
}

/// No majority is heard. Then silence says nothing about who is silent.
fn is_cut_off(view: &RoutingView<'_>, now: Timestamp) -> bool {
    let is_heard = |node: &&NodeId| {
        view.facts.get(*node).is_some_and(|facts| facts.fresh(now, view.suspicion).is_some())
    };
    view.nodes.keys().filter(is_heard).count() * 2 <= view.nodes.len()
}

fn route(view: &RoutingView<'_>, it: &Partition, (is_cut_off, now): (bool, Timestamp)) -> Route {
    let Some(owner) = &it.owner else { return Route::Held(Held::Unowned) };
    let name = Seat::name(view.service, &owner.node);
    if view.services.get(&name).is_none_or(|seat| seat.sitting > owner.sitting) {
        return Route::Held(Held::Unowned);
    }
    if it.releasing.is_some() {
        return Route::Held(Held::Releasing);
    }
    let facts = view.facts.get(&owner.node);
    let known = facts.filter(|it| is_cut_off || it.fresh(now, view.suspicion).is_some());
    let Some(known) = known else { return Route::Held(Held::Silent) };
    let takes = |own: &InstanceFacts| {
        // A copy of an earlier sitting owns nothing of it, and is about to be ended.
        let of_now = own.promoted >= owner.sitting;
        of_now && own.process == Process::Primary && own.serving.is_some()
    };
    match known.last_known().instances.get(&name) {
        Some(own) if takes(own) => Route::To(owner.node.clone(), it.epoch),
        Some(_) | None => Route::Held(Held::Down),
    }
}
