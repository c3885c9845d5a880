//! Decides what a run has shown that must not be, from everything that it left behind.
//! In: `Evidence`. Out: problems, in words.
//! Not here: numbers for the report (`judge.rs`, `pieces.rs`), what a fault must do (`effect.rs`).
//! Tested by: below: no fault of any service passes where nothing happened.

mod sessions;

use super::clients::may_be_repeated;
use super::effect::{self, Effect, Seen};
use super::subject::Subject;
use crate::drill::Fault;
use crate::drill::evidence::history::{Attempt, History, Outcome, Window};
use crate::drill::worker::Line;
use std::time::Duration;
use tandem_core::time::Timestamp;

/// What an endpoint does wrong must have no great part any more after this.
const NOTICED: Duration = Duration::from_secs(3);
/// The greatest part that it may have then: one endpoint of three has 33 % unless it is noticed.
const NOTICED_PERCENT_MAX: usize = 10;
/// Slower than this is an answer of the slow endpoint.
const SLOW: Duration = Duration::from_millis(250);

/// When things happened.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Since when nothing was waited for: what was seen before that may have been under way.
    pub steady_from: Timestamp,
    /// When the fault began.
    pub fault_at: Timestamp,
    /// When it was ended, if it does not end by itself.
    pub healed_at: Option<Timestamp>,
    /// When all was well again, or waited for no longer.
    pub over_at: Timestamp,
    /// Whether all was well.
    pub whole: bool,
    /// Whether it was said while the fault lasted that its victim is not well.
    pub noticed: bool,
    /// How many nodes there were when all was well.
    pub members: Members,
}

/// How many nodes there were when all was well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Before the fault.
    pub before: usize,
    /// The most while it lasted.
    pub most: usize,
    /// In the end.
    pub after: usize,
}

impl Times {
    /// While the fault lasted.
    pub fn fault(&self) -> Window {
        Window { from: self.fault_at, to: self.healed_at.unwrap_or(self.over_at) }
    }

    /// From the fault until all was well again.
    pub const fn all(&self) -> Window {
        Window { from: self.fault_at, to: self.over_at }
    }
}

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What clients were told.
    pub history: History,
    /// What copies and endpoints did.
    pub lines: Vec<Line>,
    /// When.
    pub times: Times,
    /// The name of the run.
    pub run: String,
    /// Whom the fault was about, as it calls itself in the ledger.
    pub victim: String,
}

/// The name of what is asked at the door of a node that joins while a run lasts: judged apart.
pub fn guest_of(run: &str) -> String {
    format!("guest-{run}")
}

/// The name of what is asked by connections of its own each, beside clients that keep theirs.
pub fn newcomers_of(run: &str) -> String {
    format!("newcomers-{run}")
}

/// What must not be, whatever else a report says.
pub fn problems(subject: Subject, fault: Fault, evidence: &Evidence) -> Vec<String> {
    let Evidence { history, lines, times, victim, run, .. } = evidence;
    let mut problems: Vec<String> = failed(subject, fault, evidence).into_iter().collect();
    if subject.forgives_nothing(fault) || subject.repeats(fault) {
        problems.extend(turned_away(history, times.all()));
    }
    if subject == Subject::Sessions {
        problems.extend(sessions::problems(fault, evidence));
    }
    let window = times.fault();
    let late = |attempt: &Attempt| attempt.ended.since(attempt.sent) >= SLOW;
    let wrong: Option<fn(&Attempt) -> bool> = match fault {
        // Nobody else could be sent what belongs to it: it is waited for, or fails.
        _ if subject.rules() == Subject::Partitions => None,
        Fault::Lie => Some(|attempt| attempt.outcome != Outcome::Acked),
        Fault::Slow => Some(late),
        _ => None,
    };
    problems.extend(wrong.and_then(|wrong| unnoticed(history, window, wrong)));
    let Times { over_at, noticed, members, .. } = *times;
    let seen = Seen { lines, run, victim, window, over_at, noticed, members };
    problems.extend(effect::of(subject, fault).iter().filter_map(|it| seen.lacks(*it)));
    if let (Fault::Change, Some(from)) = (fault, times.healed_at) {
        let back = Seen { window: Window { from, to: over_at }, ..seen };
        let lacks = back.lacks(Effect::Rolled);
        problems.extend(lacks.map(|it| format!("when it was changed back: {it}")));
    }
    problems
}

