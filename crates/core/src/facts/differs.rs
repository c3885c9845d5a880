//! Decides whether what a node says changed enough to wake whoever plans on it.
//! In: what was said before and now. Out: whether a plan may wait for the difference.
//! Not here: who is woken (`driver/hub.rs`, and the simulator's).

use super::{DoorUse, InstanceFacts, Link, NodeFacts, SeatFacts, Stream};
use crate::ids::NodeId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Whether what a node says changed.
pub fn differs(before: &NodeFacts, after: &NodeFacts) -> bool {
    before.instances.len() != after.instances.len()
        || before.draining != after.draining
        || before.doors.len() != after.doors.len()
        || after
            .doors
            .iter()
            .any(|(service, door)| door_differs(before.doors.get(service), Some(door)))
        || before.links.iter().any(|(peer, link)| {
            let kind = |link: &Link| core::mem::discriminant(link);
            after.links.get(peer).is_none_or(|other| kind(other) != kind(link))
        })
        || after.instances.iter().any(|(service, instance)| {
            before.instances.get(service).is_none_or(|old| instance_differs(old, instance))
        })
}

/// Whether a door obeys another withdrawal, or something came to its end.
pub fn door_differs(
    before: Option<&BTreeMap<NodeId, DoorUse>>,
    after: Option<&BTreeMap<NodeId, DoorUse>>,
) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return before.is_some() != after.is_some();
    };
    let is_over = |it: &DoorUse| (it.obeys, it.in_flight == 0);
    before.len() != after.len()
        || after.iter().any(|(node, it)| before.get(node).map(is_over) != Some(is_over(it)))
}

/// Whether something else is released, or nothing can be.
pub fn seat_differs(before: &SeatFacts, after: &SeatFacts) -> bool {
    before.table != after.table || before.released != after.released || before.mute != after.mute
}

/// Whether something changed that a plan may wait for; positions and ages alone do not count.
pub fn instance_differs(before: &InstanceFacts, after: &InstanceFacts) -> bool {
    let streams = |facts: &InstanceFacts| matches!(facts.stream, Stream::Connected(_));
    let fed = |facts: &InstanceFacts| -> Vec<(NodeId, bool)> {
        facts.replicas.iter().map(|(node, replica)| (node.clone(), replica.streaming)).collect()
    };
    before.process != after.process
        || before.data != after.data
        || before.ballot != after.ballot
        || before.promised != after.promised
        || before.promoted != after.promoted
        || before.starts_failed != after.starts_failed
        || before.outlives != after.outlives
        || before.is_leaving != after.is_leaving
        || before.serving != after.serving
        || before.rule != after.rule
        || before.upstream != after.upstream
        || before.checkpointed != after.checkpointed
        || before.timeline != after.timeline
        || before.stopped_cleanly != after.stopped_cleanly
        || before.withdrawn != after.withdrawn
        || before.pending_restart != after.pending_restart
        || seat_differs(&before.seat, &after.seat)
        || streams(before) != streams(after)
        || fed(before) != fed(after)
        || core::mem::discriminant(&before.health) != core::mem::discriminant(&after.health)
}
