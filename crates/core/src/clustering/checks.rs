//! Decides by what its checks answer whether a copy of a command is well.
//! In: answers, what an owner wrote, the time. Out: `Verdict`, how often to ask.
//! States: asked → (`rise` successes in a row) well → (`fall` failures in a row) unwell, to its
//! end. After its start failures do not count for `grace`, unless it was well before.
//! Not here: how it is asked, and what it is asked (the shell).
//! Tested by: below, and the simulator (`sim/src/singleton/beside`).

use crate::time::Timestamp;
use core::time::Duration;

/// Before its first success it is asked more often: clients wait for that.
const EAGER: Duration = Duration::from_millis(100);

/// How many answers make a difference, as an owner wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Between two checks.
    pub interval: Duration,
    /// So many failures in a row: it is not well.
    pub fall: u32,
    /// So many successes in a row: it is well.
    pub rise: u32,
    /// After its start failures do not count for so long.
    pub grace: Duration,
}

/// Where a copy came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// It was started.
    #[default]
    Started,
    /// A restarted daemon found it running.
    Found,
}

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As it should.
    Good,
    /// Otherwise, or not in time.
    Bad,
}

/// What an answer makes of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What it was.
    Same,
    /// It is well from now on.
    Well,
    /// It is not: so many checks failed in a row.
    Unwell(u32),
}

/// What is known of one copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    began: Timestamp,
    origin: Origin,
    was_well: bool,
    failures: u32,
    successes: u32,
}

impl Checks {
    /// Of a copy that begins now.
    pub fn new(origin: Origin, now: Timestamp) -> Self {
        Self { began: now, origin, ..Self::default() }
    }

    /// Takes an answer.
    pub fn answered(&mut self, answer: Answer, limits: &Limits, now: Timestamp) -> Verdict {
        match answer {
            Answer::Good => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                if self.was_well || self.successes < limits.rise {
                    return Verdict::Same;
                }
                self.was_well = true;
                Verdict::Well
            }
            Answer::Bad => {
                self.successes = 0;
                if !self.was_well && now.since(self.began) < limits.grace {
                    return Verdict::Same;
                }
                self.failures = self.failures.saturating_add(1);
                let is_unwell = self.failures >= limits.fall;
                if is_unwell { Verdict::Unwell(self.failures) } else { Verdict::Same }
            }
        }
    }

    /// From the beginning of one check to the next.
    pub fn pause(&self, limits: &Limits) -> Duration {
        if self.was_well { limits.interval } else { limits.interval.min(EAGER) }
    }

    /// Whether the last ones failed, and count.
    pub const fn fail(&self) -> bool {
        self.failures > 0
    }

    /// Whether a restarted daemon found it, and its checks have not said yet how it is.
    pub fn is_unjudged(&self) -> bool {
        self.origin == Origin::Found && !self.was_well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(5_000_000);
    const LIMITS: Limits = Limits {
        interval: Duration::from_secs(1),
        fall: 3,
        rise: 2,
        grace: Duration::from_secs(10),
    };

    fn answers(checks: &mut Checks, all: &[Answer], now: Timestamp) -> Verdict {
        let verdicts = all.iter().map(|answer| checks.answered(*answer, &LIMITS, now));
        verdicts.last().unwrap_or(Verdict::Same)
    }

    #[test]
    fn it_is_well_after_rise_in_a_row_and_unwell_after_fall_in_a_row() {
        use Answer::{Bad, Good};
        let mut it = Checks::new(Origin::Started, NOW);
        assert_eq!(it.pause(&LIMITS), EAGER, "clients wait");
        assert_eq!(answers(&mut it, &[Good, Bad, Good], NOW), Verdict::Same, "not in a row");
        assert_eq!(answers(&mut it, &[Good], NOW), Verdict::Well);
        assert_eq!(answers(&mut it, &[Good, Good], NOW), Verdict::Same, "told once");
        assert_eq!(it.pause(&LIMITS), LIMITS.interval);
        assert_eq!(answers(&mut it, &[Bad, Bad, Good, Bad, Bad], NOW), Verdict::Same);
        assert!(it.fail());
        assert_eq!(answers(&mut it, &[Bad], NOW), Verdict::Unwell(3), "no grace any more");
    }

    #[test]
    fn failures_after_a_start_count_once_grace_is_over() {
        let mut it = Checks::new(Origin::Started, NOW);
        let late = NOW.plus(LIMITS.grace);
        let just_before = late.minus(Duration::from_micros(1));
        assert_eq!(answers(&mut it, &[Answer::Bad; 9], just_before), Verdict::Same);
        assert!(!it.fail(), "they do not count");
        assert_eq!(answers(&mut it, &[Answer::Bad; 2], late), Verdict::Same);
        assert_eq!(answers(&mut it, &[Answer::Bad], late), Verdict::Unwell(3));
    }

    #[test]
    fn one_that_was_found_is_unjudged_until_it_is_well() {
        let mut it = Checks::new(Origin::Found, NOW);
        assert!(it.is_unjudged());
        assert_eq!(answers(&mut it, &[Answer::Good], NOW), Verdict::Same);
        assert!(it.is_unjudged(), "one of two");
        assert_eq!(answers(&mut it, &[Answer::Good], NOW), Verdict::Well);
        assert!(!it.is_unjudged() && !Checks::new(Origin::Started, NOW).is_unjudged());
    }
}
