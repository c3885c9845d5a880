//! Decides what is said about how long work takes at an endpoint, and how much of it there is.
//! In: samples and their moments. Out: `Quantiles` and a rate over the last minute, a `Histogram`
//! over everything.
//! A sample is counted in one of `BUCKETS` classes, eight to each doubling, so that a quantile is
//! at most an eighth too large and never too small, however the samples are spread. The last minute
//! is `SLOTS` counts that are forgotten one by one: what an endpoint was like an hour ago says
//! nothing about now.
//! Costs: a sample is one addition in each of two tables; memory is fixed, about 5 kB for an
//! endpoint that had work, nothing for one that had none.
//! Not here: how slow an endpoint counts in a choice (`latency.rs`).
//! Tested by: below.

use crate::time::Timestamp;
use alloc::vec::Vec;
use core::time::Duration;

/// How long counts stay together.
const SLOT: Duration = Duration::from_secs(10);
const SLOTS: usize = 6;
/// Quantiles are about this time.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Doublings from 64 µs to over an hour; what is below is one class more.
const FINEST: u32 = 6;
const COARSEST: u32 = 32;
pub(super) const BUCKETS: usize = 1 + (COARSEST - FINEST) as usize * 8;

/// The upper ends of a histogram's classes, in microseconds; one more class has no end.
pub const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// So many of a hundred took at most so long, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// Half of it.
    pub p50_us: u64,
    /// All but one of ten.
    pub p90_us: u64,
    /// All but one of a hundred.
    pub p99_us: u64,
}

/// Everything that was ever counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many were in each class of `BOUNDS_US`, and above the last.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// The sum of all samples, in microseconds.
    pub sum_us: u64,
}

/// What one endpoint took.
#[derive(Clone, Debug, Default)]
pub struct Times {
    slots: Vec<[u32; BUCKETS]>,
    /// The number of the newest slot, since the clock's start.
    newest: u64,
    /// When the first sample came.
    first: Option<Timestamp>,
    ever: Histogram,
}

impl Times {
    /// Takes a sample of `now`.
    pub fn sample(&mut self, sample: Duration, now: Timestamp) {
        let us = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX);
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, [0; BUCKETS]);
            self.newest = slot(now);
        }
        self.first = self.first.or(Some(now));
        // A moment that lies behind another one counts with it.
        let number = slot(now).max(self.newest);
        for gone in self.newest + 1..=number.min(self.newest + SLOTS as u64) {
            self.slots[place(gone)].fill(0);
        }
        self.newest = number;
        let count = &mut self.slots[place(number)][bucket(us)];
        *count = count.saturating_add(1);
        let class = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.ever.counts[class] += 1;
        self.ever.sum_us = self.ever.sum_us.saturating_add(us);
    }

    /// How long work of the last minute took; none if there was none.
    pub fn quantiles(&self, now: Timestamp) -> Option<Quantiles> {
        let mut counts = [0_u64; BUCKETS];
        for of in self.kept(now, SLOTS as u64) {
            for (count, more) in counts.iter_mut().zip(of) {
                *count += u64::from(*more);
            }
        }
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return None;
        }
        let at = |percent: u64| {
            let rank = (all * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let is_it = |count: &u64| {
                seen += count;
                seen >= rank
            };
            end_of(counts.iter().position(is_it).unwrap_or(BUCKETS - 1))
        };
        Some(Quantiles { p50_us: at(50), p90_us: at(90), p99_us: at(99) })
    }

    /// Samples in a thousand seconds, as over the last ten to twenty seconds.
    pub fn rate_milli(&self, now: Timestamp) -> u64 {
        let Some(first) = self.first else { return 0 };
        let count = |of: &[u32; BUCKETS]| of.iter().map(|count| u64::from(*count)).sum::<u64>();
        let counted: u64 = self.kept(now, 2).map(count).sum();
        let length = u64::try_from(SLOT.as_micros()).unwrap_or(u64::MAX);
        let begun = Timestamp(slot(now).saturating_sub(1).saturating_mul(length)).max(first);
        // A moment after the first sample nobody knows a rate.
        let passed = now.since(begun).max(Duration::from_secs(1));
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        counted.saturating_mul(1_000_000_000) / micros
    }

    /// Everything that was ever counted.
    pub const fn histogram(&self) -> Histogram {
        self.ever
    }

    /// The newest `count` slots that are not over at `now`.
    fn kept(&self, now: Timestamp, count: u64) -> impl Iterator<Item = &[u32; BUCKETS]> {
        let now = slot(now).max(self.newest);
        let oldest = (now + 1).saturating_sub(count);
        let first = self.newest.saturating_sub(SLOTS as u64 - 1).max(oldest);
        // Before the first sample there is no slot to be had.
        (first..=self.newest).filter_map(|number| self.slots.get(place(number)))
    }
}

