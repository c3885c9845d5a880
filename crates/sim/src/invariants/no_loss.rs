//! Checks INV-2: whoever leaves recovery as a primary holds every acknowledged commit; in `Async`
//! mode the loss is bounded.

use crate::world::{World, name};
use tandem_core::spec::Durability;

/// Commits that may be on the way while a primary is lost: what is written between the last word
/// heard of it and the end of its lease, at the clients' greatest rate.
const ON_THE_WAY_MAX: usize = 700;

/// An instance left recovery.
pub fn check(world: &mut World, n: usize) {
    let Some(data) = world.nodes[n].disk.data.as_ref() else { return };
    let missing: Vec<u64> = world
        .record
        .acknowledged
        .iter()
        .filter(|commit| !data.holds(commit.id, commit.position))
        .map(|commit| commit.id)
        .collect();
    if missing.is_empty() {
        return;
    }
    let Durability::Async { lag_bytes_max } = world.spec.durability else {
        let count = missing.len();
        world.violate(format!(
            "INV-2: {} became primary without {count} acknowledged commits, the first is {}",
            name(n),
            missing[0]
        ));
        return;
    };
    let most = usize::try_from(lag_bytes_max).unwrap_or(usize::MAX) + ON_THE_WAY_MAX;
    let count = missing.len();
    world.check(count <= most, || {
        format!("INV-2: {count} acknowledged commits are lost, the bound is {most}")
    });
    world.record.acknowledged.retain(|commit| !missing.contains(&commit.id));
}