/// In words, if requests failed that must not.
fn failed(subject: Subject, fault: Fault, evidence: &Evidence) -> Option<String> {
    let during = |attempt: &&Attempt| attempt.ended >= evidence.times.fault_at;
    let asked = evidence.history.attempts().map(|(_, attempt)| attempt).filter(during).count();
    let failed = |only_repeatable: bool| {
        let is_bad = |attempt: &&Attempt| {
            matches!(attempt.outcome, Outcome::Refused | Outcome::Unknown)
                && (!only_repeatable || may_be_repeated(attempt.seq))
        };
        let all = evidence.history.attempts().map(|(_, attempt)| attempt);
        all.filter(during).filter(is_bad).count()
    };
    match (failed(false), failed(true)) {
        (all, _) if all > 0 && subject.forgives_nothing(fault) => {
            Some(format!("{all} of {asked} requests failed, though none may"))
        }
        (_, some) if some > 0 && subject.repeats(fault) => {
            Some(format!("{some} requests failed that a door may send again"))
        }
        _ => None,
    }
}

/// In words, if a door closed to somebody who then had to go to another one.
fn turned_away(history: &History, window: Window) -> Option<String> {
    let inside = |at: &&Timestamp| **at >= window.from && **at <= window.to;
    let times = history.turned_away.iter().filter(inside).count();
    let text = || format!("doors turned clients away {times} times, though none may");
    (times > 0).then(text)
}

/// In words, if the door of a node that joined did not open, or let a client down once it had.
pub fn problem_of_guest(history: &History, node: &str) -> Option<String> {
    let all = || history.attempts().map(|(_, attempt)| attempt);
    let acked = all().filter(|it| it.outcome == Outcome::Acked);
    let Some(open) = acked.map(|it| it.ended).min() else {
        return Some(format!("nobody was answered at the door of {node}"));
    };
    let bad = |it: &&Attempt| matches!(it.outcome, Outcome::Refused | Outcome::Unknown);
    let failed = all().filter(|it| it.ended > open).filter(bad).count();
    let turned_away = history.turned_away.iter().filter(|at| **at > open).count();
    let text =
        || format!("at the door of {node} {failed} requests failed, {turned_away} found it closed");
    (failed + turned_away > 0).then(text)
}

/// In words, if somebody who connected anew since then was let down where none may be.
pub fn problem_of_newcomers(history: &History, from: Timestamp) -> Option<String> {
    let bad = |it: &Outcome| matches!(it, Outcome::Refused | Outcome::Unknown);
    let all = history.attempts().filter(|(_, it)| it.sent >= from);
    let failed = all.filter(|(_, it)| bad(&it.outcome)).count();
    let turned_away = history.turned_away.iter().filter(|at| **at >= from).count();
    let text =
        || format!("of new connections {failed} failed, and {turned_away} found a door closed");
    (failed + turned_away > 0).then(text)
}

/// In words, if what an endpoint does wrong still has a great part once it should have been
/// noticed, or never had one.
fn unnoticed(history: &History, window: Window, wrong: fn(&Attempt) -> bool) -> Option<String> {
    let within = |from: Timestamp| {
        let inside = move |it: &&Attempt| it.ended > from && it.ended < window.to;
        history.attempts().map(|(_, it)| it).filter(inside)
    };
    if !within(window.from).any(wrong) {
        return Some("nobody was sent to the bad endpoint, so nothing is proven".into());
    }
    let late: Vec<&Attempt> = within(window.from.plus(NOTICED)).collect();
    if late.is_empty() {
        return Some("nobody asked for anything once it should have been noticed".into());
    }
    let percent = late.iter().filter(|it| wrong(it)).count() * 100 / late.len();
    (percent > NOTICED_PERCENT_MAX).then(|| {
        let seconds = NOTICED.as_secs();
        format!("{percent} % of requests still went to the bad endpoint after {seconds} s")
    })
}

#[cfg(test)]
pub mod tests {
    use super::super::clients::request_id;
    use super::*;
    use crate::drill::evidence::history::tests::attempt;
    use crate::drill::worker::Does;

