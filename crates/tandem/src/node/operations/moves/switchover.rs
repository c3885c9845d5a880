//! Talks to operators about planned moves of a primary: checks, asks, waits, says what came of it.
//! In: a service, perhaps a target and a time. Out: `Outcome`, or why not.
//! States: (scheduled →) requested → appointed → active; or given up, and the old primary goes on.
//! A scheduled move lives in the memory of the node that took it: if that node's daemon is
//! restarted before its time, nothing happens, and the schedule is gone.
//! Keeps: H39 whether the move is safe is decided by the planner; here it is only asked for.
//! Not here: the move itself (`tandem_core::clustering::active_passive`).
//! Tested by: `tests/outcomes.rs`.

use super::super::{NodeOperations, candidates, refusals};
use crate::api::operations::{Outcome, Refused};
use crate::consensus::Agreed;
use crate::driver::wire::Wish;
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::telemetry::codes;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use crate::telemetry::problem::Problem;
use std::sync::PoisonError;
use std::time::Duration;
use tandem_core::cluster::command::ServiceCommand;
use tandem_core::cluster::state::{Appointed, ServiceState};
use tandem_core::ids::{NodeId, Revision, ServiceId, Term};
use tokio_util::sync::CancellationToken;

/// Given up by the planner after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the new primary's barrier, after the planner's part.
const ACTIVATION: Duration = Duration::from_secs(15);
/// Further ahead than this is a mistake in the date.
const AHEAD_MAX: Duration = Duration::from_secs(30 * 86_400);
/// A time this far in the past is "now", as sent by a clock that is a little behind.
const PAST_MAX_MS: u64 = 60_000;
/// The wall clock may be set while a schedule waits, so it is read again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A switchover that waits for its time on this node.
#[derive(Clone, Debug)]
pub(in crate::node::operations) struct Scheduled {
    pub to: Option<NodeId>,
    pub at_unix_ms: u64,
    cancel: CancellationToken,
}

/// What a change of primary has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node::operations) enum Move {
    /// The line of the history that ended it, active.
    Done(Appointed),
    /// Another primary was appointed.
    Elsewhere(Appointed),
    /// No longer asked for, and nobody was appointed.
    GivenUp,
    /// Neither yet.
    Pending,
}

/// What has come of a request that was made on `asked` in `term`.
pub(in crate::node::operations) fn progress(
    state: &ServiceState,
    (asked, term): (Revision, Term),
    to: Option<&NodeId>,
) -> Move {
    if state.revision <= asked {
        return Move::Pending;
    }
    let later: Vec<&Appointed> = state.history.iter().filter(|line| line.term > term).collect();
    let wanted = |line: &&&Appointed| to.is_none_or(|to| line.primary == *to);
    if let Some(line) = later.iter().find(wanted) {
        let done = line.active_unix_ms.is_some();
        return if done { Move::Done((*line).clone()) } else { Move::Pending };
    }
    if let Some(line) = later.first() {
        return Move::Elsewhere((*line).clone());
    }
    let asked_for = state.switchover.is_some() || state.forced.is_some();
    if asked_for { Move::Pending } else { Move::GivenUp }
}

impl NodeOperations {
    /// Moves the primary, now or later.
    pub(in crate::node::operations) async fn switchover(
        &self,
        service: ServiceId,
        to: Option<NodeId>,
        at_unix_ms: Option<u64>,
    ) -> Result<Outcome, Refused> {
        let now = clock::unix_ms();
        match at_unix_ms.filter(|at| at.saturating_add(PAST_MAX_MS) < now || *at > now) {
            None => self.switch_over_now(&service, to).await,
            Some(at) => self.schedule(service, to, at, now),
        }
    }

