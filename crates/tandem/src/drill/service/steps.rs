//! Breaks a drilled service once: wait until it is whole, send requests, inject, watch, heal, wait
//! again, count.
//! In: a `Fault`. Out: `RunReport`.
//! States: Whole → Warming → Worth it → Broken → (healed) Healing → Whole, each with a bound.
//! Not here: what each fault does (`faults.rs`), what the evidence proves (`verdict.rs`).
//! Tested by: below; the drill itself.

use super::clients::{Clients, Manner};
use super::effect;
use super::faults::{Cast, Deed, Injection, injection, noticed_of};
use super::judge;
use super::kit::{PARTITIONS, SERVICE};
use super::pieces::{self, Pieces};
use super::pulse::Pulse;
use super::stage::Stage;
use super::subject::Subject;
use super::verdict::{self, Evidence, Members, Times};
use crate::drill::evidence::history::History;
use crate::drill::evidence::ledger;
use crate::drill::evidence::workload::Load;
use crate::drill::report::{RunReport, milliseconds, seconds};
use crate::drill::rounds::Breaks;
use crate::drill::stage::{LOOK, is_fresh, until};
use crate::drill::steps::with_causes;
use crate::drill::view::View;
use crate::drill::worker::{self, Line};
use crate::drill::{Error, Fault};
use crate::runtime::clock;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;
use tokio::time::sleep;

/// How long a fault lasts at least once it is there.
const LASTS: Duration = Duration::from_secs(3);
/// One whose effect is looked at once it should have been noticed.
const LASTS_NOTICED: Duration = Duration::from_secs(6);
/// How long fewer copies are wanted.
const LASTS_RESIZED: Duration = Duration::from_secs(8);
/// Of those who connect for each request.
const NEWCOMERS_PER_DOOR: usize = 2;
/// Why it is not whole, if no node says a thing.
const UNANSWERED: &str = "it seems whole, and not everybody is answered";

impl Breaks for Stage {
    async fn mend(&self) {
        self.mend_all().await;
    }

    async fn run(&self, fault: Fault, round: u32, seed: u64) -> Result<RunReport, Error> {
        let cast = self.cast(fault, seed, round).await?;
        let Some(injection) = injection(self.subject, fault, &cast) else {
            let because = format!("it is no fault of the service {}", self.subject);
            return Err(Error::Skipped { fault, because });
        };
        let path = self.kit.ledger();
        let from = worker::end(&path).map_err(|source| Error::Folder { path, source })?;
        let layout = self.cluster.layout();
        let door = |place| layout.door_of(place, SERVICE);
        let doors: Vec<SocketAddr> = layout.nodes.iter().filter_map(door).collect();
        let run = format!("{seed}-{fault}-{round}-{}", clock::unix_ms());
        let (is_divided, is_asked) =
            (self.subject.rules() == Subject::Partitions, self.subject != Subject::Partitions);
        let manner = Manner::of(self.subject);
        let pulse = Pulse {
            clients: is_asked.then(|| Clients::start(&self.load, &doors, &run, manner)),
            pieces: is_divided.then(|| Pieces::start(&self.kit.ledger(), from, PARTITIONS)),
        };
        let newcomers = self.newcomers(fault, &doors, &run);
        let mut problems = Vec::new();
        let watched = (&pulse, &mut problems);
        let place = (run.as_str(), from);
        let broken = self.break_and_heal((fault, &cast), place, &injection, watched).await;
        let history = pulse.stop().await;
        let newcomers = match newcomers {
            Some(newcomers) => newcomers.stop().await,
            None => History::default(),
        };
        let times = broken?;
        problems.extend(verdict::problem_of_newcomers(&newcomers, times.steady_from));
        let lines = self.read(from)?;
        let victim = cast.victim(self.subject, fault).to_owned();
        let evidence = Evidence { history, lines, times, run, victim };
        problems.extend(verdict::problems(self.subject, fault, &evidence));
        problems.extend(self.deaths());
        let mut report = self.report(&evidence, (fault, round), problems);
        report.node = match (self.subject.has_endpoints(), &injection.inject[..]) {
            // The fault was about an endpoint: the node that was asked for it is no victim.
            _ if fault == Fault::Scale => cast.spare,
            (true, [Deed::To(_)]) | (false, _) => cast.node,
            (true, _) => NodeId::new(cast.address),
        };
        Ok(report)
    }
}

