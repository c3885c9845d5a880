//! Checks INV-5: terms, promises and the applied index never go back, through any crash.

use crate::world::{World, name};

/// What is durable on each node.
pub fn check(world: &mut World) {
    for n in 0..world.nodes.len() {
        let (was, is) = (world.record.states[n], world.nodes[n].disk.state);
        let (had, has) = (world.record.applied[n], world.nodes[n].applied);
        if was == is && had == has {
            continue;
        }
        let holds = is.promised >= was.promised
            && is.promoted >= was.promoted
            && is.followed >= was.followed
            && is.promised >= is.promoted
            && has >= had;
        world.check(holds, || format!("INV-5: {} went back from {was:?} to {is:?}", name(n)));
        world.record.states[n] = is;
        world.record.applied[n] = has;
    }
}

/// What is agreed: each term once.
pub fn check_agreed(world: &mut World) {
    let state = world.raft.last().clone();
    let Some(appointment) = state.services.get(&world.service).and_then(|s| s.appointment.as_ref())
    else {
        return;
    };
    let (term, primary) = (appointment.term, appointment.primary.clone());
    let newest = world.record.appointed.keys().next_back().copied().unwrap_or_default();
    world.check(term >= newest, || format!("INV-5: term {term} is agreed after {newest}"));
    let known = world.record.appointed.entry(term).or_insert_with(|| primary.clone()).clone();
    world.check(known == primary, || format!("INV-5: {known} and {primary} for term {term}"));
}
