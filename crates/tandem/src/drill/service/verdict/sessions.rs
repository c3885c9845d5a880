//! Decides whether sessions stayed where they were: which node worked on the requests of each, as
//! far as a fault gives no reason to go elsewhere.
//! In: `Evidence`. Out: problems, in words.
//! A session has a home, where it was before the fault. It may be elsewhere while its home is the
//! victim, and at the victim where the fault leads some there: a node that joins, or the door of
//! one that is cut off, which reaches nobody else. In the end it is at home again.
//! The door of a node that joins leads each session where the other doors lead it.
//! Not here: to which session a request belongs (`clients.rs`).
//! Tested by: below.

use super::super::clients::session;
use super::super::judge::key;
use super::{Evidence, guest_of};
use crate::drill::Fault;
use crate::drill::worker::{Does, Line};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::time::Timestamp;

/// Nothing changes any more at the end of a fault, and of a run.
const STEADY: Duration = Duration::from_secs(1);
/// Longer than doors take to hear of a copy that is there again, or is to go: one that was at work
/// for so long before and after a request could have had it.
const SETTLED: Duration = Duration::from_millis(500);
/// A node that joins may take this part of all sessions: of four nodes a quarter is its share, and
/// chance adds to that.
const MOVED_PERCENT_MAX: usize = 50;

/// The client, and which of its own.
type Session = (usize, i64);
/// Who worked on each.
type Places<'a> = BTreeMap<Session, BTreeSet<&'a str>>;

/// What must not be of sessions.
pub fn problems(fault: Fault, evidence: &Evidence) -> Vec<String> {
    let Evidence { times, victim, .. } = evidence;
    let (fault_at, over_at) = (times.fault_at, times.over_at);
    let mut problems = Vec::new();
    let mut homes = BTreeMap::new();
    for (of, places) in places(evidence, times.steady_from, fault_at) {
        problems.extend(apart(of, &places, "before the fault"));
        homes.extend(places.first().map(|home| (of, *home)));
    }
    if homes.is_empty() {
        return vec!["no session was seen before the fault, so nothing is proven".into()];
    }
    problems.extend(strayed(fault, evidence, &homes));
    if matches!(fault, Fault::Drain | Fault::Scale | Fault::NodeKill) {
        let end = times.fault().to;
        let steady = places(evidence, end.minus(STEADY), end);
        problems.extend(steady.iter().filter_map(|(of, at)| apart(*of, at, "while it lasted")));
        let moved = steady.values().filter(|places| places.contains(victim.as_str())).count();
        if fault == Fault::Scale && moved * 100 > homes.len() * MOVED_PERCENT_MAX {
            let all = homes.len();
            problems.push(format!("{moved} of {all} sessions moved to the node that joined"));
        }
        if fault == Fault::Scale {
            problems.extend(led_apart(evidence, &steady, (end.minus(STEADY), end)));
        }
    }
    let end = places(evidence, over_at.minus(STEADY), over_at);
    let away = end.iter().filter(|(of, places)| {
        homes.get(*of).is_some_and(|home| places.iter().any(|place| place != home))
    });
    let away = away.count();
    if away > 0 {
        problems.push(format!("{away} sessions were not where they belong in the end"));
    }
    problems
}

/// In words, if sessions were led away from a node that the fault is not about.
fn strayed(fault: Fault, evidence: &Evidence, homes: &BTreeMap<Session, &str>) -> Option<String> {
    let victim = evidence.victim.as_str();
    let lives = lives(&evidence.lines);
    let was_there = |home: &str, at: Timestamp| {
        let own = lives.iter().filter(|((name, _), _)| *name == home);
        let (from, to) = (at.minus(SETTLED), at.plus(SETTLED));
        own.map(|(_, (first, last))| (*first, *last)).any(|(it, last)| it <= from && last >= to)
    };
    let leads_there = matches!(fault, Fault::Scale | Fault::NodeCut);
    let (from, to) = (evidence.times.fault_at, evidence.times.over_at);
    let strays = requests(evidence, &evidence.run, from, to).filter_map(|(of, place, at)| {
        let home = *homes.get(&of)?;
        let may = home == place
            || match fault {
                // All are victims, one after the other.
                Fault::Restart => !was_there(home, at),
                _ => home == victim || (leads_there && place == victim),
            };
        (!may).then_some((of, home, place))
    });
    let strays: Vec<(Session, &str, &str)> = strays.collect();
    let ((client, number), home, place) = strays.first()?;
    let times = strays.len();
    Some(format!(
        "{times} requests strayed from nodes that nothing was done to, the first of session \
         {client}.{number} from {home} to {place}"
    ))
}