impl Stage {
    /// Clients who connect for each request, where those of the run keep their connections and an
    /// endpoint shall get no new ones: several at each door, so that none of it is avoided for what
    /// others keep there.
    fn newcomers(&self, fault: Fault, doors: &[SocketAddr], run: &str) -> Option<Clients> {
        let is_asked =
            self.subject == Subject::Tcp && matches!(fault, Fault::Drain | Fault::Resize);
        let load = Load { writers: doors.len() * NEWCOMERS_PER_DOOR, ..self.load.clone() };
        let run = verdict::newcomers_of(run);
        is_asked.then(|| Clients::start(&load, doors, &run, Manner::Anew))
    }

    fn read(&self, from: u64) -> Result<Vec<Line>, Error> {
        let path = self.kit.ledger();
        let (lines, _) =
            worker::read(&path, from).map_err(|source| Error::Folder { path, source })?;
        Ok(lines)
    }

    async fn break_and_heal(
        &self,
        (fault, cast): (Fault, &Cast),
        (run, from): (&str, u64),
        Injection { inject, heal }: &Injection,
        (pulse, problems): (&Pulse, &mut Vec<String>),
    ) -> Result<Times, Error> {
        self.warm(pulse).await?;
        let steady_from = self.become_worth_it((fault, cast), (run, from)).await?;
        let (fault_at, share) = (clock::now(), pulse.share(cast.node.as_str()));
        let (before, daemon) = (self.view().asked, self.cluster.daemon_pid(&cast.node));
        self.act_all(inject, problems).await;
        let guest = (fault == Fault::Scale).then(|| self.guest(&cast.spare, run)).flatten();
        let (told, most) = self.endure((fault, cast), share, (pulse, problems)).await;
        // It is back before any node may doubt it, and may be away between two looks at it.
        let is_another =
            || self.cluster.daemon_pid(&cast.node).is_some_and(|it| Some(it) != daemon);
        let noticed = told || (fault == Fault::DaemonKill && is_another());
        problems.extend(self.stayed(fault, &cast.node));
        if let Some(guest) = guest {
            let history = guest.stop().await;
            problems.extend(verdict::problem_of_guest(&history, cast.spare.as_str()));
        }
        let healed_at = (!heal.is_empty()).then(clock::now);
        self.act_all(heal, problems).await;
        let whole = self.becomes_whole(fault, (pulse, problems)).await;
        let after = if whole { self.view().asked } else { 0 };
        let members = Members { before, most, after };
        let over_at = clock::now();
        Ok(Times { steady_from, fault_at, healed_at, over_at, whole, noticed, members })
    }

    /// Until all is at work and every client is answered, and a while longer.
    async fn warm(&self, pulse: &Pulse) -> Result<(), Error> {
        let flows = || pulse.acked() > 0 && is_fresh(pulse.last_of_all());
        if !until(self.bounds.flow_max, flows).await {
            let shortcoming = self.view().shortcoming.unwrap_or_else(|| UNANSWERED.into());
            let told: Vec<String> = std::iter::once(shortcoming).chain(self.deaths()).collect();
            let because = told.join("; ");
            return Err(Error::NoWrites { seconds: self.bounds.flow_max.as_secs(), because });
        }
        sleep(self.bounds.warming).await;
        Ok(())
    }

    /// Until the fault would prove something: who was slow or away in the round before is avoided
    /// for a while. What is missing for too long is left to the verdict. Since when nothing is.
    async fn become_worth_it(
        &self,
        (fault, cast): (Fault, &Cast),
        (run, from): (&str, u64),
    ) -> Result<Timestamp, Error> {
        let (path, victim) = (self.kit.ledger(), cast.victim(self.subject, fault));
        let premature = |lines: &[Line], now| {
            effect::premature((self.subject, fault), lines, (run, victim), now)
        };
        let (mut steady_from, end) = (Timestamp(0), clock::now().plus(self.bounds.mended_max));
        loop {
            let shown = shown((&path, from), end, premature).await;
            match shown.map_err(|source| Error::Folder { path: path.clone(), source })? {
                Shown::AtOnce | Shown::Never => return Ok(steady_from),
                // Others may have had its work, and it takes that back now.
                Shown::Later => sleep(self.bounds.warming).await,
            }
            steady_from = clock::now().minus(effect::LATELY);
        }
    }

