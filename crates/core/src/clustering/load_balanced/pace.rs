//! Decides how long work takes at an endpoint of late, so that it can be held against what it takes
//! at the others.
//! In: samples and their moments. Out: `Pace`, a median within a window; none of too few samples.
//! A median and no mean: one page that takes long on purpose makes nobody slow.
//! Not here: who is too slow (`ejection.rs`), how slow an endpoint counts in a choice
//! (`latency.rs`).
//! Tested by: below, `ejection/tests.rs`, and the simulator's storms of endpoints.

use super::quantiles::{BUCKETS, bucket, end_of};
use crate::time::Timestamp;
use alloc::vec::Vec;
use core::time::Duration;

/// Fewer samples in a window say nothing.
pub const VOLUME_MIN: u32 = 20;

/// How long half of the work took at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The oldest sample it rests on is not older.
    pub since: Timestamp,
    /// Microseconds.
    pub median_us: u64,
    /// The way there is a longer one: it stands in another zone.
    pub far: bool,
}

/// What one endpoint took in a window. It allocates nothing before the first sample.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    since: Timestamp,
    count: u32,
    counts: Vec<u32>,
}

impl Recent {
    /// Takes a sample of `now`.
    pub fn sample(&mut self, sample: Duration, now: Timestamp) {
        if self.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
            self.since = now;
        }
        let us = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX);
        let count = &mut self.counts[bucket(us)];
        *count = count.saturating_add(1);
        self.count = self.count.saturating_add(1);
    }

    /// How long it takes; a window that is over begins anew with this call.
    pub fn pace(&mut self, now: Timestamp, window: Duration) -> Option<Pace> {
        let pace = |median_us| Pace { since: self.since, median_us, far: false };
        let pace = self.median_us().map(pace);
        if now.since(self.since) >= window {
            self.counts.fill(0);
            (self.since, self.count) = (now, 0);
        }
        pace
    }

    fn median_us(&self) -> Option<u64> {
        if self.count < VOLUME_MIN {
            return None;
        }
        let half = self.count.div_ceil(2);
        let mut seen = 0_u32;
        let is_it = |count: &u32| {
            seen = seen.saturating_add(*count);
            seen >= half
        };
        self.counts.iter().position(is_it).map(end_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    #[test]
    fn a_pace_is_a_median_of_enough_and_forgets_with_its_window() {
        let window = Duration::from_secs(10);
        let mut recent = Recent::default();
        assert_eq!(recent.pace(second(1), window), None);
        for _ in 0..VOLUME_MIN - 1 {
            recent.sample(Duration::from_millis(10), second(100));
        }
        assert_eq!(recent.pace(second(101), window), None, "one is missing");
        recent.sample(Duration::from_secs(30), second(102));
        let pace = recent.pace(second(109), window).unwrap();
        assert_eq!(pace.since, second(100));
        assert!((10_000..11_300).contains(&pace.median_us), "one that is odd changes nothing");
        assert!(recent.pace(second(110), window).is_some(), "said once more, then begun anew");
        assert_eq!(recent.pace(second(110), window), None);
        for _ in 0..VOLUME_MIN {
            recent.sample(Duration::ZERO, second(111));
        }
        assert_eq!(recent.pace(second(111), window).map(|it| it.since), Some(second(110)));
    }
}
