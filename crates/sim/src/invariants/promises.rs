//! Checks INV-2: a promise is durable before it is sent: what a node tells as its ballot is on its
//! disk.

use crate::world::{World, name};
use tandem_core::facts::NodeFacts;

/// A node tells its facts to another one.
pub fn check(world: &mut World, n: usize, facts: &NodeFacts) {
    let Some(ballot) = facts.instances.get(&world.service).and_then(|own| own.ballot) else {
        return;
    };
    let durable = world.nodes[n].disk.state.promised;
    world.check(ballot.term <= durable, || {
        format!("INV-2: {} votes in term {}, and {durable} is on its disk", name(n), ballot.term)
    });
}
