//! Checks INV-3: nothing is acknowledged after the lease passed, on the primary's own clock.

use crate::world::{World, name};

/// An instance acknowledged a commit.
pub fn check(world: &mut World, n: usize) {
    let node = &world.nodes[n];
    let now = node.clock.at(world.now);
    let lease = node.lease;
    let holds = lease.is_some_and(|lease| lease >= now);
    world.check(holds, || {
        format!("INV-3: {} acknowledges at {now:?} under a lease of {lease:?}", name(n))
    });
}
