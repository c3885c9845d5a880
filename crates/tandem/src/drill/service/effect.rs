//! Decides what a fault must have done, and whether it has: a fault that nobody felt proves
//! nothing, and a drill that passes then is worth nothing.
//! In: a `Fault`, the ledger, whether the cluster noticed. Out: what is missing, in words; before
//! it begins, what would leave it without proof (`premature`).
//! Every fault of every service has at least one thing here, or in `verdict.rs`, that is not so
//! where nothing happens: tested there.
//! Not here: what must not happen (`judge.rs`, `pieces.rs`).
//! Tested by: below, `verdict.rs`.

use super::judge::key;
use super::subject::Subject;
use super::verdict::{Members, newcomers_of};
use crate::drill::Fault;
use crate::drill::evidence::history::Window;
use crate::drill::worker::{Does, Line};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::time::Timestamp;

/// Whatever a fault does, it does by then: looked at is this much before its end.
pub const LATELY: Duration = Duration::from_secs(1);
/// Within this a fault begins once it may.
const BEGINS: Duration = Duration::from_millis(500);
/// Whoever has work is given so much of it within `LATELY` and more: one that is avoided is sent
/// some still, when the others are busy.
const WORK_MIN: usize = 10;

/// Something that must be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The process that was at work there is not any more.
    Silent,
    /// Another process began there.
    Replaced,
    /// Another process began, there or elsewhere.
    Succeeded,
    /// The process that was at work there still is, and no other began.
    GoesOn,
    /// It had work before: what is wrong with it was felt.
    Used,
    /// It gets no work, and had some before.
    Unused,
    /// No new connection leads there, and some did before.
    Unchosen,
    /// It works on more partitions than before.
    Grown,
    /// Every process was replaced, one after the other.
    Rolled,
    /// So many are at work.
    AtWork(usize),
    /// It came, worked, and went.
    Joined,
    /// There was a node more, all was well with it, and then it was gone.
    Member,
    /// Whoever was to say that it is not well did (`faults.rs`).
    Noticed,
}

/// What a fault must do.
pub const fn of(subject: Subject, fault: Fault) -> &'static [Effect] {
    use Effect::{
        AtWork, GoesOn, Grown, Joined, Member, Noticed, Replaced, Rolled, Silent, Succeeded,
        Unchosen, Unused, Used,
    };
    match (subject.rules(), fault) {
        (Subject::Singleton, Fault::InstanceKill | Fault::InstanceFreeze) => &[Silent, Succeeded],
        (_, Fault::InstanceKill) => &[Silent, Replaced],
        (_, Fault::Slow | Fault::Lie) if subject.mends_itself(fault) => &[Silent, Replaced],
        // That others get its work is seen by the clients (`verdict.rs`).
        (_, Fault::Slow | Fault::Lie) => &[Used],
        (Subject::Singleton | Subject::Partitions, Fault::DaemonFreeze | Fault::NodeCut) => {
            &[Silent, Noticed]
        }
        // A daemon that is back within the lease costs nothing.
        (Subject::Singleton | Subject::Partitions, Fault::DaemonKill)
        | (Subject::Copies, Fault::DaemonKill | Fault::DaemonFreeze | Fault::NodeCut) => {
            &[GoesOn, Noticed]
        }
        (Subject::Http | Subject::Tcp, Fault::NodeKill | Fault::DaemonKill)
        | (Subject::Http | Subject::Tcp, Fault::DaemonFreeze | Fault::NodeCut) => &[Noticed],
        (_, Fault::NodeKill) => &[Silent, Noticed],
        // A check that only connects is answered by the kernel, whatever the process does.
        (Subject::Http, Fault::InstanceFreeze) => &[Silent, Noticed],
        // What stands still falls silent by itself: that its checks found it out is what counts.
        (Subject::Copies | Subject::Partitions, Fault::InstanceFreeze) => &[Silent, Replaced],
        (_, Fault::InstanceFreeze | Fault::Switchover) => &[Silent],
        // Connections that are there stay there, and requests come with them.
        (Subject::Tcp, Fault::Drain | Fault::Resize) => &[Noticed, Unchosen],
        (Subject::Http, Fault::Drain | Fault::Resize) | (Subject::Partitions, Fault::Drain) => {
            &[Unused]
        }
        (_, Fault::Drain) => &[Silent],
        (_, Fault::Scale) => &[Member, Joined],
        (Subject::Partitions, Fault::Resize) => &[Grown],
        (_, Fault::Resize) => &[AtWork(super::faults::FEWER)],
        (_, Fault::Restart | Fault::Change) => &[Rolled],
        // Of PostgreSQL, which has a drill of its own.
        _ => &[],
    }
}

