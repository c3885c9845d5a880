//! Decides what a ledger proves: whether two copies were at work at once, for how long none was,
//! which requests were worked on, and how often.
//! In: `Line`s in the order in which they were written. Out: numbers.
//! Keeps: INV-12 is checked here from outside, by what the copies themselves did.
//! Not here: what clients were told (`clients.rs`).
//! Tested by: below.

use super::clients::may_be_repeated;
use crate::drill::evidence::history::{History, Outcome, Window, longest_gap};
use crate::drill::evidence::ledger::Rows;
use crate::drill::worker::{Does, Line};
use std::collections::BTreeSet;
use std::time::Duration;

/// How many lines a copy wrote after another had begun: it was replaced and still at work. The
/// order of the lines counts, not their times, so that no pause inside a copy can hide it.
pub fn two_at_once(lines: &[Line]) -> u64 {
    let (mut current, mut gone) = (None, BTreeSet::new());
    let mut times = 0;
    for line in lines {
        let copy = (line.name.as_str(), line.pid);
        if current == Some(copy) {
            continue;
        }
        if gone.contains(&copy) {
            times += 1;
            continue;
        }
        gone.extend(current);
        current = Some(copy);
    }
    times
}

/// The longest time within the window in which no copy was at work.
pub fn nobody_at_work(lines: &[Line], window: Window) -> Duration {
    let at_work = |line: &&Line| matches!(line.does, Does::Start | Does::Beat);
    longest_gap(lines.iter().filter(at_work).map(|line| line.at), window)
}

/// The outage of a copy that runs alone: what it costs its clients is no shorter than the time in
/// which it was not at work, and longer where doors do not lead to it yet.
pub fn outage_of_one(lines: &[Line], history: &History, window: Window) -> Duration {
    nobody_at_work(lines, window).max(history.outage(window))
}

/// Which requests of a run were worked on, and how often, as rows of its clients. One that may be
/// repeated counts once however often a door repeated it, and not at all if its client was told
/// that it failed: that is no lie, it means "perhaps".
pub fn rows(lines: &[Line], run: &str, history: &History) -> Rows {
    let failed: BTreeSet<(usize, i64)> = history
        .attempts()
        .filter(|(_, attempt)| attempt.outcome == Outcome::Refused)
        .map(|(client, attempt)| (client, attempt.seq))
        .collect();
    let mut rows = Rows::new();
    for line in lines {
        let Does::Request(id) = &line.does else { continue };
        let Some(key) = key(id, run) else { continue };
        let times = rows.entry(key).or_insert(0);
        *times = if may_be_repeated(key.1) { 1 } else { *times + 1 };
    }
    rows.retain(|key, _| !failed.contains(key));
    rows
}

/// The client and the number of a request of a run.
pub fn key(id: &str, run: &str) -> Option<(usize, i64)> {
    let (client, seq) = id.strip_prefix(run)?.strip_prefix('.')?.split_once('.')?;
    Some((client.parse().ok()?, seq.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::clients::request_id;
    use super::*;
    use crate::drill::evidence::history::tests::attempt;
    use tandem_core::time::Timestamp;

    fn line(name: &str, pid: u32, ms: u64, does: Does) -> Line {
        Line { name: name.into(), pid, term: 1, at: Timestamp(ms * 1000), does }
    }

    fn beat(name: &str, pid: u32, ms: u64) -> Line {
        line(name, pid, ms, Does::Beat)
    }

    #[test]
    fn a_copy_that_another_followed_is_seen_when_it_goes_on() {
        let mut lines = vec![beat("a", 1, 0), beat("a", 1, 5), beat("a", 2, 10), beat("b", 3, 15)];
        assert_eq!(two_at_once(&lines), 0, "one after the other");
        // It was stopped in the middle of a line, and says an old time when it goes on.
        lines.push(beat("a", 2, 12));
        lines.push(beat("b", 3, 20));
        assert_eq!(two_at_once(&lines), 1);
        let window = Window { from: Timestamp(0), to: Timestamp(40_000) };
        lines.push(beat("b", 3, 35));
        assert_eq!(nobody_at_work(&lines[..4], window), Duration::from_millis(25));
    }

    #[test]
    fn an_outage_lasts_until_clients_are_answered_again() {
        let lines: Vec<Line> = (0..=1000).map(|at| beat("a", 1, at * 10)).collect();
        let answers = [0, 500, 9_500].map(|at| attempt(1, at, at + 1, Outcome::Acked));
        let history = History { writers: vec![answers.into()], ..History::default() };
        let window = Window { from: Timestamp(0), to: Timestamp(10_000_000) };
        let outage = outage_of_one(&lines, &history, window);
        assert_eq!(outage, Duration::from_secs(9), "it was at work, and nobody was led there");
        let silent = [beat("a", 1, 0)];
        assert_eq!(outage_of_one(&silent, &history, window), Duration::from_secs(10));
    }

    #[test]
    fn what_may_be_repeated_counts_once() {
        let request = |seq| line("x", 1, 1, Does::Request(request_id("r", 2, seq)));
        let of_other_run = line("x", 1, 1, Does::Request("rr.2.9".into()));
        let lines = [request(3), request(3), request(4), request(4), request(5), of_other_run];
        let writers = vec![Vec::new(), Vec::new(), vec![attempt(5, 0, 1, Outcome::Refused)]];
        let history = History { writers, ..History::default() };
        let rows = rows(&lines, "r", &history);
        assert_eq!(rows, Rows::from([((2, 3), 1), ((2, 4), 2)]));
    }
}