    /// Everybody is at work, all the time, and every request is answered: each by the same.
    pub fn nothing_happened(victim: &str) -> Evidence {
        let mut lines = Vec::new();
        let mut attempts = Vec::new();
        for ms in (0..12_000_u64).step_by(20) {
            for (name, pid) in ["a", "b", "c", "x", "y", "z"].into_iter().zip(1..) {
                let request = Does::Request(request_id("r", pid as usize, ms as i64 / 20));
                let work = Does::Work { id: pid, epoch: 1 };
                let line =
                    |does| Line { name: name.into(), pid, term: 1, at: Timestamp(ms * 1000), does };
                lines.extend([Does::Beat, request, work].map(line));
            }
            // A client at a, and a guest, whose door leads it as the others lead that client.
            for run in ["r".to_owned(), guest_of("r")] {
                let does = Does::Request(request_id(&run, 0, ms as i64 / 20));
                let at = Timestamp(ms * 1000);
                lines.push(Line { name: "a".into(), pid: 1, term: 1, at, does });
            }
            attempts.push(attempt(ms as i64, ms, ms + 2, Outcome::Acked));
        }
        let at = |seconds: u64| Timestamp(seconds * 1_000_000);
        let (fault_at, healed_at, over_at) = (at(2), Some(at(8)), at(11));
        Evidence {
            history: History { writers: vec![attempts], ..History::default() },
            lines,
            times: Times {
                steady_from: at(0),
                fault_at,
                healed_at,
                over_at,
                whole: true,
                noticed: false,
                members: Members { before: 3, most: 3, after: 3 },
            },
            run: "r".into(),
            victim: victim.into(),
        }
    }

    #[test]
    fn no_fault_passes_that_did_nothing() {
        for subject in Subject::ALL.iter().filter(|it| **it != Subject::Postgres) {
            for fault in subject.faults() {
                for victim in ["a", "x", "never there"] {
                    let found = problems(*subject, *fault, &nothing_happened(victim));
                    assert!(!found.is_empty(), "{subject} {fault} cannot fail");
                }
            }
        }
    }

    #[test]
    fn no_freeze_passes_that_is_only_sat_out() {
        let freezes = |fault: &&Fault| matches!(fault, Fault::InstanceFreeze | Fault::DaemonFreeze);
        for subject in Subject::ALL.iter().filter(|it| **it != Subject::Postgres) {
            for fault in subject.faults().iter().filter(freezes) {
                // A check that only connects is answered by the kernel.
                if (*subject, *fault) == (Subject::Tcp, Fault::InstanceFreeze) {
                    continue;
                }
                let is_endpoint = subject.has_endpoints() && *fault == Fault::InstanceFreeze;
                let victim = if is_endpoint { "x" } else { "a" };
                let mut evidence = nothing_happened(victim);
                let window = evidence.times.fault();
                let stands = |at: Timestamp| at > window.from && at <= window.to;
                evidence.lines.retain(|line| line.name != victim || !stands(line.at));
                let found = problems(*subject, *fault, &evidence);
                assert!(!found.is_empty(), "{subject} {fault}: nobody did a thing");
            }
        }
    }

    #[test]
    fn a_change_back_is_judged_as_the_change_is() {
        let mut evidence = nothing_happened("a");
        // From then on one name after the other has another process.
        let roll = |evidence: &mut Evidence, from_ms: u64, pid: u32| {
            for (name, turn) in ["a", "b", "c", "x", "y", "z"].into_iter().zip(0..) {
                let later = |it: &&mut Line| it.at.0 / 1000 >= from_ms + turn * 300;
                let own = evidence.lines.iter_mut().filter(|line| line.name == name);
                own.filter(later).for_each(|line| line.pid += pid);
            }
        };
        roll(&mut evidence, 3_000, 10);
        let found = problems(Subject::Copies, Fault::Change, &evidence);
        assert_eq!(found, ["when it was changed back: the copy of a was not started anew"]);
        roll(&mut evidence, 8_100, 20);
        assert_eq!(problems(Subject::Copies, Fault::Change, &evidence), Vec::<String>::new());
    }

    #[test]
    fn what_must_not_fail_is_told() {
        let mut evidence = nothing_happened("a");
        evidence.history.writers[0][300].outcome = Outcome::Refused;
        let told = |fault, evidence: &Evidence| problems(Subject::Copies, fault, evidence);
        let found = told(Fault::Restart, &evidence);
        assert!(found[0].starts_with("1 of 500 requests failed, though none may"), "{found:?}");
        // A number that may be sent again.
        evidence.history.writers[0][300].seq = 1;
        let found = told(Fault::InstanceKill, &evidence);
        assert!(found[0].contains("that a door may send again"), "{found:?}");
    }