/// Why a fault would prove nothing if it began just after `now`, in words: who was slow a moment
/// ago, or away, may have no work yet.
pub fn premature(
    (subject, fault): (Subject, Fault),
    lines: &[Line],
    (run, victim): (&str, &str),
    now: Timestamp,
) -> Option<String> {
    let lacks = |effect: &Effect| {
        // What must not have been there is not there yet for the whole of that time.
        let at = if *effect == Effect::Joined { now } else { now.plus(BEGINS) };
        let (window, members) = (Window { from: at, to: at }, Members::default());
        let seen = Seen { lines, run, victim, window, over_at: at, noticed: false, members };
        seen.lacks_before(*effect)
    };
    of(subject, fault).iter().find_map(lacks)
}

/// A process, by its name and number.
type Copy<'a> = (&'a str, u32);

/// What was written about a fault.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// All of it.
    pub lines: &'a [Line],
    /// The name of the run: what others ask for proves nothing of its doors.
    pub run: &'a str,
    /// Whom it was about: a node, or an endpoint.
    pub victim: &'a str,
    /// While it lasted.
    pub window: Window,
    /// When all was over.
    pub over_at: Timestamp,
    /// Whether it was said meanwhile that it is not well.
    pub noticed: bool,
    /// How many nodes there were.
    pub members: Members,
}

