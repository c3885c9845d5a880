//! Checks H6, H22: a standby is fed only by a log that its own is the beginning of. PostgreSQL
//! compares numbers of timelines and positions, so it does not notice.

use crate::world::{World, name};

/// A standby begins to be fed.
pub fn check(world: &mut World, n: usize, up: usize) {
    let (Some(own), Some(source)) =
        (world.nodes[n].disk.data.as_ref(), world.nodes[up].disk.data.as_ref())
    else {
        return;
    };
    let holds = own.is_prefix_of(source);
    let (timeline, end) = (own.timeline(), own.wal.len());
    world.check(holds, || {
        format!(
            "H6: {} (timeline {timeline}, at {end}) is fed by {}, which went another way",
            name(n),
            name(up)
        )
    });
}