/// From when to when each process wrote that it is at work.
fn lives(lines: &[Line]) -> BTreeMap<(&str, u32), (Timestamp, Timestamp)> {
    let mut lives = BTreeMap::new();
    for line in lines {
        let life = lives.entry((line.name.as_str(), line.pid)).or_insert((line.at, line.at));
        life.1 = line.at;
    }
    lives
}

/// In words, if the door of a node that joined does not lead as the others do. Its guest goes on
/// with the sessions of the first client.
fn led_apart(
    evidence: &Evidence,
    steady: &Places<'_>,
    (from, to): (Timestamp, Timestamp),
) -> Option<String> {
    let mut led = Places::new();
    for (of, place, _) in requests(evidence, &guest_of(&evidence.run), from, to) {
        led.entry(of).or_default().insert(place);
    }
    let both = || led.iter().filter_map(|(of, there)| Some((of, there, steady.get(of)?)));
    if both().next().is_none() {
        let victim = &evidence.victim;
        return Some(format!("no session was seen at the door of {victim} and at another one"));
    }
    let ((client, number), there, here) = both().find(|(_, there, here)| there != here)?;
    let names = |of: &BTreeSet<&str>| of.iter().copied().collect::<Vec<&str>>().join(", ");
    let (victim, there, here) = (&evidence.victim, names(there), names(here));
    Some(format!(
        "the door of {victim} leads session {client}.{number} to {there}, others lead it to {here}"
    ))
}

fn apart((client, number): Session, places: &BTreeSet<&str>, when: &str) -> Option<String> {
    let names: Vec<&str> = places.iter().copied().collect();
    let text = || format!("session {client}.{number} was at {} at once {when}", names.join(", "));
    (names.len() > 1).then(text)
}

fn places(evidence: &Evidence, from: Timestamp, to: Timestamp) -> Places<'_> {
    let mut places = Places::new();
    for (of, place, _) in requests(evidence, &evidence.run, from, to) {
        places.entry(of).or_default().insert(place);
    }
    places
}