impl<'a> Seen<'a> {
    fn within(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| line.at > from && line.at <= to)
    }

    fn before(&self) -> impl Iterator<Item = &'a Line> {
        self.within(self.window.from.minus(LATELY), self.window.from)
    }

    fn lately(&self) -> impl Iterator<Item = &'a Line> {
        self.within(self.window.to.minus(LATELY), self.window.to)
    }

    fn own(&self, line: &&'a Line) -> bool {
        line.name == self.victim
    }

    /// Who was at work when it began: the last process of each name.
    fn old(&self) -> BTreeMap<&'a str, u32> {
        self.before().map(|line| (line.name.as_str(), line.pid)).collect()
    }

    /// In words, what had to be so before, and was not: whatever is seen then proves nothing.
    fn lacks_before(&self, effect: Effect) -> Option<String> {
        let victim = self.victim;
        match effect {
            Effect::Noticed | Effect::Member => None,
            Effect::Joined => self
                .before()
                .any(|line| self.own(&line))
                .then(|| format!("{victim} was at work before it joined, so nothing is proven")),
            _ if !self.old().contains_key(victim) => {
                Some(format!("{victim} was not at work before, so nothing is proven"))
            }
            Effect::Used | Effect::Unused => {
                let work = self.before().filter(|line| self.is_work(line)).count();
                let text =
                    || format!("{victim} had no work before, or little, so nothing is proven");
                (work < WORK_MIN).then(text)
            }
            Effect::Unchosen => {
                let led = self.before().filter(|it| self.own(it) && self.comes(it)).count();
                let text = || {
                    format!("hardly anybody who came was led to {victim} before: nothing is proven")
                };
                (led < WORK_MIN).then(text)
            }
            _ => None,
        }
    }

    /// In words, if it was not so.
    pub fn lacks(&self, effect: Effect) -> Option<String> {
        if let Some(unproven) = self.lacks_before(effect) {
            return Some(unproven);
        }
        let victim = self.victim;
        if effect == Effect::Noticed {
            return (!self.noticed).then(|| "nobody noticed it".to_owned());
        }
        if effect == Effect::Joined {
            return self.not_joined();
        }
        if effect == Effect::Member {
            let Members { before, most, after } = self.members;
            let text = || format!("{before} nodes were {most} at most, and {after} in the end");
            return (most != before + 1 || after != before).then(text);
        }
        let old = self.old().get(victim).copied().unwrap_or_default();
        let still = || self.lately().filter(|it| self.own(it)).any(|line| line.pid == old);
        let is_new = |line: &&Line| line.name == victim && line.pid != old;
        let began = |to| self.within(self.window.from, to).any(|line| is_new(&line));
        let whole = self.lines.last().map_or(self.window.to, |line| line.at);
        match effect {
            Effect::Silent => still().then(|| format!("the process of {victim} is still at work")),
            Effect::Replaced => (!began(whole)).then(|| format!("no other began on {victim}")),
            Effect::Succeeded => self.not_succeeded(),
            Effect::GoesOn => (!still() || began(self.window.to))
                .then(|| format!("the copy of {victim} did not go on")),
            Effect::Unused => self.gets_work(),
            Effect::Unchosen => self.is_chosen(),
            Effect::Grown => {
                let (before, after) =
                    (pieces(self.before(), victim), pieces(self.lately(), victim));
                let text = || format!("{victim} works on {after} partitions, after {before}");
                (after <= before).then(text)
            }
            Effect::Rolled => self.not_rolled(),
            Effect::AtWork(wanted) => {
                let names: BTreeSet<&str> = self.lately().map(|line| line.name.as_str()).collect();
                let is = names.len();
                (is != wanted).then(|| format!("{is} copies are at work, not {wanted}"))
            }
            Effect::Used | Effect::Noticed | Effect::Joined | Effect::Member => None,
        }
    }

    /// What it was for, by the ledger: it may run, and nobody needs it.
    fn is_work(&self, line: &&'a Line) -> bool {
        let is_wanted = match &line.does {
            Does::Request(id) => key(id, self.run).is_some(),
            Does::Work { .. } => true,
            Does::Start | Does::Beat | Does::Stop => false,
        };
        self.own(line) && is_wanted
    }

    fn not_joined(&self) -> Option<String> {
        let victim = self.victim;
        if !self.lately().any(|line| self.is_work(&line)) {
            return Some(format!("{victim} joined and had no work in the end"));
        }
        let mut left = self.within(self.over_at.minus(LATELY), self.over_at);
        left.any(|line| self.own(&line)).then(|| format!("{victim} left and is still at work"))
    }

    fn not_succeeded(&self) -> Option<String> {
        let (before, after): (Vec<_>, Vec<_>) =
            self.lines.iter().partition(|line| line.at <= self.window.from);
        let known: BTreeSet<Copy<'_>> =
            before.iter().map(|it| (it.name.as_str(), it.pid)).collect();
        let began = after.iter().any(|it| !known.contains(&(it.name.as_str(), it.pid)));
        (!began).then(|| format!("no other began after that of {}", self.victim))
    }

    fn gets_work(&self) -> Option<String> {
        let still = self.lately().filter(|line| self.is_work(line)).count();
        let victim = self.victim;
        (still > 0).then(|| format!("{victim} still gets work: {still} in the last second"))
    }

    /// By a connection of its own.
    fn comes(&self, line: &Line) -> bool {
        match &line.does {
            Does::Request(id) => key(id, &newcomers_of(self.run)).is_some(),
            Does::Start | Does::Beat | Does::Stop | Does::Work { .. } => false,
        }
    }

    fn is_chosen(&self) -> Option<String> {
        let victim = self.victim;
        if !self.lately().any(|line| self.comes(line)) {
            return Some("nobody came in the last second, so nothing is proven".into());
        }
        let still = self.lately().filter(|it| self.own(it) && self.comes(it)).count();
        let text = || format!("{still} new connections led to {victim} in the last second");
        (still > 0).then(text)
    }

    fn not_rolled(&self) -> Option<String> {
        let old = self.old();
        let new: BTreeSet<Copy<'_>> =
            self.lately().map(|line| (line.name.as_str(), line.pid)).collect();
        let mut away = Vec::new();
        for (name, pid) in old {
            if new.contains(&(name, pid)) || !new.iter().any(|(other, _)| *other == name) {
                return Some(format!("the copy of {name} was not started anew"));
            }
            let own = || self.lines.iter().filter(move |line| line.name == name);
            let last = own().filter(|line| line.pid == pid).map(|line| line.at).max();
            let last = last.unwrap_or(self.window.from);
            let first = own().map(|line| line.at).filter(|at| *at > last).min();
            away.push((last, first.unwrap_or(self.window.to), name));
        }
        away.sort_unstable();
        let overlap = away.windows(2).find_map(|two| match two {
            [(_, until, one), (from, _, other)] if from < until => Some((*one, *other)),
            _ => None,
        });
        overlap.map(|(one, other)| format!("the copies of {one} and {other} were away at once"))
    }
}