fn slot(now: Timestamp) -> u64 {
    u64::try_from(u128::from(now.0) / SLOT.as_micros()).unwrap_or(u64::MAX)
}

const fn place(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

/// The class of a sample: its highest binary digit, and the three below it.
pub(super) fn bucket(us: u64) -> usize {
    let Some(highest) = us.checked_ilog2().filter(|highest| *highest >= FINEST) else { return 0 };
    if highest >= COARSEST {
        return BUCKETS - 1;
    }
    let eighth = (us >> (highest - 3)) & 7;
    1 + (highest - FINEST) as usize * 8 + usize::try_from(eighth).unwrap_or(0)
}

/// What no sample of a class is above.
pub(super) const fn end_of(bucket: usize) -> u64 {
    let Some(above) = bucket.checked_sub(1) else { return (1 << FINEST) - 1 };
    let (highest, eighth) = (FINEST + (above / 8) as u32, (above % 8) as u64);
    ((8 + eighth + 1) << (highest - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    #[test]
    fn a_class_ends_where_the_next_one_begins() {
        for at in 0..BUCKETS - 1 {
            let end = end_of(at);
            assert_eq!((bucket(end), bucket(end + 1)), (at, at + 1), "{at}");
            assert!(at < 2 || end <= (end_of(at - 1) + 1) * 9 / 8, "{at}: an eighth at most");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn quantiles_are_those_of_the_samples_and_at_most_an_eighth_above() {
        let mut times = Times::default();
        assert_eq!(times.quantiles(s(5)), None);
        let mut samples: Vec<u64> = (0..1_000_u64).map(|n| (n * n * 7 + 90) % 900_000).collect();
        for sample in &samples {
            times.sample(Duration::from_micros(*sample), s(5));
        }
        samples.sort_unstable();
        let found = times.quantiles(s(5)).unwrap();
        for (percent, found) in [(50, found.p50_us), (90, found.p90_us), (99, found.p99_us)] {
            let exact = samples[percent * 10 - 1];
            assert!(found >= exact && found <= exact * 9 / 8 + 64, "{percent}: {found} {exact}");
        }
        let mut one = Times::default();
        one.sample(Duration::from_micros(200), s(5));
        let found = one.quantiles(s(5)).unwrap();
        assert_eq!([found.p50_us, found.p90_us, found.p99_us], [207, 207, 207]);
    }

    #[test]
    fn a_minute_later_nothing_of_it_counts_but_in_the_histogram() {
        let mut times = Times::default();
        times.sample(Duration::from_secs(3), s(100));
        for second in 101..150 {
            times.sample(Duration::from_millis(1), s(second));
        }
        let slow = |times: &Times, now| times.quantiles(now).unwrap().p99_us > 2_000_000;
        assert!(slow(&times, s(150)) && slow(&times, s(159)));
        assert!(!slow(&times, s(160)), "its slot is over");
        assert!(times.quantiles(s(209)).is_none() || !slow(&times, s(200)));
        assert_eq!(times.quantiles(s(210)), None);
        times.sample(Duration::from_millis(1), s(100_000));
        times.sample(Duration::from_millis(1), s(7));
        assert!(!slow(&times, s(100_000)));
        let ever = times.histogram();
        assert_eq!(ever.counts.iter().sum::<u64>(), 52);
        assert_eq!((ever.counts[1], ever.counts[12]), (51, 1));
        assert_eq!(ever.sum_us, 3_051_000);
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut times = Times::default();
        assert_eq!(times.rate_milli(s(5)), 0);
        for tenth in 0..400 {
            times.sample(Duration::ZERO, Timestamp(100_000_000 + tenth * 100_000));
        }
        let rate = times.rate_milli(s(140));
        assert!((9_900..=10_100).contains(&rate), "{rate}");
        assert!(times.rate_milli(s(150)) < 6_000);
        assert_eq!(times.rate_milli(s(160)), 0);
        let mut young = Times::default();
        young.sample(Duration::ZERO, s(100));
        assert_eq!(young.rate_milli(s(100)), 1_000, "one in its first second");
        assert_eq!(young.rate_milli(s(104)), 250);
    }
}