fn requests<'a>(
    evidence: &'a Evidence,
    run: &str,
    from: Timestamp,
    to: Timestamp,
) -> impl Iterator<Item = (Session, &'a str, Timestamp)> {
    let of = move |line: &Line| {
        let Does::Request(id) = &line.does else { return None };
        let (client, seq) = key(id, run)?;
        Some((client, session(seq)))
    };
    let inside = move |line: &&Line| line.at > from && line.at <= to;
    let lines = evidence.lines.iter().filter(inside);
    lines.filter_map(move |line| Some((of(line)?, line.name.as_str(), line.at)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::nothing_happened;
    use super::super::{Subject, problems as all_problems};
    use super::*;

    /// From some time on the requests of a session are worked on by others, in turns.
    fn led(of: Session, ms: std::ops::Range<u64>, to: &[&str]) -> Evidence {
        let mut evidence = nothing_happened("a");
        let run = evidence.run.clone();
        let own = |line: &&mut Line| match &line.does {
            Does::Request(id) => {
                let of_line = key(id, &run).map(|(client, seq)| (client, session(seq)));
                of_line == Some(of) && ms.contains(&(line.at.0 / 1000))
            }
            _ => false,
        };
        for (line, name) in evidence.lines.iter_mut().filter(own).zip(to.iter().cycle()) {
            line.name = (*name).into();
        }
        evidence
    }

    fn told(fault: Fault, evidence: &Evidence) -> String {
        problems(fault, evidence).join("; ")
    }

    #[test]
    fn sessions_that_stay_are_no_problem() {
        for fault in Subject::Sessions.faults() {
            assert_eq!(told(*fault, &nothing_happened("a")), "", "{fault}");
        }
        let mut silent = nothing_happened("a");
        silent.lines.retain(|line| !matches!(line.does, Does::Request(_)));
        assert!(told(Fault::Drain, &silent).contains("nothing is proven"));
    }

    #[test]
    fn a_session_that_alternates_is_told() {
        // Client 2 is at b, and a is drained.
        let evidence = led((2, 0), 2_500..12_000, &["a", "b"]);
        let all = all_problems(Subject::Sessions, Fault::Drain, &evidence).join("; ");
        assert!(all.contains("session 2.0 from b to a"), "{all}");
        assert!(all.contains("session 2.0 was at a, b at once while it lasted"), "{all}");
        assert!(all.contains("1 sessions were not where they belong in the end"), "{all}");
        let evidence = led((2, 0), 0..1_500, &["a", "b"]);
        assert!(told(Fault::Restart, &evidence).contains("before the fault"));
    }

    #[test]
    fn sessions_of_the_victim_go_and_come_back() {
        let away = led((1, 4), 2_500..8_500, &["c"]);
        assert_eq!(told(Fault::Drain, &away), "");
        let stays = led((1, 4), 2_500..12_000, &["c"]);
        assert!(told(Fault::NodeKill, &stays).contains("not where they belong"));
        let both = led((1, 4), 2_500..8_500, &["b", "c"]);
        assert!(told(Fault::NodeKill, &both).contains("at b, c at once"));
        assert_eq!(told(Fault::Lie, &both), "", "one that was let in again is ejected again");
    }

    #[test]
    fn a_copy_that_starts_anew_has_its_sessions_elsewhere_only_while_it_does() {
        // The copy of b is another one from 4 s on, and was away for a while before.
        let restarted = |away: std::ops::Range<u64>| {
            let mut evidence = led((2, 0), away, &["a"]);
            let gone = |line: &Line| (3_500..4_000).contains(&(line.at.0 / 1000));
            evidence.lines.retain(|line| line.name != "b" || !gone(line));
            let new = |it: &&mut Line| it.name == "b" && it.at.0 >= 4_000_000;
            evidence.lines.iter_mut().filter(new).for_each(|line| line.pid = 22);
            told(Fault::Restart, &evidence)
        };
        assert_eq!(restarted(3_100..4_400), "", "doors let go of it first, and hear of it then");
        assert!(restarted(2_500..4_400).contains("session 2.0 from b to a"));
        assert!(restarted(3_100..5_000).contains("session 2.0 from b to a"));
    }

    #[test]
    fn a_node_that_joins_takes_its_share() {
        let mut evidence = led((2, 0), 3_000..8_500, &["d"]);
        evidence.victim = "d".into();
        assert_eq!(told(Fault::Scale, &evidence), "");
        let of_guest = |line: &Line| match &line.does {
            Does::Request(id) => key(id, &guest_of("r")).is_some(),
            _ => false,
        };
        let mut apart = evidence.clone();
        let of_one = apart.lines.iter_mut().filter(|line| of_guest(line)).step_by(7);
        of_one.for_each(|line| line.name = "d".into());
        let expected = "the door of d leads session 0.0 to d, others lead it to a";
        assert_eq!(told(Fault::Scale, &apart), expected);
        apart.lines.retain(|line| !of_guest(line));
        assert!(told(Fault::Scale, &apart).contains("no session was seen at the door of d"));
        assert!(told(Fault::Drain, &evidence).contains("strayed"));
        for line in evidence.lines.iter_mut().filter(|it| it.at.0 > 7_000_000) {
            line.name = "d".into();
        }
        assert!(told(Fault::Scale, &evidence).contains("moved to the node that joined"));
    }
}