fn pieces<'a>(lines: impl Iterator<Item = &'a Line>, name: &str) -> usize {
    let piece = |line: &'a Line| match line.does {
        Does::Work { id, .. } if line.name == name => Some(id),
        Does::Work { .. } | Does::Start | Does::Beat | Does::Stop | Does::Request(_) => None,
    };
    lines.filter_map(piece).collect::<BTreeSet<u32>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, pid: u32, ms: u64, does: Does) -> Line {
        Line { name: name.into(), pid, term: 1, at: Timestamp(ms * 1000), does }
    }

    /// A beat every 100 ms.
    fn beats(name: &str, pid: u32, ms: std::ops::Range<u64>) -> Vec<Line> {
        ms.step_by(100).map(|at| line(name, pid, at, Does::Beat)).collect()
    }

    /// The fault lasts from the second to the sixth second.
    fn lacks(effect: Effect, parts: &[Vec<Line>]) -> Option<String> {
        let mut lines = parts.concat();
        lines.sort_by_key(|line| line.at);
        let window = Window { from: Timestamp(2_000_000), to: Timestamp(6_000_000) };
        let over_at = Timestamp(8_000_000);
        let members = Members { before: 3, most: 3, after: 3 };
        let (lines, run, victim) = (&lines[..], "r", "a");
        let seen = Seen { lines, run, victim, window, over_at, noticed: false, members };
        seen.lacks(effect)
    }

    #[test]
    fn a_process_that_goes_on_and_one_that_does_not_are_told_apart() {
        let goes_on = [beats("a", 1, 0..8000)];
        let replaced = [beats("a", 1, 0..2100), beats("a", 2, 2300..8000)];
        let gone = [beats("a", 1, 0..2100), beats("b", 9, 0..8000)];
        assert!(lacks(Effect::Silent, &goes_on).is_some());
        assert_eq!(lacks(Effect::Silent, &replaced), None);
        assert!(lacks(Effect::Replaced, &goes_on).is_some());
        assert_eq!(lacks(Effect::Replaced, &replaced), None);
        assert!(lacks(Effect::Replaced, &gone).is_some());
        assert!(lacks(Effect::Succeeded, &goes_on).is_some());
        assert_eq!(lacks(Effect::Succeeded, &replaced), None);
        assert!(lacks(Effect::Succeeded, &gone).is_some(), "the other one was there before");
        let elsewhere = [beats("a", 1, 0..2100), beats("b", 9, 3000..8000)];
        assert_eq!(lacks(Effect::Succeeded, &elsewhere), None);
        assert_eq!(lacks(Effect::GoesOn, &goes_on), None);
        assert!(
            lacks(Effect::GoesOn, &replaced).is_some() && lacks(Effect::GoesOn, &gone).is_some()
        );
        let never = lacks(Effect::Silent, &[beats("b", 1, 0..8000)]).unwrap();
        assert_eq!(never, "a was not at work before, so nothing is proven");
    }

    #[test]
    fn work_that_comes_and_does_not_come_any_more() {
        let asks = |ms: std::ops::Range<u64>| -> Vec<Line> {
            ms.step_by(100).map(|at| line("a", 1, at, Does::Request("r.1.1".into()))).collect()
        };
        let alive = beats("a", 1, 0..8000);
        assert_eq!(lacks(Effect::Unused, &[alive.clone(), asks(0..2200)]), None);
        assert!(lacks(Effect::Unused, &[alive.clone(), asks(0..8000)]).is_some());
        assert!(lacks(Effect::Unused, &[alive]).unwrap().contains("nothing is proven"));
        let works = |id, ms: std::ops::Range<u64>| -> Vec<Line> {
            ms.step_by(100).map(|at| line("a", 1, at, Does::Work { id, epoch: 1 })).collect()
        };
        assert_eq!(lacks(Effect::Grown, &[works(0, 0..8000), works(1, 3000..8000)]), None);
        assert!(lacks(Effect::Grown, &[works(0, 0..8000)]).is_some());
    }

    #[test]
    fn where_new_connections_lead_is_told_apart_from_those_that_are_kept() {
        let asks = |name, ms: std::ops::Range<u64>, run: &str| -> Vec<Line> {
            let does = || Does::Request(format!("{run}.1.1"));
            ms.step_by(100).map(|at| line(name, 1, at, does())).collect()
        };
        // What is kept goes on throughout.
        let kept = asks("a", 0..8000, "r");
        let elsewhere = asks("b", 0..8000, "newcomers-r");
        let told = |parts: &[Vec<Line>]| lacks(Effect::Unchosen, parts).unwrap_or_default();
        let until = |ms| asks("a", 0..ms, "newcomers-r");
        assert_eq!(told(&[kept.clone(), elsewhere.clone(), until(2500)]), "");
        let goes_on = told(&[kept.clone(), elsewhere.clone(), until(8000)]);
        assert_eq!(goes_on, "10 new connections led to a in the last second");
        let never = told(&[kept.clone(), elsewhere]);
        assert_eq!(never, "hardly anybody who came was led to a before: nothing is proven");
        assert!(told(&[kept, until(2500)]).starts_with("nobody came"));
    }

    #[test]
    fn no_fault_begins_that_would_prove_nothing() {
        let asks = |ms: std::ops::Range<u64>, run: &str| -> Vec<Line> {
            let does = || Does::Request(format!("{run}.1.1"));
            ms.step_by(20).map(|at| line("a", 1, at, does())).collect()
        };
        let early = |subject, fault, parts: &[Vec<Line>]| {
            let now = Timestamp(2_000_000);
            premature((subject, fault), &parts.concat(), ("r", "a"), now).unwrap_or_default()
        };
        let alive = beats("a", 1, 0..2000);
        let idle = "a had no work before, or little, so nothing is proven";
        for fault in [Fault::Lie, Fault::Slow, Fault::Drain, Fault::Resize] {
            let told = |asked| early(Subject::Http, fault, &[alive.clone(), asked]);
            assert_eq!(told(asks(0..2000, "r")), "", "{fault}");
            assert_eq!(told(asks(0..1400, "r")), idle, "{fault}: too long ago when it begins");
            assert_eq!(told(asks(1900..2000, "r")), idle, "{fault}: that may be by chance");
            assert_eq!(told(asks(0..2000, "other")), idle, "{fault}: nobody counts those");
        }
        let led = |run| early(Subject::Tcp, Fault::Drain, &[alive.clone(), asks(0..2000, run)]);
        assert_eq!(led("newcomers-r"), "");
        assert_eq!(led("r"), "hardly anybody who came was led to a before: nothing is proven");
        let killed = |parts: &[Vec<Line>]| early(Subject::Copies, Fault::InstanceKill, parts);
        assert_eq!(killed(std::slice::from_ref(&alive)), "");
        assert_eq!(killed(&[]), "a was not at work before, so nothing is proven");
        let joins = |parts: &[Vec<Line>]| early(Subject::Copies, Fault::Scale, parts);
        assert_eq!(joins(&[]), "");
        assert!(joins(&[beats("a", 1, 0..1400)]).contains("before it joined"));
    }

    #[test]
    fn a_node_that_joins_has_work_and_leaves_it() {
        let asks = |ms: std::ops::Range<u64>| -> Vec<Line> {
            ms.step_by(100).map(|at| line("a", 7, at, Does::Request("r.1.1".into()))).collect()
        };
        let others = beats("b", 1, 0..8000);
        assert_eq!(lacks(Effect::Joined, &[others.clone(), asks(3000..6500)]), None);
        let told = |parts: &[Vec<Line>]| lacks(Effect::Joined, parts).unwrap();
        assert_eq!(told(std::slice::from_ref(&others)), "a joined and had no work in the end");
        let idle = [others.clone(), beats("a", 7, 3000..6500)];
        assert_eq!(told(&idle), "a joined and had no work in the end");
        let early = [others.clone(), asks(3000..4000)];
        assert_eq!(told(&early), "a joined and had no work in the end");
        let mut of_guest = asks(3000..6500);
        of_guest.iter_mut().for_each(|it| it.does = Does::Request("guest-r.0.1".into()));
        let led = [others.clone(), of_guest];
        assert_eq!(told(&led), "a joined and had no work in the end", "by no door of the others");
        assert_eq!(told(&[others.clone(), asks(3000..8000)]), "a left and is still at work");
        assert!(told(&[others, asks(0..6500)]).contains("nothing is proven"));
    }

    #[test]
    fn a_node_more_and_then_none() {
        let told = |most, after| {
            let window = Window { from: Timestamp(0), to: Timestamp(0) };
            let (victim, over_at) = ("d", Timestamp(0));
            let members = Members { before: 3, most, after };
            let noticed = false;
            let seen = Seen { lines: &[], run: "r", victim, window, over_at, noticed, members };
            seen.lacks(Effect::Member)
        };
        assert_eq!(told(4, 3), None);
        assert_eq!(told(3, 3).unwrap(), "3 nodes were 3 at most, and 3 in the end");
        assert!(told(4, 4).is_some() && told(0, 0).is_some());
    }

    #[test]
    fn copies_are_replaced_one_after_the_other() {
        let anew =
            |name, at: u64, back: u64| [beats(name, 1, 0..at), beats(name, 2, back..8000)].concat();
        let good = [anew("a", 2500, 3000), anew("b", 3500, 4000)];
        assert_eq!(lacks(Effect::Rolled, &good), None);
        let both = lacks(Effect::Rolled, &[anew("a", 2500, 3500), anew("b", 3000, 4000)]);
        assert_eq!(both.unwrap(), "the copies of a and b were away at once");
        let one = lacks(Effect::Rolled, &[anew("a", 2500, 3000), beats("b", 1, 0..8000)]);
        assert_eq!(one.unwrap(), "the copy of b was not started anew");
        let fewer = [beats("a", 1, 0..8000), beats("b", 1, 0..8000), beats("c", 1, 0..3000)];
        assert_eq!(lacks(Effect::AtWork(2), &fewer), None);
        assert!(lacks(Effect::AtWork(3), &fewer).is_some());
        assert!(lacks(Effect::Noticed, &fewer).is_some());
    }
}
