//! Breaks a drilled service once: wait until it is whole, send requests, inject, watch, heal, wait
//! again, count.
//! In: a `Fault`. Out: `RunReport`.
//! States: Whole → Warming → Broken → (healed) Healing → Whole, each with a bound.
//! Not here: what each fault does (`faults.rs`), what the evidence proves (`judge.rs`).
//! Tested by: the drill itself.

use super::clients::{Clients, may_be_repeated};
use super::faults::{Deed, Injection, injection};
use super::judge;
use super::kit::SERVICE;
use super::stage::{LOOK, Stage};
use super::subject::Subject;
use crate::drill::evidence::history::{Attempt, History, Outcome, Window};
use crate::drill::evidence::ledger;
use crate::drill::report::{RunReport, milliseconds, seconds};
use crate::drill::steps::with_causes;
use crate::drill::worker::{self, Line};
use crate::drill::{Error, Fault};
use crate::runtime::clock;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;
use tokio::time::sleep;

/// Answers flow when the last one is not older.
const FLOWING: Duration = Duration::from_millis(300);
/// What an endpoint does wrong must have no great part any more after this.
const NOTICED: Duration = Duration::from_secs(3);
/// The greatest part that it may have then: one endpoint of three has 33 % unless it is noticed.
const NOTICED_PERCENT_MAX: u64 = 10;
/// Slower than this is an answer of the slow endpoint.
const SLOW: Duration = Duration::from_millis(250);
/// How long a fault lasts at least.
const LASTS: Duration = Duration::from_secs(3);
/// One whose effect is looked at once it should have been noticed.
const LASTS_NOTICED: Duration = Duration::from_secs(6);

/// When things happened.
#[derive(Debug)]
struct Times {
    fault_at: Timestamp,
    healed_at: Option<Timestamp>,
    over_at: Timestamp,
    whole: bool,
}

/// What a run left behind.
struct Evidence {
    history: History,
    lines: Vec<Line>,
    times: Times,
    run: String,
}

impl Stage {
    /// Breaks it once.
    ///
    /// # Errors
    /// When it is not whole to begin with, or the fault cannot be done here.
    pub async fn run(&self, fault: Fault, round: u32, seed: u64) -> Result<RunReport, Error> {
        let cast = self.cast(seed, round).await?;
        let Some(injection) = injection(self.subject, fault, &cast) else {
            let because = format!("it is no fault of the service {}", self.subject);
            return Err(Error::Skipped { fault, because });
        };
        let (_, from) = self.read(0)?;
        let layout = self.cluster.layout();
        let door = |place| layout.door_of(place, SERVICE);
        let doors: Vec<SocketAddr> = layout.nodes.iter().filter_map(door).collect();
        let run = format!("{seed}-{fault}-{round}-{}", clock::unix_ms());
        let clients = Clients::start(&self.load, &doors, &run);
        let mut problems = Vec::new();
        let broken =
            self.break_and_heal((fault, &cast.node), &injection, (&clients, &mut problems)).await;
        let history = clients.stop().await;
        let times = broken?;
        let (lines, _) = self.read(from)?;
        let evidence = Evidence { history, lines, times, run };
        problems.extend(self.judged(fault, &evidence));
        let mut report = self.report(&evidence, (fault, round), problems);
        report.node = match (self.subject.has_endpoints(), &injection.inject[..]) {
            // The fault was about an endpoint: the node that was asked for it is no victim.
            (true, [Deed::To(_)]) | (false, _) => cast.node,
            (true, _) => NodeId::new(cast.address),
        };
        Ok(report)
    }

    fn read(&self, from: u64) -> Result<(Vec<Line>, u64), Error> {
        let path = self.kit.ledger();
        worker::read(&path, from).map_err(|source| Error::Folder { path, source })
    }

    async fn break_and_heal(
        &self,
        (fault, node): (Fault, &NodeId),
        Injection { inject, heal }: &Injection,
        (clients, problems): (&Clients, &mut Vec<String>),
    ) -> Result<Times, Error> {
        let flowing = || clock::now().since(clients.last_acked()) <= FLOWING;
        let flows = || clients.acked() > 0 && flowing();
        if !until(self.bounds.flow_max, flows).await {
            let because = self.view().shortcoming.unwrap_or_else(|| "it seems whole".into());
            return Err(Error::NoWrites { seconds: self.bounds.flow_max.as_secs(), because });
        }
        sleep(self.bounds.warming).await;

        let fault_at = clock::now();
        self.act_all(inject, problems).await;
        let lasts = lasts(fault);
        let lasted = || clock::now().since(fault_at) >= lasts;
        if !until(lasts + self.bounds.flow_max, || lasted() && flowing()).await {
            problems.push("no answers while the fault lasted".into());
        }
        problems.extend(self.stayed(fault, node));
        let healed_at = (!heal.is_empty()).then(clock::now);
        self.act_all(heal, problems).await;
        let mended = || {
            let view = self.view();
            view.is_redundant_for(self.bounds.whole_for, clock::now()) && flowing()
        };
        let whole = until(self.bounds.mended_max, mended).await;
        if !whole {
            let why = self.view().shortcoming.unwrap_or_else(|| "no answers".into());
            let limit = self.bounds.mended_max.as_secs();
            problems.push(format!("not whole within {limit} s: {why}"));
        }
        Ok(Times { fault_at, healed_at, over_at: clock::now(), whole })
    }