    pub(in crate::node::operations) async fn switch_over_now(
        &self,
        service: &ServiceId,
        to: Option<NodeId>,
    ) -> Result<Outcome, Refused> {
        let what = format!("cannot switch {service} over");
        let began = clock::now();
        let before = self.service_state(service)?;
        if before.switchover.is_some() || before.forced.is_some() {
            return Err(busy(&what, service));
        }
        let to = {
            let seen = self.seen();
            let service =
                seen.service(service).ok_or_else(|| refusals::no_such_service(service))?;
            candidates::switchover_target(service, to.as_ref())?
        };
        let from = before.appointment.as_ref().map(|it| it.primary.clone());
        let term = before.term();
        if let Some(primary) = &from {
            // While it still serves: the checkpoint that follows, and the shutdown's, are short.
            let written = self.wish(service, primary, Wish::Checkpoint, &what).await;
            if let Err(problem) = written {
                tracing::warn!(%service, because = problem.because, "no checkpoint beforehand");
            }
        }
        let make = |state: &ServiceState| {
            if state.switchover.is_some() || state.forced.is_some() || state.term() != term {
                return Err(busy(&what, service));
            }
            let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
            let deadline_unix_ms = clock::unix_ms().saturating_add(patience);
            Ok(ServiceCommand::RequestSwitchover { to: to.clone(), deadline_unix_ms })
        };
        let asked = self.change(service, &what, &make).await?;
        let end = self.outcome(service, (asked, term), Some(&to)).await;
        let took_ms = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        match end {
            Move::Done(line) => {
                let from = from.as_ref().map_or("nobody", NodeId::as_str);
                let message = format!("{to} is the primary of {service}, after {from}");
                Ok(Outcome::done(message)
                    .field("service", service.as_str())
                    .field("from", from)
                    .field("primary", to.as_str())
                    .field("term", line.term.0)
                    .field("took_ms", took_ms))
            }
            end => Err(self.not_moved(service, &what, &end, took_ms)),
        }
    }

    /// Waits for the end of a change of primary, bounded.
    pub(in crate::node::operations) async fn outcome(
        &self,
        service: &ServiceId,
        asked: (Revision, Term),
        to: Option<&NodeId>,
    ) -> Move {
        let look = |agreed: &Agreed| {
            let state = agreed.state.services.get(service);
            state.map_or(Move::GivenUp, |state| progress(state, asked, to))
        };
        let limit = PATIENCE + ACTIVATION;
        let ended = self.wait(limit, |agreed| look(agreed) != Move::Pending).await;
        ended.map_or(Move::Pending, |agreed| look(&agreed))
    }

    /// A change of primary that did not end as asked.
    pub(in crate::node::operations) fn not_moved(
        &self,
        service: &ServiceId,
        what: &str,
        end: &Move,
        took_ms: u64,
    ) -> Problem {
        let advice = format!("tandem explain {service} lists the plans and every candidate");
        match end {
            Move::Elsewhere(line) => Problem::new(
                codes::OPERATION_FAILED,
                what,
                format!("{} became primary in term {}: {}", line.primary, line.term, line.reason),
                advice,
            ),
            Move::GivenUp => Problem::new(
                codes::OPERATION_FAILED,
                what,
                self.given_up_because(service, took_ms),
                advice,
            ),
            Move::Done(_) | Move::Pending => Problem::new(
                codes::OUTCOME_UNKNOWN,
                what,
                format!("it had not ended after {took_ms} ms, and goes on"),
                "look at tandem status and tandem events before you repeat it",
            ),
        }
    }

    /// The planner's words, which only the node that leads knows.
    fn given_up_because(&self, service: &ServiceId, took_ms: u64) -> String {
        let plans = self.ground().explanations.of(service);
        let gave_up = plans.iter().rev().find(|plan| {
            let cancels = |step: &String| {
                step.contains("CancelSwitchover") || step.contains("CancelFailover")
            };
            plan.who == "controller" && plan.steps.iter().any(cancels)
        });
        match gave_up {
            Some(plan) => format!("given up after {took_ms} ms: {}", plan.reason),
            None => format!("the planner gave it up after {took_ms} ms; the old primary goes on"),
        }
    }

