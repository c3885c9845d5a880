//! Decides what clients saw, from what each of them wrote down: outage, stalls, latency.
//! In: `Attempt`s. Out: numbers. Kept outside of the database, so nothing that happens to the
//! database can change it.
//! Tested by: below.

use hdrhistogram::Histogram;
use std::time::Duration;
use tandem_core::time::Timestamp;

/// What a client knows of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent; nothing heard yet.
    Pending,
    /// The server said that it is committed.
    Acked,
    /// The server said so that it is certainly not committed.
    Refused,
    /// The connection broke, or nobody answered in time: both is possible.
    Unknown,
}

/// One write, sent once and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, unique in its writer.
    pub seq: i64,
    /// When it was sent.
    pub sent: Timestamp,
    /// When its outcome was known.
    pub ended: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
}

/// Everything that the writers of a run did, by writer, each in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Their attempts.
    pub writers: Vec<Vec<Attempt>>,
    /// How often no front door could be connected to, or let a session in, by writer.
    pub closed_doors: Vec<u64>,
    /// When a single door refused a connection or reset one that nobody used: a client has another
    /// door to go to, and was turned away all the same.
    pub turned_away: Vec<Timestamp>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

impl History {
    /// How many writes ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.attempts().filter(|(_, attempt)| attempt.outcome == outcome).count() as u64
    }

    /// Statements that certainly failed, and times when no door let a writer in.
    pub fn errors(&self) -> u64 {
        self.count(Outcome::Refused) + self.closed_doors.iter().sum::<u64>()
    }

    /// The most errors that one single client saw within the window: refused or unknown statements,
    /// and all doors closed. Zero is a client that only waited.
    pub fn errors_per_session_max(&self, window: Window) -> u64 {
        let saw = |(number, attempts): (usize, &Vec<Attempt>)| {
            let failed = attempts.iter().filter(|attempt| {
                matches!(attempt.outcome, Outcome::Refused | Outcome::Unknown)
                    && attempt.ended >= window.from
                    && attempt.ended <= window.to
            });
            failed.count() as u64 + self.closed_doors.get(number).copied().unwrap_or(0)
        };
        self.writers.iter().enumerate().map(saw).max().unwrap_or(0)
    }

    /// Every attempt with its writer's number.
    pub fn attempts(&self) -> impl Iterator<Item = (usize, &Attempt)> {
        self.writers
            .iter()
            .enumerate()
            .flat_map(|(writer, attempts)| attempts.iter().map(move |attempt| (writer, attempt)))
    }

    /// The longest time within the window in which nobody's write was acknowledged.
    pub fn outage(&self, window: Window) -> Duration {
        let mut acks: Vec<Timestamp> = self.writers.iter().flat_map(|w| acks(w)).collect();
        acks.sort_unstable();
        longest_gap(acks.into_iter(), window)
    }

    /// The longest time within the window in which one single writer waited.
    pub fn stall_max(&self, window: Window) -> Duration {
        let stall = |writer: &Vec<Attempt>| longest_gap(acks(writer), window);
        self.writers.iter().map(stall).max().unwrap_or_default()
    }

    /// The 50th and 99th percentile of how long an acknowledgement took.
    pub fn latency(&self) -> (Duration, Duration) {
        let Ok(mut histogram) = Histogram::<u64>::new(3) else { return Default::default() };
        for (_, attempt) in self.attempts().filter(|(_, a)| a.outcome == Outcome::Acked) {
            // Not the saturating way: that one stops at the present range instead of growing it.
            let _ = histogram.record(attempt.ended.since(attempt.sent).as_micros() as u64);
        }
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        (at(0.5), at(0.99))
    }
}

fn acks(attempts: &[Attempt]) -> impl Iterator<Item = Timestamp> {
    attempts.iter().filter(|attempt| attempt.outcome == Outcome::Acked).map(|a| a.ended)
}

/// The longest distance between neighbours among the window's edges and the moments in it.
pub fn longest_gap(moments: impl Iterator<Item = Timestamp>, window: Window) -> Duration {
    let inside = moments.filter(|at| *at > window.from && *at < window.to);
    let mut last = window.from;
    let mut longest = Duration::ZERO;
    for at in inside.chain(std::iter::once(window.to)) {
        longest = longest.max(at.since(last));
        last = at;
    }
    longest
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const fn ms(ms: u64) -> Timestamp {
        Timestamp(ms * 1000)
    }

    pub fn attempt(seq: i64, sent_ms: u64, ended_ms: u64, outcome: Outcome) -> Attempt {
        Attempt { seq, sent: ms(sent_ms), ended: ms(ended_ms), outcome }
    }

    fn acked(ends: &[u64]) -> Vec<Attempt> {
        ends.iter().zip(1..).map(|(end, seq)| attempt(seq, end - 1, *end, Outcome::Acked)).collect()
    }

    fn window(from: u64, to: u64) -> Window {
        Window { from: ms(from), to: ms(to) }
    }

    #[test]
    fn the_outage_is_the_longest_silence_of_all_writers_together() {
        let mut first = acked(&[10, 20, 100, 900]);
        first.push(attempt(9, 200, 500, Outcome::Unknown));
        first.push(attempt(10, 500, 501, Outcome::Refused));
        let history =
            History { writers: vec![first, acked(&[30, 400, 800])], ..History::default() };
        assert_eq!(history.outage(window(15, 1000)), Duration::from_millis(400), "400 to 800");
        assert_eq!(history.outage(window(15, 350)), Duration::from_millis(250), "100 to the edge");
        assert_eq!(history.outage(window(90, 99)), Duration::from_millis(9), "no write at all");
        assert_eq!(history.stall_max(window(15, 1000)), Duration::from_millis(800), "100 to 900");
        assert_eq!(history.count(Outcome::Acked), 7);
        assert_eq!(history.count(Outcome::Unknown), 1);
        assert_eq!(history.errors(), 1, "an unknown outcome is no certain failure");
        assert_eq!(
            history.errors_per_session_max(window(15, 1000)),
            2,
            "and it is one for a client"
        );
        assert_eq!(history.errors_per_session_max(window(15, 400)), 0);
    }

    #[test]
    fn latency_counts_acknowledged_writes_only() {
        let mut attempts: Vec<Attempt> =
            (0..98).map(|seq| attempt(seq, 0, 2, Outcome::Acked)).collect();
        attempts.extend((98..100).map(|seq| attempt(seq, 0, 50, Outcome::Acked)));
        attempts.push(attempt(100, 0, 3000, Outcome::Unknown));
        let history = History { writers: vec![attempts], ..History::default() };
        let (p50, p99) = history.latency();
        assert!(p50.as_micros().abs_diff(2000) < 20, "{p50:?}");
        assert!(p99.as_micros().abs_diff(50_000) < 100, "{p99:?}");
        assert_eq!(History::default().latency().0, Duration::ZERO);
    }
}
