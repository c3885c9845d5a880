//! Checks INV-7: a front door sends nobody to a node that was not appointed for the route's term.

use crate::world::{World, index, name};
use std::time::Duration;
use tandem_core::facts::Process;

/// What was heard longer ago routes nobody.
const HEARD_WITHIN: Duration = Duration::from_millis(1500);

/// The routes of every node, as its router makes them from its facts.
pub fn check(world: &mut World) {
    for n in 0..world.nodes.len() {
        let node = &world.nodes[n];
        let Some(daemon) = node.daemon.as_ref() else { continue };
        let agreed = world.agreed(n);
        let Some(appointment) =
            agreed.services.get(&world.service).and_then(|s| s.appointment.as_ref())
        else {
            continue;
        };
        let (term, primary) = (appointment.term, &appointment.primary);
        let own = (*primary == node.id).then_some(&daemon.own);
        let heard = || {
            let facts = daemon.hub.facts.get(primary)?;
            facts.fresh(node.clock.at(world.now), HEARD_WITHIN)?.instances.get(&world.service)
        };
        let routed = own.or_else(heard).is_some_and(|instance| {
            instance.process == Process::Primary
                && instance.promoted == term
                && instance.serving == Some(term)
        });
        if !routed {
            continue;
        }
        let holds = world.record.appointed.get(&term) == Some(primary)
            && world.nodes[index(primary)].disk.state.promoted >= term;
        let to = primary.clone();
        world.check(holds, || format!("INV-7: {} routes to {to} in term {term}", name(n)));
    }
}
