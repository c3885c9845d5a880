//! Checks INV-1: acknowledging terms never go back, and each term has one acknowledging instance.

use crate::world::{World, name};

/// An instance acknowledged a commit.
pub fn check(world: &mut World, n: usize) {
    let term = world.nodes[n].disk.state.promoted;
    let newest = world.record.term;
    world.check(term >= newest, || {
        format!("INV-1: {} acknowledges in term {term}, after term {newest} did", name(n))
    });
    world.record.term = newest.max(term);
    let by = *world.record.by_term.entry(term).or_insert(n);
    world.check(by == n, || {
        format!("INV-1: {} and {} both acknowledge in term {term}", name(n), name(by))
    });
}
