//! Checks INV-11: whoever leaves recovery as a primary holds every commit that was acknowledged in
//! the terms before; of later ones, if it slept meanwhile, it can acknowledge nothing. In `Async`
//! mode it lacks at most the bounds, of what the controller knew to exist. What an operator
//! accepted to lose is no loss.

use crate::event::Micros;
use crate::world::{World, name};
use std::time::Duration;
use tandem_core::cluster::state::Cause;

/// Clocks drift, and a commit is written before it is acknowledged, in no time to speak of.
const DRIFT: Duration = Duration::from_millis(20);

/// An instance left recovery.
pub fn check(world: &mut World, n: usize) {
    let Some(data) = world.nodes[n].disk.data.as_ref() else { return };
    let term = world.nodes[n].disk.state.promoted;
    let missing: Vec<_> = world
        .record
        .acknowledged
        .iter()
        .filter(|commit| commit.term < term && !data.holds(commit.id, commit.position))
        .copied()
        .collect();
    if missing.is_empty() {
        return;
    }
    let end = data.flushed;
    let count = missing.len();
    let first = missing[0].id;
    let line = world.raft.last().services.get(&world.service).and_then(|state| {
        state.history.iter().find(|line| line.term == term).map(|line| (line.cause, line.whole))
    });
    let bound = match line {
        Some((Cause::Forced, _)) if world.record.accepted => None,
        Some((_, false)) => Some(world.record.async_bound.unwrap_or_default()),
        Some((_, true)) | None => Some((0, Duration::ZERO)),
    };
    if let Some((bound, lasts)) = bound.map(|(bytes, lasts)| (bytes as usize, lasts)) {
        // What was acknowledged after the last word of the old primary nobody can know of, and its
        // lease limits how long that goes on.
        let heard = if bound == 0 { usize::MAX } else { world.record.heard };
        let known = missing.iter().filter(|commit| commit.position <= heard).count();
        world.check(known <= bound, || {
            format!(
                "INV-11: {} became primary at {end} without {known} of {count} acknowledged \
                 commits, the first is {first}, the bound is {bound}, {heard} was known",
                name(n)
            )
        });
        let oldest = missing.iter().filter(|commit| commit.position <= heard).map(|it| it.at).min();
        let lost = world.record.heard_at.saturating_sub(oldest.unwrap_or(Micros::MAX));
        let lost = Duration::from_micros(lost);
        world.check(bound == 0 || lost <= lasts.saturating_add(DRIFT), || {
            format!(
                "INV-11: {} became primary without what was acknowledged in {lost:?} before its \
                 old primary was last heard, the bound is {lasts:?}",
                name(n)
            )
        });
    }
    let is_missing = |id| missing.iter().any(|commit| commit.id == id);
    world.record.acknowledged.retain(|commit| !is_missing(commit.id));
}