    #[test]
    fn a_door_that_closes_to_anybody_is_told_where_none_may() {
        let mut evidence = nothing_happened("a");
        let is_told = |fault, evidence: &Evidence| {
            let found = problems(Subject::Singleton, fault, evidence);
            found.iter().any(|it| it.starts_with("doors turned clients away 2 times"))
        };
        let second = |seconds: u64| Timestamp(seconds * 1_000_000);
        evidence.history.turned_away = [1, 12].map(second).into();
        assert!(!is_told(Fault::Switchover, &evidence), "not while it lasted");
        evidence.history.turned_away = [3, 9].map(second).into();
        assert!(is_told(Fault::Switchover, &evidence));
        assert!(!is_told(Fault::NodeKill, &evidence), "a node that is dead has no door");
        let found = problems(Subject::Copies, Fault::InstanceKill, &evidence);
        let of_doors = found.iter().filter(|it| it.starts_with("doors turned clients away"));
        assert_eq!(
            of_doors.count(),
            1,
            "what a door makes up for is no reason to close: {found:?}"
        );
    }

    #[test]
    fn a_door_of_a_new_node_opens_and_stays_open() {
        let told = |outcomes: &[Outcome], closed_ms: u64| {
            let attempts = outcomes.iter().zip(1..);
            let attempts = attempts.map(|(it, at)| attempt(at, at as u64, at as u64 + 1, *it));
            let turned_away = vec![Timestamp(closed_ms * 1000)];
            let history =
                History { writers: vec![attempts.collect()], turned_away, ..History::default() };
            problem_of_guest(&history, "d").unwrap_or_default()
        };
        let (acked, refused) = (Outcome::Acked, Outcome::Refused);
        assert_eq!(told(&[refused, acked, acked], 1), "", "it was not open yet");
        assert!(told(&[refused, refused], 1).contains("nobody was answered"));
        assert!(told(&[acked, refused], 1).contains("1 requests failed"));
        assert!(told(&[acked, acked], 9).contains("1 found it closed"));
    }

    #[test]
    fn whoever_connects_anew_is_let_down_by_nothing() {
        let told = |outcome, turned_away: &[Timestamp]| {
            let (writers, turned_away) =
                (vec![vec![attempt(1, 1, 2, outcome)]], turned_away.into());
            let history = History { writers, turned_away, ..History::default() };
            problem_of_newcomers(&history, Timestamp(1))
        };
        assert_eq!(told(Outcome::Acked, &[]), None);
        assert!(told(Outcome::Refused, &[]).unwrap().contains("1 failed"));
        assert!(told(Outcome::Unknown, &[]).unwrap().contains("1 failed"));
        assert!(told(Outcome::Acked, &[Timestamp(1)]).unwrap().contains("1 found a door closed"));
        let early = [vec![attempt(1, 1, 2, Outcome::Refused)]].into();
        let history = History { writers: early, ..History::default() };
        assert_eq!(problem_of_newcomers(&history, Timestamp(1_001)), None, "it was waited for");
    }

    #[test]
    fn an_endpoint_that_nobody_noticed_is_told() {
        let wrong = |attempt: &Attempt| attempt.outcome != Outcome::Acked;
        let window = Window { from: Timestamp(0), to: Timestamp(10_000_000) };
        let told = |early: i64, late: i64| {
            let outcome = |bad| if bad { Outcome::Refused } else { Outcome::Acked };
            let early = (0..30).map(|at| attempt(at, 1, 2, outcome(at < early)));
            let late = (0..30).map(|at| attempt(at, 4000, 4001, outcome(at < late)));
            let writers = vec![early.chain(late).collect()];
            unnoticed(&History { writers, ..History::default() }, window, wrong)
        };
        assert_eq!(told(10, 3), None);
        assert!(told(10, 10).unwrap().starts_with("33 % of requests"));
        assert!(told(0, 0).unwrap().contains("nothing is proven"));
        let silent = History {
            writers: vec![vec![attempt(1, 1, 2, Outcome::Refused)]],
            ..History::default()
        };
        assert!(unnoticed(&silent, window, wrong).unwrap().contains("nobody asked"));
    }
}