    /// While a fault lasts: whether it was noticed, and how many nodes there were when all was
    /// well.
    async fn endure(
        &self,
        (fault, cast): (Fault, &Cast),
        share: usize,
        (pulse, problems): (&Pulse, &mut Vec<String>),
    ) -> (bool, usize) {
        let (done_at, lasts) = (clock::now(), lasts(self.subject, fault));
        let victims = noticed_of(self.subject, fault, cast);
        let (noticed, most) = (AtomicBool::new(false), AtomicUsize::new(0));
        let lasted = || {
            let view = self.view();
            let is_told = victims.iter().any(|victim| view.blamed.contains(victim));
            noticed.fetch_or(is_told, Ordering::Relaxed);
            let is_whole = view.is_redundant_for(self.bounds.whole_for, clock::now());
            if is_whole {
                most.fetch_max(view.asked, Ordering::Relaxed);
            }
            let is_there = match (self.subject, fault) {
                // What is done in turns, or takes its share, is there once nothing is out of order.
                (_, Fault::Change | Fault::Restart | Fault::Scale) => is_whole,
                // Nothing moves while a copy that failed lately may fail again.
                (Subject::Partitions, Fault::Resize) => pulse.share(cast.node.as_str()) > share,
                _ => true,
            };
            is_there && clock::now().since(done_at) >= lasts && is_fresh(pulse.last_acked())
        };
        if !until(lasts + self.bounds.flow_max, lasted).await {
            let why = self.view().shortcoming.unwrap_or_else(|| "no answers".into());
            problems.push(format!("not as it should be while the fault lasted: {why}"));
        }
        (noticed.into_inner(), most.into_inner())
    }

    /// Waits until nothing is missing any more, now that the fault is healed.
    async fn becomes_whole(
        &self,
        fault: Fault,
        (pulse, problems): (&Pulse, &mut Vec<String>),
    ) -> bool {
        let healed = (fault, clock::now());
        let mended = || {
            let is_whole = is_mended(&self.view(), healed, self.bounds.whole_for, clock::now());
            is_whole && is_fresh(pulse.last_of_all())
        };
        let whole = until(self.bounds.mended_max, mended).await;
        if !whole {
            let why = self.view().shortcoming.unwrap_or_else(|| UNANSWERED.into());
            let limit = self.bounds.mended_max.as_secs();
            problems.push(format!("not whole within {limit} s: {why}"));
        }
        whole
    }

    /// In words, if the only copy is still appointed where the fault should have moved it from.
    fn stayed(&self, fault: Fault, node: &NodeId) -> Option<String> {
        let moves = self.subject.moves(fault) && self.view().primary.as_ref() == Some(node);
        moves.then(|| format!("the copy did not leave {node}"))
    }

    async fn act_all(&self, deeds: &[Deed], problems: &mut Vec<String>) {
        for deed in deeds {
            problems.extend(self.act(deed).await.err().map(|it| with_causes(&it)));
        }
    }

    fn report(
        &self,
        evidence: &Evidence,
        (fault, round): (Fault, u32),
        problems: Vec<String>,
    ) -> RunReport {
        let Evidence { history, lines, times, run, .. } = evidence;
        let window = times.all();
        let mut balance = ledger::balance(history, &judge::rows(lines, run, history));
        let (p50, p99) = history.latency();
        let (outage, two) = match self.subject {
            Subject::Singleton => {
                (judge::outage_of_one(lines, history, window), judge::two_at_once(lines))
            }
            Subject::Partitions => {
                balance.acked = pieces::count(lines);
                let outage = pieces::nobody_at_work(lines, PARTITIONS, window);
                (outage, pieces::worked_twice(lines))
            }
            Subject::Keys => {
                let idle = pieces::nobody_at_work(lines, PARTITIONS, window);
                (idle.max(history.outage(window)), pieces::worked_twice(lines))
            }
            _ => (history.outage(window), 0),
        };
        let since = self.view().redundant_since.unwrap_or(times.over_at);
        let again = since.since(times.healed_at.unwrap_or(times.fault_at));
        RunReport {
            fault: fault.name(),
            round,
            node: NodeId::new("-"),
            outage_s: seconds(outage),
            errors: history.errors(),
            acked: balance.acked,
            lost: balance.lost,
            duplicated: balance.duplicated,
            indeterminate: balance.unknown_present + balance.unknown_absent,
            dual_primary_instants: two,
            primary_after: self.view().primary,
            redundant_again_s: times.whole.then(|| seconds(again)),
            latency_p50_ms: milliseconds(p50),
            latency_p99_ms: milliseconds(p99),
            stall_max_s: seconds(history.stall_max(window)),
            phantoms: balance.phantoms,
            canary_acked: 0,
            canary_lost: 0,
            canary_duplicated: 0,
            errors_per_session_max: history.errors_per_session_max(window),
            problems,
        }
    }
}

