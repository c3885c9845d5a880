//! Talks to operators about planned moves of a primary: checks, asks, waits, says what came of it.
//! In: a service, perhaps a target and a time. Out: `Outcome`, or why not.
//! States: (scheduled →) requested → appointed → active; or given up, and the old primary goes on.
//! Keeps: H39 whether the move is safe is decided by the planner; here it is only asked for.
//! Not here: a move that waits for its time (`schedule.rs`), the move itself
//! (`tandem_core::clustering::active_passive`).
//! Tested by: `tests/outcomes.rs`.

use super::super::{NodeOperations, candidates, refusals};
use super::singleton;
use crate::api::operations::{Outcome, Refused};
use crate::consensus::Agreed;
use crate::driver::explain::Explained;
use crate::driver::wire::Wish;
use crate::runtime::clock;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use std::time::Duration;
use tandem_core::cluster::command::ServiceCommand;
use tandem_core::cluster::state::{Appointed, ServiceState};
use tandem_core::clustering::active_passive::Step;
use tandem_core::ids::{NodeId, Revision, ServiceId, Term};

/// Given up by the planner after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the new primary's barrier, after the planner's part.
const ACTIVATION: Duration = Duration::from_secs(15);
/// A time this far in the past is "now", as sent by a clock that is a little behind.
const PAST_MAX_MS: u64 = 60_000;
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
        let command = self.command_of(service);
        let patience = command.as_ref().map_or(PATIENCE, singleton::move_max);
        if let Some(primary) = from.as_ref().filter(|_| command.is_none()) {
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
            let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
            let deadline_unix_ms = clock::unix_ms().saturating_add(patience);
            Ok(ServiceCommand::RequestSwitchover { to: to.clone(), deadline_unix_ms })
        };
        let asked = self.change(service, &what, &make).await?;
        let end = self.outcome(service, (asked, term), Some(&to)).await;
        let took_ms = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        match end {
            Move::Done(line) => {
                let from = from.as_ref().map_or("nobody", NodeId::as_str);
                let word = if command.is_some() { "active node" } else { "primary" };
                let message = format!("{to} is the {word} of {service}, after {from}");
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
        let patience = self.command_of(service).as_ref().map_or(PATIENCE, singleton::move_max);
        let limit = patience + ACTIVATION;
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
                format!("{} was chosen in term {}: {}", line.primary, line.term, line.reason),
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
        match gave_up(&plans) {
            Some(plan) => format!("given up after {took_ms} ms: {}", plan.reason),
            None => format!("the planner gave it up after {took_ms} ms; nothing has moved"),
        }
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
}

/// The last plan that gave a change of primary up.
pub(in crate::node::operations) fn gave_up(plans: &[Explained]) -> Option<&Explained> {
    let cancels = [ServiceCommand::CancelSwitchover, ServiceCommand::CancelFailover]
        .map(|command| Step::Propose(command).to_string());
    let mut plans = plans.iter().rev().filter(|plan| plan.who == "controller");
    plans.find(|plan| plan.steps.iter().any(|step| cancels.contains(step)))
}

pub(in crate::node::operations) fn busy(what: &str, service: &ServiceId) -> Problem {
    Problem::new(
        codes::BUSY,
        what,
        format!("another move of {service} is under way"),
        "wait until tandem status shows it as active, or tandem switchover --cancel",
    )
}
