//! Checks INV-7: a front door sends nobody to a node that is not primary of the term behind its
//! barrier, nor into a term that another one has followed, longer than the old primary's lease and
//! the age of what a door goes by allow together.

use crate::event::Micros;
use crate::mutation::Mutation;
use crate::world::{World, index, name};
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::clustering::active_passive::routing::{
    Routing, RoutingView, heard_within, routing,
};
use tandem_core::ids::{NodeId, Term};
use tandem_core::time::Observed;

/// Clocks differ by a hundredth, a door looks ten times a second, and messages take their time.
const SLACK: Micros = 600_000;

/// The routes of a node, made as its router makes them, whenever anything that it knows changed.
pub fn check(world: &mut World, n: usize) {
    let Some(Routing { term, primary: Some(to), .. }) = routes(world, n) else { return };
    let up = index(&to);
    let appointed = world.record.appointed.get(&term) == Some(&to);
    let begun = world.nodes[up].disk.state.promoted >= term;
    let behind_barrier = world.record.barriers.get(&term) == Some(&up);
    let is_primary = appointed && begun && behind_barrier;
    world.check(is_primary, || {
        format!("INV-7: {} routes to {to}, which is not primary of term {term}", name(n))
    });
    let timing = &world.spec.timing;
    let most = timing.lease + timing.drift_margin + heard_within(timing);
    let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX) + SLACK;
    let followed = world.record.began.range(term.next()..).map(|(_, at)| *at).min();
    // A node that slept too long hears in a moment that its own server ended meanwhile.
    let is_gone = up == n && !world.is_primary(up);
    // What arrived while it slept it stamps when it wakes: nothing tells it how old that is.
    let slept = world.nodes[n].thawed + most > world.now;
    let late = followed.map(|at| world.now.saturating_sub(at));
    let late = late.filter(|late| *late > most && !is_gone && !slept);
    world.check(late.is_none(), || {
        format!(
            "INV-7: {} routes into term {term} {} ms after a later one acknowledged",
            name(n),
            late.unwrap_or(0) / 1000
        )
    });
}

fn routes(world: &World, n: usize) -> Option<Routing> {
    let node = &world.nodes[n];
    let daemon = node.daemon.as_ref()?;
    let agreed = world.agreed(n);
    let state = agreed.services.get(&world.service)?;
    let now = node.clock.at(world.now);
    let primary = &state.appointment.as_ref()?.primary;
    let mut facts = BTreeMap::<NodeId, Observed<_>>::new();
    if *primary == node.id {
        facts.insert(primary.clone(), Observed::new(world.own_facts(n)?, now));
    } else {
        let told = daemon.hub.facts.get(primary)?;
        let forgetful = world.options.mutation != Some(Mutation::RouteForEver);
        let at = if forgetful { now.minus(told.age(now)) } else { now };
        facts.insert(primary.clone(), Observed::new(told.last_known().clone(), at));
    }
    let view = RoutingView {
        service: &world.service,
        spec: &agreed.spec,
        timing: world.spec.timing,
        state,
        draining: &agreed.draining,
        facts: &facts,
        lag_bytes_max: 0,
        lag_max: core::time::Duration::MAX,
    };
    let routing = routing(&view, now);
    debug_assert!(routing.valid_until.is_some_and(|until| now.since(until) == Duration::ZERO));
    (routing.term > Term(0)).then_some(routing)
}