/// When what had to be seen was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    AtOnce,
    Later,
    Never,
}

/// Waits until what was written of late, from a place on, lacks nothing.
async fn shown(
    (ledger, mut from): (&Path, u64),
    end: Timestamp,
    lacks: impl Fn(&[Line], Timestamp) -> Option<String>,
) -> io::Result<Shown> {
    let (mut shown, mut lines) = (Shown::AtOnce, Vec::new());
    loop {
        let (more, next) = worker::read(ledger, from)?;
        let now = clock::now();
        from = next;
        lines.extend(more);
        lines.retain(|line: &Line| line.at.plus(effect::LATELY) > now);
        match lacks(&lines, now) {
            None => return Ok(shown),
            Some(_) if now >= end => return Ok(Shown::Never),
            Some(why) if shown == Shown::AtOnce => tracing::info!("waiting: {why}, yet"),
            Some(_) => {}
        }
        shown = Shown::Later;
        sleep(LOOK).await;
    }
}

/// Whether nothing is missing since something was healed. What was asked for before that proves
/// nothing, and what is changed back is done in turns, the first of which takes a while to begin.
fn is_mended(
    view: &View,
    (fault, healed): (Fault, Timestamp),
    whole_for: Duration,
    now: Timestamp,
) -> bool {
    let begins = if fault == Fault::Change { LASTS } else { Duration::ZERO };
    view.asked_at > healed.plus(begins) && view.is_redundant_for(whole_for, now)
}

const fn lasts(subject: Subject, fault: Fault) -> Duration {
    match (subject.rules(), fault) {
        (_, Fault::Slow | Fault::Lie) => LASTS_NOTICED,
        // It is started anew by then, and the others go on meanwhile: nothing else is waited for.
        (Subject::Copies, Fault::InstanceFreeze) => LASTS_NOTICED,
        // A copy that is one too many is placed, withdrawn and ended, in turn.
        (Subject::Copies, Fault::Resize) => LASTS_RESIZED,
        _ => LASTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::worker::{Does, Ledger};
    use std::cell::Cell;

    const fn at(ms: u64) -> Timestamp {
        Timestamp(ms * 1000)
    }

    #[tokio::test]
    async fn what_is_not_shown_yet_is_waited_for_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::open(&path, "x", 1).unwrap();
        let asked = |id: &str| Does::Request(id.to_owned());
        ledger.write(&[asked("before")]).unwrap();
        let from = worker::end(&path).unwrap();
        let looks = Cell::new(0);
        let lacks = |lines: &[Line], _| {
            looks.set(looks.get() + 1);
            if looks.get() == 3 {
                ledger.write(&[asked("wanted")]).unwrap();
            }
            let is_there = |id| lines.iter().any(|line| line.does == asked(id));
            assert!(!is_there("before"), "it begins where it is told to");
            (!is_there("wanted")).then(|| "nothing of that".to_owned())
        };
        let (past, long) = (Timestamp(0), clock::now().plus(Duration::from_secs(600)));
        assert_eq!(shown((&path, from), past, lacks).await.unwrap(), Shown::Never);
        assert_eq!(shown((&path, from), long, lacks).await.unwrap(), Shown::Later);
        assert_eq!(shown((&path, from), long, lacks).await.unwrap(), Shown::AtOnce);
        let long_ago = clock::now().minus(Duration::from_secs(60)).0;
        std::fs::write(&path, format!("x 1 1 {long_ago} request wanted\n")).unwrap();
        assert_eq!(shown((&path, 0), past, lacks).await.unwrap(), Shown::Never);
    }

    #[test]
    fn what_was_whole_before_it_was_healed_proves_nothing() {
        let whole_for = Duration::from_millis(1500);
        // Healed at 10 s, and whole since the fifth second as far as anybody was asked.
        let is_over = |fault, asked: u64| {
            let (asked_at, redundant_since) = (at(asked), Some(at(5_000)));
            let view = View { asked_at, redundant_since, ..View::default() };
            is_mended(&view, (fault, at(10_000)), whole_for, at(asked + 500))
        };
        assert!(!is_over(Fault::Drain, 9_990), "the answers were under way");
        assert!(is_over(Fault::Drain, 10_010));
        assert!(!is_over(Fault::Change, 10_310), "the second roll begins only now");
        assert!(is_over(Fault::Change, 13_010));
        let broken = View { asked_at: at(13_010), ..View::default() };
        assert!(!is_mended(&broken, (Fault::Change, at(10_000)), whole_for, at(14_000)));
    }
}
