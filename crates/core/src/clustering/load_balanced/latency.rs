//! Decides how slow an endpoint counts: a moving mean that believes bad news at once.
//! In: samples and their moments. Out: microseconds. A sample above the mean replaces it; one below
//! draws it down, the more the longer the last one is past. An endpoint that stalls once is so
//! avoided at once (peak EWMA, as in Finagle's and linkerd's balancers). Without samples it halves
//! every `HALF`: what is avoided gets none, and would be avoided for ever. What is older than
//! `KNOWN_FOR` says nothing: faded further, an endpoint without work would seem the fastest of all.
//! Work that fails is a slow sample, however fast it failed, and for a while counts as if it were
//! still in flight: what refuses at once would else look idle and quick, and draw all work to it.
//! One that hangs answers nothing by which it would be known, and seems the quicker the longer its
//! last answer is past. So it is *silent* once two or more wait there and none was answered for
//! several times as long as it takes usually: then nobody believes that it is quick. A single one
//! may be a long poll, and whatever is answered shows that it lives. Those that waited are answered
//! late then, which says that it was silent and is not any more, and nothing of how long the next
//! will take: that counts as slow, and not as slow as the silence was long. Else whoever hung would
//! seem slower for half a minute than one that is slow indeed.
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
/// So many that wait for their first answer can make a silence.
const SILENT_MIN: u32 = 2;
/// One that lasts so many times as long as an answer takes usually.
const SILENT_TIMES: u64 = 4;
/// And at least so long: less is a matter of who runs first on a busy machine.
const SILENT_LEAST_US: u64 = 1_000;
/// Who was answered late, since all were, took at most so many times as long as usual.
const LATE_TIMES: u64 = 16;
/// What is usual moves towards each sample by one part of so many.
const USUAL_PARTS: u64 = 8;

/// How slow one endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    mean_us: u64,
    at: Timestamp,
    failures: u64,
    failed_at: Timestamp,
    /// How long an answer takes, peaks or not; 0: there was none.
    usual_us: u64,
    /// Handed over since the last answer, and still waited for.
    unanswered: u32,
    /// When the first of these was.
    silent_since: Timestamp,
    round: Round,
    /// The last round that ended with a silence.
    silent: Option<Round>,
}

/// Between two answers of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round(u64);

impl Latency {
    /// Work was handed over whole at `now`: an answer is owed, until it has `answered` or
    /// nobody waits for it (`left`).
    pub fn asked(&mut self, now: Timestamp) -> Round {
        if self.unanswered == 0 {
            self.silent_since = now;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.round
    }

    /// Something came that shows that it lives.
    pub fn spoke(&mut self, now: Timestamp) {
        if self.is_silent(now) {
            self.silent = Some(self.round);
        }
        self.unanswered = 0;
        self.round.0 = self.round.0.wrapping_add(1);
    }

    /// What was asked in that round is answered after so long.
    pub fn answered(&mut self, asked: Round, took: Duration, now: Timestamp) {
        self.spoke(now);
        let late = Duration::from_micros(self.usual_us * LATE_TIMES);
        let most = if self.silent == Some(asked) { late } else { Duration::MAX };
        self.sample(took.min(most), now);
    }

    /// Nobody waits any more for an answer to what was handed over in that round.
    pub fn left(&mut self, asked: Round) {
        if asked == self.round {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
    }

    /// Whether it answers nothing though it would have by now.
    pub fn is_silent(&self, now: Timestamp) -> bool {
        let silent_us = now.since(self.silent_since).as_micros();
        let most = (self.usual_us * SILENT_TIMES).max(SILENT_LEAST_US);
        self.unanswered >= SILENT_MIN && self.usual_us > 0 && silent_us > u128::from(most)
    }

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
        self.usual_us = match self.usual_us {
            0 => sample,
            usual => (usual - usual.div_ceil(USUAL_PARTS) + sample.div_ceil(USUAL_PARTS)).max(1),
        };
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

    const fn at(millis: u64) -> Timestamp {
        Timestamp(millis * 1_000)
    }

    #[test]
    fn two_that_wait_longer_than_usual_make_a_silence_and_any_answer_ends_it() {
        let mut latency = Latency::default();
        assert!([latency.asked(at(0)), latency.asked(at(0))].iter().all(|it| *it == Round(0)));
        assert!(!latency.is_silent(at(60_000)), "nobody knows what is usual there");
        latency.answered(Round(0), ms(2), at(60_000));
        latency.asked(at(60_000));
        assert!(!latency.is_silent(at(90_000)), "it may be a long poll");
        latency.asked(at(90_000));
        assert!(latency.is_silent(at(90_000)), "since the first of them");
        latency.spoke(at(90_000));
        assert!(!latency.is_silent(at(120_000)), "those two wait still, and it lives");
        let round = latency.asked(at(120_000));
        latency.asked(at(120_000));
        assert!(!latency.is_silent(at(120_008)) && latency.is_silent(at(120_009)));
        latency.left(round);
        assert!(!latency.is_silent(at(120_009)), "one is none");
        latency.asked(at(120_009));
        latency.left(Round(0));
        assert!(latency.is_silent(at(120_009)), "who is of another round was counted there");
    }

    #[test]
    fn who_waited_for_one_that_was_silent_measured_little() {
        let mut latency = Latency::default();
        latency.sample(ms(2), at(0));
        let asked = [latency.asked(at(0)), latency.asked(at(1))];
        for round in asked {
            latency.answered(round, ms(3_000), at(3_000));
        }
        assert!(latency.mean_us(at(3_000)) <= 2_000 * LATE_TIMES * 3, "{latency:?}");
        assert!(!latency.is_silent(at(9_000)));
        // One alone was no silence: it took that long.
        let alone = latency.asked(at(9_000));
        latency.answered(alone, ms(3_000), at(12_000));
        assert_eq!(latency.mean_us(at(12_000)), 3_000_000);
    }

    #[test]
    fn one_that_gets_slow_is_known_for_it_after_a_few_answers() {
        let mut latency = Latency::default();
        latency.sample(ms(1), at(0));
        let mut now = 0;
        for _ in 0..4 {
            let asked = [latency.asked(at(now)), latency.asked(at(now))];
            now += 250;
            for round in asked {
                latency.answered(round, ms(250), at(now));
            }
        }
        assert_eq!(latency.mean_us(at(now)), 250_000);
    }
}