    fn schedule(
        &self,
        service: ServiceId,
        to: Option<NodeId>,
        at_unix_ms: u64,
        now_unix_ms: u64,
    ) -> Result<Outcome, Refused> {
        let what = format!("cannot schedule a switchover of {service}");
        check_time(&what, at_unix_ms, now_unix_ms)?;
        self.service_state(&service)?;
        if let Some(to) = &to
            && !self.seen().agreed.spec.nodes.contains_key(to)
        {
            return Err(refusals::no_such_node(to));
        }
        let cancel = CancellationToken::new();
        let scheduled = Scheduled { to: to.clone(), at_unix_ms, cancel: cancel.clone() };
        {
            let mut all = self.inner.scheduled.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(other) = all.get(&service) {
                return Err(Problem::new(
                    codes::BUSY,
                    what,
                    format!("one is scheduled already, for {} (ms since 1970)", other.at_unix_ms),
                    "take it back first: tandem switchover --cancel",
                ));
            }
            all.insert(service.clone(), scheduled);
        }
        let me = self.ground().me.clone();
        let target = to.as_ref().map_or("the best standby", NodeId::as_str).to_owned();
        let message = format!("{service} moves to {target} at its time; {me} keeps the schedule");
        self.ground().events.record(
            Draft::new(EventKind::SwitchoverScheduled, message.clone())
                .service(&service)
                .field("to", target)
                .field("at_unix_ms", at_unix_ms),
        );
        let outcome = Outcome::accepted(message)
            .field("service", service.as_str())
            .field("at_unix_ms", at_unix_ms)
            .field("kept_by", me.as_str());
        let waits = self.clone().keep_schedule(service, to, at_unix_ms, cancel);
        self.ground().supervisor.spawn("scheduled switchover", TaskKind::Session, waits);
        Ok(outcome)
    }

    async fn keep_schedule(
        self,
        service: ServiceId,
        to: Option<NodeId>,
        at_unix_ms: u64,
        cancel: CancellationToken,
    ) {
        let stop = self.ground().supervisor.stopping();
        loop {
            let left = Duration::from_millis(at_unix_ms.saturating_sub(clock::unix_ms()));
            if left.is_zero() {
                break;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
        let _ = self.forget_scheduled(&service);
        if let Err(problem) = self.switch_over_now(&service, to).await {
            self.ground().events.record(
                Draft::new(EventKind::SwitchoverFailed, format!("as scheduled: {problem}"))
                    .service(&service)
                    .field("code", problem.code.to_string()),
            );
        }
    }

    fn forget_scheduled(&self, service: &ServiceId) -> Option<Scheduled> {
        self.inner.scheduled.lock().unwrap_or_else(PoisonError::into_inner).remove(service)
    }

    /// Takes back what is scheduled, on whatever node, and what is under way.
    pub(in crate::node::operations) async fn cancel_switchover(
        &self,
        service: ServiceId,
    ) -> Result<Outcome, Refused> {
        let what = format!("cannot take back a switchover of {service}");
        let state = self.service_state(&service)?;
        let scheduled = self.cancel_scheduled(&service) | self.cancelled_on_peers(&service).await;
        let mut under_way = false;
        if state.switchover.is_some() {
            self.change(&service, &what, &|_| Ok(ServiceCommand::CancelSwitchover)).await?;
            under_way = true;
        }
        if !scheduled && !under_way {
            let because = "none is scheduled or under way";
            return Err(Problem::new(codes::ALREADY_SO, what, because, "tandem status"));
        }
        Ok(Outcome::done(format!("the switchover of {service} was taken back"))
            .field("scheduled", scheduled)
            .field("under_way", under_way))
    }

    /// Whether one was scheduled here.
    pub(in crate::node::operations) fn cancel_scheduled(&self, service: &ServiceId) -> bool {
        let Some(scheduled) = self.forget_scheduled(service) else { return false };
        scheduled.cancel.cancel();
        self.ground().events.record(
            Draft::new(EventKind::SwitchoverCancelled, "the scheduled switchover was taken back")
                .service(service)
                .field("to", scheduled.to.map(|to| to.to_string()))
                .field("at_unix_ms", scheduled.at_unix_ms),
        );
        true
    }
}

fn check_time(what: &str, at_unix_ms: u64, now_unix_ms: u64) -> Result<(), Problem> {
    let refuse = |because: String| {
        let advice = "give a time from now to 30 days ahead";
        Err(Problem::new(codes::TIME_NOT_ACCEPTABLE, what, because, advice))
    };
    if at_unix_ms < now_unix_ms {
        return refuse(format!("the time was {} s ago", (now_unix_ms - at_unix_ms) / 1000));
    }
    let ahead = Duration::from_millis(at_unix_ms - now_unix_ms);
    if ahead > AHEAD_MAX {
        return refuse(format!("the time is {} days ahead", ahead.as_secs() / 86_400));
    }
    Ok(())
}

pub(in crate::node::operations) fn busy(what: &str, service: &ServiceId) -> Problem {
    Problem::new(
        codes::BUSY,
        what,
        format!("another change of the primary of {service} is under way"),
        "wait until tandem status shows it as active, or tandem switchover --cancel",
    )
}
