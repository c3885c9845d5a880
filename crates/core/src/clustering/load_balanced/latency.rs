//! Decides how slow an endpoint counts: a moving mean that believes bad news at once.
//! In: samples and their moments. Out: microseconds. A sample above the mean replaces it; one below
//! draws it down, the more the longer the last one is past. An endpoint that stalls once is so
//! avoided at once and tried again soon (peak EWMA, as in Finagle's and linkerd's balancers).
//! Not here: what a sample is (the shell: the time to connect, or to the first byte of an answer).
//! Tested by: below.

use crate::time::Timestamp;
use core::time::Duration;

/// After this time without a peak, half of what was above the new samples is forgotten.
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
        let sample = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX);
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

    /// Microseconds; 0 before the first sample.
    pub const fn mean_us(&self) -> u64 {
        self.mean_us
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
        assert_eq!(latency.mean_us(), 100_000);
        let five_seconds = Timestamp(1_000).plus(HALF);
        latency.sample(ms(2), five_seconds);
        assert_eq!(latency.mean_us(), 51_000);
        latency.sample(ms(2), five_seconds);
        assert_eq!(latency.mean_us(), 51_000, "a burst of good news at one moment is one piece");
    }

    #[test]
    fn many_quick_answers_draw_it_down() {
        let mut latency = Latency::default();
        latency.sample(ms(100), Timestamp(0));
        for n in 1..=3_000 {
            latency.sample(ms(1), Timestamp(n * 10_000));
        }
        assert!(latency.mean_us() < 2_000, "{}", latency.mean_us());
    }
}
