//! Decides how slow an endpoint counts: a moving mean that believes bad news at once.
//! In: samples and their moments. Out: microseconds. A sample above the mean replaces it; one below
//! draws it down, the more the longer the last one is past. An endpoint that stalls once is so
//! avoided at once (peak EWMA, as in Finagle's and linkerd's balancers). Without samples it halves
//! every `HALF`: what is avoided gets none, and would be avoided for ever. What is older than
//! `KNOWN_FOR` says nothing: faded further, an endpoint without work would seem the fastest of all.
//! Work that fails is a slow sample, however fast it failed, and for a while counts as if it were
//! still in flight: what refuses at once would else look idle and quick, and draw all work to it.
//! Not here: what a sample is (the shell: the time to connect, or to the first byte of an answer).
//! Tested by: below, and `sim/tests/endpoints`, which found that.

use crate::time::Timestamp;
use core::time::Duration;

/// After this time half of a peak is forgotten.
const HALF: Duration = Duration::from_secs(5);
/// What was measured last is known for so long.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// How slow work that failed counts at least: slower than most that succeeds.
const FAILED: Duration = Duration::from_secs(1);
/// After this time half of what failed is done with.
const FAILED_HALF: Duration = Duration::from_secs(1);
/// One failure, in the unit that is halved.
const FAILURE: u64 = 1 << 10;

/// How slow one endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    mean_us: u64,
    at: Timestamp,
    failures: u64,
    failed_at: Timestamp,
}

impl Latency {
    /// Takes note of work that failed at `now`.
    pub fn failed(&mut self, now: Timestamp) {
        self.sample(FAILED, now);
        let before = faded(self.failures, now.since(self.failed_at), FAILED_HALF);
        self.failures = before.saturating_add(FAILURE);
        self.failed_at = now;
    }

    /// How much of what failed of late counts as in flight at `now`.
    pub fn failing(&self, now: Timestamp) -> u32 {
        let failures = faded(self.failures, now.since(self.failed_at), FAILED_HALF);
        u32::try_from(failures / FAILURE).unwrap_or(u32::MAX)
    }

    /// Takes a sample of `now`.
    pub fn sample(&mut self, sample: Duration, now: Timestamp) {
        let sample = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX).max(1);
        let passed = now.since(self.at);
        // What was forgotten is not remembered either: one good answer would not bring it back.
        if sample >= self.mean_us || passed >= KNOWN_FOR {
            self.mean_us = sample;
        } else {
            let above = u128::from(self.mean_us - sample);
            let (half, passed) = (HALF.as_micros(), passed.as_micros());
            self.mean_us = sample + u64::try_from(above * half / (half + passed)).unwrap_or(0);
        }
        self.at = now;
    }

    /// Microseconds at `now`; 0 if there was no sample of late, and only then.
    pub fn mean_us(&self, now: Timestamp) -> u64 {
        let passed = now.since(self.at);
        if self.mean_us == 0 || passed >= KNOWN_FOR {
            return 0;
        }
        faded(self.mean_us, passed, HALF).max(1)
    }
}

/// What is left of a value of which half goes in every `half`.
fn faded(value: u64, passed: Duration, half: Duration) -> u64 {
    let (passed, half) = (passed.as_micros(), half.as_micros());
    let halves = u32::try_from(passed / half).unwrap_or(u32::MAX);
    let value = u128::from(value.checked_shr(halves).unwrap_or(0));
    // Between two halvings a straight line is near enough.
    let left = value - value * (passed % half) / (half * 2);
    u64::try_from(left).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let mut latency = Latency::default();
        latency.sample(ms(2), Timestamp(0));
        latency.sample(ms(100), Timestamp(1_000));
        assert_eq!(latency.mean_us(Timestamp(1_000)), 100_000);
        let five_seconds = Timestamp(1_000).plus(HALF);
        latency.sample(ms(2), five_seconds);
        assert_eq!(latency.mean_us(five_seconds), 51_000);
        latency.sample(ms(2), five_seconds);
        assert_eq!(
            latency.mean_us(five_seconds),
            51_000,
            "a burst of good news at one moment is one piece"
        );
    }

    #[test]
    fn many_quick_answers_draw_it_down() {
        let mut latency = Latency::default();
        latency.sample(ms(100), Timestamp(0));
        for n in 1..=3_000 {
            latency.sample(ms(1), Timestamp(n * 10_000));
        }
        let mean_us = latency.mean_us(Timestamp(30_000_000));
        assert!(mean_us < 2_000, "{mean_us}");
    }

    #[test]
    fn what_gets_no_work_is_forgiven_and_then_not_known() {
        let mut latency = Latency::default();
        assert_eq!(latency.mean_us(Timestamp(7)), 0, "never measured");
        latency.sample(ms(64), Timestamp(0));
        let after = |millis| latency.mean_us(Timestamp(0).plus(ms(millis)));
        assert_eq!([0, 2_500, 5_000, 9_999].map(after), [64_000, 48_000, 32_000, 16_004]);
        assert_eq!([10_000, 1_000_000_000].map(after), [0, 0], "not 1: that were the fastest");
        latency.sample(ms(2), Timestamp(0).plus(ms(10_000)));
        let mean_us = latency.mean_us(Timestamp(0).plus(ms(10_000)));
        assert_eq!(mean_us, 2_000, "as if it were the first");
        latency = Latency::default();
        latency.sample(Duration::ZERO, Timestamp(0));
        assert_eq!(latency.mean_us(Timestamp(0).plus(ms(9_000))), 1, "known, however fast");
    }

    #[test]
    fn what_fails_fast_is_slow_and_busy_for_a_while() {
        let mut latency = Latency::default();
        for _ in 0..8 {
            latency.sample(ms(1), Timestamp(0));
            latency.failed(Timestamp(0));
        }
        assert_eq!((latency.mean_us(Timestamp(0)), latency.failing(Timestamp(0))), (1_000_000, 8));
        let after = |millis| latency.failing(Timestamp(0).plus(ms(millis)));
        assert_eq!([1_000, 2_000, 3_000, 4_000].map(after), [4, 2, 1, 0]);
        latency.failed(Timestamp(0).plus(ms(3_000)));
        assert_eq!(latency.failing(Timestamp(0).plus(ms(3_000))), 2);
        assert_eq!(latency.failing(Timestamp(u64::MAX)), 0);
    }
}
