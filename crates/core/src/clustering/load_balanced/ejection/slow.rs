//! Decides which endpoints take so much longer than the others that they are left out for a while.
//! In: each endpoint's `Pace`. Out: ejections, and what they rest on.
//! What is far is held against what is far: a longer way is no fault of an endpoint.
//! Keeps: INV-7, as what fails: never the last one, nor more than the permitted share.
//! Not here: the samples (`pace.rs`).
//! Tested by: `tests.rs`, and the simulator's storms of endpoints.

use super::Group;
use crate::clustering::load_balanced::pace::Pace;
use crate::time::Timestamp;
use alloc::vec::Vec;

/// What takes less is not slow, however quick the others are.
const SLOW_MIN_US: u64 = 1_000;

/// An endpoint that was ejected for taking too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Which.
    pub at: usize,
    /// Half of its work took more than this, in microseconds.
    pub median_us: u64,
    /// The same of the one in the middle of the others.
    pub others_us: u64,
}

impl Group {
    /// Ejects whoever takes much longer than the others, the slowest first. Endpoints of which too
    /// little is known are nobody's measure; what was slow before it was out does not count.
    pub fn judge(&mut self, paces: &[Option<Pace>], now: Timestamp) -> Vec<Slow> {
        let mut slow = self.judge_those(paces, false, now);
        slow.extend(self.judge_those(paces, true, now));
        slow
    }

    /// The same for those that are far, or those that are not.
    fn judge_those(&mut self, paces: &[Option<Pace>], far: bool, now: Timestamp) -> Vec<Slow> {
        let limits = self.limits;
        let known = |(at, pace): (usize, &Option<Pace>)| {
            let (pace, endpoint) = ((*pace)?, self.endpoints.get(at)?);
            let counts = pace.far == far
                && self.condition(at, now)?.is_in_service()
                && endpoint.back_at.is_none_or(|back| pace.since >= back);
            counts.then_some((pace.median_us, at))
        };
        let mut known: Vec<(u64, usize)> = paces.iter().enumerate().filter_map(known).collect();
        known.sort_unstable();
        let mut slow = Vec::new();
        while let (1.., Some((median_us, at))) = (limits.latency_times, known.pop()) {
            // Of two in the middle the slower one: where half are slow, the fault is elsewhere.
            let Some((others_us, _)) = known.get(known.len() / 2).copied() else { break };
            let most_us = others_us.saturating_mul(u64::from(limits.latency_times));
            let is_slow = median_us > most_us.max(SLOW_MIN_US);
            if !is_slow || !self.may_eject(at, now) {
                break;
            }
            self.endpoints[at].eject(now, &limits);
            slow.push(Slow { at, median_us, others_us });
        }
        slow
    }
}