    /// In words, if the only copy is still appointed where the fault should have moved it from.
    fn stayed(&self, fault: Fault, node: &NodeId) -> Option<String> {
        let moves = self.subject.moves(fault) && self.view().primary.as_ref() == Some(node);
        moves.then(|| format!("the copy did not leave {node}"))
    }

    async fn act_all(&self, deeds: &[Deed], problems: &mut Vec<String>) {
        let results = futures::future::join_all(deeds.iter().map(|deed| self.act(deed))).await;
        problems.extend(results.into_iter().filter_map(Result::err).map(|it| with_causes(&it)));
    }

    /// What must not be, whatever else a report says.
    fn judged(&self, fault: Fault, evidence: &Evidence) -> Vec<String> {
        let Evidence { history, times, .. } = evidence;
        let during = |attempt: &&Attempt| attempt.ended >= times.fault_at;
        let failed = |only_repeatable: bool| {
            let is_bad = |attempt: &&Attempt| {
                matches!(attempt.outcome, Outcome::Refused | Outcome::Unknown)
                    && (!only_repeatable || may_be_repeated(attempt.seq))
            };
            let all = history.attempts().map(|(_, attempt)| attempt);
            all.filter(during).filter(is_bad).count()
        };
        let mut problems = Vec::new();
        if self.subject.forgives_nothing(fault) && failed(false) > 0 {
            problems.push(format!("{} requests failed, though none may", failed(false)));
        } else if self.subject.repeats(fault) && failed(true) > 0 {
            let what = "requests failed that a door may send again";
            problems.push(format!("{} {what}", failed(true)));
        }
        let healed_at = times.healed_at.unwrap_or(times.over_at);
        let window = Window { from: times.fault_at.plus(NOTICED), to: healed_at };
        let late = |attempt: &Attempt| attempt.ended.since(attempt.sent) >= SLOW;
        let wrong: Option<fn(&Attempt) -> bool> = match fault {
            Fault::Lie => Some(|attempt| attempt.outcome != Outcome::Acked),
            Fault::Slow => Some(late),
            _ => None,
        };
        problems.extend(wrong.and_then(|wrong| unnoticed(history, window, wrong)));
        problems
    }

    fn report(
        &self,
        evidence: &Evidence,
        (fault, round): (Fault, u32),
        problems: Vec<String>,
    ) -> RunReport {
        let Evidence { history, lines, times, run } = evidence;
        let window = Window { from: times.fault_at, to: times.over_at };
        let balance = ledger::balance(history, &judge::rows(lines, run, history));
        let (p50, p99) = history.latency();
        let is_single = self.subject == Subject::Singleton;
        let outage =
            if is_single { judge::nobody_at_work(lines, window) } else { history.outage(window) };
        let two = if is_single { judge::two_at_once(lines) } else { 0 };
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

const fn lasts(fault: Fault) -> Duration {
    match fault {
        Fault::Slow | Fault::Lie => LASTS_NOTICED,
        _ => LASTS,
    }
}

/// In words, if what an endpoint does wrong still has a great part within the window.
fn unnoticed(history: &History, window: Window, wrong: fn(&Attempt) -> bool) -> Option<String> {
    let inside = |attempt: &&Attempt| attempt.ended > window.from && attempt.ended < window.to;
    let all: Vec<&Attempt> = history.attempts().map(|(_, it)| it).filter(inside).collect();
    let bad = all.iter().filter(|attempt| wrong(attempt)).count() as u64;
    let percent = bad * 100 / (all.len() as u64).max(1);
    (percent > NOTICED_PERCENT_MAX).then(|| {
        let seconds = NOTICED.as_secs();
        format!("{percent} % of requests still went to the bad endpoint after {seconds} s")
    })
}

/// Waits for a condition; false when the limit came first.
async fn until(limit: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = clock::now().plus(limit);
    while !done() {
        if clock::now() > deadline {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::evidence::history::tests::attempt;

    #[test]
    fn an_endpoint_that_nobody_noticed_is_told() {
        let window = Window { from: Timestamp(0), to: Timestamp(1_000_000) };
        let wrong = |attempt: &Attempt| attempt.outcome != Outcome::Acked;
        let attempts = |bad: i64| {
            let outcome = |at| if at < bad { Outcome::Refused } else { Outcome::Acked };
            let all = (0..30).map(|at| attempt(at, 1, 2, outcome(at))).collect();
            History { writers: vec![all], closed_doors: Vec::new() }
        };
        assert_eq!(unnoticed(&attempts(3), window, wrong), None);
        let told = unnoticed(&attempts(10), window, wrong).unwrap();
        assert!(told.starts_with("33 % of requests"), "{told}");
    }
}
