//! Decides how slow an endpoint counts: a moving mean that believes bad news at once.
//! In: samples and their moments. Out: microseconds. A sample above the mean replaces it; one below
//! draws it down, the more the longer the last one is past. An endpoint that stalls once is so
//! avoided at once (peak EWMA, as in Finagle's and linkerd's balancers). Without samples it halves
//! every `HALF`: what is avoided gets none, and would be avoided for ever.
//! Not here: what a sample is (the shell: the time to connect, or to the first byte of an answer).
//! Tested by: below, and `sim/tests/endpoints.rs`, which found that.

use crate::time::Timestamp;
use core::time::Duration;

/// After this time half of a peak is forgotten.
const HALF: Duration = Duration::from_secs(5);

/// How slow one endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    mean_us: u64,
    at: Timestamp,
}

impl Latency {
    /// Takes a sample of `now`.
    pub fn sample(&mut self, sample: Duration, now: Timestamp) {
        let sample = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX).max(1);
        let passed = now.since(self.at).as_micros();
        if sample >= self.mean_us {
            self.mean_us = sample;
        } else {
            let above = u128::from(self.mean_us - sample);
            let half = HALF.as_micros();
            self.mean_us = sample + u64::try_from(above * half / (half + passed)).unwrap_or(0);
        }
        self.at = now;
    }

    /// Microseconds at `now`; 0 before the first sample, and only then.
    pub fn mean_us(&self, now: Timestamp) -> u64 {
        if self.mean_us == 0 {
            return 0;
        }
        let (passed, half) = (now.since(self.at).as_micros(), HALF.as_micros());
        let halves = u32::try_from(passed / half).unwrap_or(u32::MAX);
        let mean = u128::from(self.mean_us.checked_shr(halves).unwrap_or(0));
        // Between two halvings a straight line is near enough.
        let mean = mean - mean * (passed % half) / (half * 2);
        u64::try_from(mean).unwrap_or(u64::MAX).max(1)
    }
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
    fn what_gets_no_work_is_forgiven_and_stays_known() {
        let mut latency = Latency::default();
        assert_eq!(latency.mean_us(Timestamp(7)), 0, "never measured");
        latency.sample(ms(64), Timestamp(0));
        let after = |millis| latency.mean_us(Timestamp(0).plus(ms(millis)));
        assert_eq!([0, 2_500, 5_000, 10_000].map(after), [64_000, 48_000, 32_000, 16_000]);
        assert_eq!(after(1_000_000_000), 1);
    }
}
