//! Decides for how long a copy has held something that it does not show: received, not replayed.
//! In: each look at a standby. Out: a duration, zero where everything whole was replayed.
//! States: none; each daemon keeps its own, and loses it with its end.
//! Keeps: INV-8 all moments are this node's own, of a clock that nobody sets (H45). The age of the
//! last commit would not do: no commit comes out of a long transaction or an idle hour.
//! Not here: what a standby has not received (`Stream::Connected`), what follows for clients
//! (`clustering/active_passive/routing.rs`).
//! Tested by: the tests below; `tests/postgres_lag`.

use crate::lsn::Lsn;
use crate::time::Timestamp;
use alloc::vec::Vec;
use core::time::Duration;

/// So many positions. With ten looks a second they reach back for days, as in a `Trail`.
const MARKS_MAX: usize = 64;

/// One look at a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// End of what it has received.
    pub received: Lsn,
    /// End of what it has replayed.
    pub replayed: Lsn,
    /// How old what it shows may be at most, where nobody looked before: a guess by the time of
    /// day, so used for nothing else.
    pub age_max: Duration,
}

/// When what is not replayed was first seen to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayLag {
    /// Oldest first; both positions and moments rise.
    marks: Vec<Mark>,
    has_looked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    received: Lsn,
    at: Timestamp,
}

impl ReplayLag {
    /// It is no standby, or shows everything whole that it has.
    pub fn note_none(&mut self) {
        self.has_looked = true;
        self.marks.clear();
    }

    /// There is more to replay: since when.
    pub fn note(&mut self, look: Look, now: Timestamp) -> Duration {
        if look.received <= look.replayed {
            self.note_none();
            return Duration::ZERO;
        }
        let since = if self.has_looked { now } else { now.minus(look.age_max) };
        self.has_looked = true;
        self.marks.retain(|mark| mark.received > look.replayed);
        self.push(Mark { received: look.received, at: since });
        if self.marks.len() > MARKS_MAX {
            self.thin(now);
        }
        self.marks.first().map_or(Duration::ZERO, |oldest| now.since(oldest.at))
    }

    /// A receiver that connects anew begins its segment again, so the end may go back: what was
    /// seen beyond it was there no later.
    fn push(&mut self, mut mark: Mark) {
        while let Some(last) = self.marks.pop_if(|last| last.received >= mark.received) {
            mark.at = last.at;
        }
        self.marks.push(mark);
    }

    /// Takes two marks for one, whose gap is the smallest part of its age: what lies between them
    /// then counts as older than it is, never as younger.
    fn thin(&mut self, now: Timestamp) {
        let gap = |i: usize| {
            let (at, next) = (self.marks[i].at, self.marks[i + 1].at);
            next.since(at).as_micros() * 1000 / now.since(at).as_micros().max(1)
        };
        if let Some(least) = (0..self.marks.len() - 1).min_by_key(|i| gap(*i)) {
            let at = self.marks.remove(least).at;
            self.marks[least].at = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Timestamp {
        Timestamp(ms * 1000)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// Looked at before, and everything was replayed.
    fn caught_up() -> ReplayLag {
        let mut lag = ReplayLag::default();
        lag.note_none();
        lag
    }

    fn look(lag: &mut ReplayLag, received: u64, replayed: u64, now: u64) -> u128 {
        let (received, replayed) = (Lsn(received), Lsn(replayed));
        lag.note(Look { received, replayed, age_max: HOUR }, ms(now)).as_millis()
    }

    #[test]
    fn the_first_write_after_an_idle_hour_and_a_long_transaction_make_nobody_late() {
        let mut lag = caught_up();
        assert_eq!(look(&mut lag, 120, 100, 3_600_000), 0);
        for second in 1..1000 {
            // Always more to replay, and never more than came since the look before.
            let (now, received) = (3_600_000 + second * 1000, 120 + second * 10);
            assert_eq!(look(&mut lag, received, received - 5, now), 0);
        }
    }

    #[test]
    fn what_is_not_replayed_ages_from_when_it_was_there() {
        let mut lag = caught_up();
        for (received, replayed, now, is) in [
            (120, 100, 1000, 0),
            (130, 100, 2000, 1000),
            (140, 119, 3000, 2000),
            (140, 120, 4000, 2000),
            (140, 130, 5000, 2000),
            (140, 139, 9000, 6000),
            (140, 140, 9500, 0),
            (150, 140, 9900, 0),
        ] {
            assert_eq!(look(&mut lag, received, replayed, now), is, "at {now}");
        }
        lag.note_none();
        assert_eq!(look(&mut lag, 150, 140, 20_000), 0, "half a record is nothing to replay");
    }

    #[test]
    fn an_end_that_goes_back_makes_nothing_younger() {
        let mut lag = caught_up();
        look(&mut lag, 120, 100, 1000);
        look(&mut lag, 180, 100, 2000);
        assert_eq!(look(&mut lag, 110, 100, 3000), 2000);
        assert_eq!(look(&mut lag, 190, 110, 4000), 0, "what came later is of later");
        assert_eq!(look(&mut lag, 190, 150, 5000), 1000);
    }

    #[test]
    fn before_the_first_look_it_may_have_been_there_for_as_long_as_the_last_commit() {
        let mut lag = ReplayLag::default();
        let now = 5_000_000;
        assert_eq!(look(&mut lag, 120, 100, now), HOUR.as_millis());
        assert_eq!(look(&mut lag, 130, 100, now + 1000), HOUR.as_millis() + 1000);
        assert_eq!(look(&mut lag, 140, 120, now + 2000), 1000);
    }

    #[test]
    fn many_marks_overstate_an_age_by_a_part_of_it_and_understate_none() {
        let mut lag = caught_up();
        let looks = 100_000;
        for n in 1..=looks {
            assert_eq!(u64::try_from(look(&mut lag, n, 0, n * 100)), Ok((n - 1) * 100));
        }
        assert!(lag.marks.len() <= MARKS_MAX);
        for missing in [1, 3, 10, 100, 1000, 10_000, 99_999] {
            let told = look(&mut lag.clone(), looks, looks - missing, looks * 100);
            let real = u128::from(missing - 1) * 100;
            assert!(told >= real && told <= 300 + real * 3 / 2, "{real} became {told}");
        }
    }
}
