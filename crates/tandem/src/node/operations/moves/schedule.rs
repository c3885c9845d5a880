//! Keeps planned moves of a primary until their time.
//! In: a service, perhaps a target, a time. Out: `Outcome`; the move, at its time.
//! A scheduled move lives in the memory of the node that took it: if that node's daemon is
//! restarted before its time, nothing happens, and the schedule is gone. The others are told of it
//! again and again, so that every node can show it, and forget it when they are told no more.
//! Not here: the move (`switchover.rs`).
//! Tested by: `tests/outcomes.rs`.

use super::super::between::PeerVerb;
use super::super::{NodeOperations, refusals};
use crate::api::operations::{Outcome, Refused};
use crate::api::status::ScheduledSwitchover;
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::telemetry::codes;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use crate::telemetry::problem::Problem;
use std::sync::PoisonError;
use std::time::Duration;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

/// Further ahead than this is a mistake in the date.
const AHEAD_MAX: Duration = Duration::from_secs(30 * 86_400);
/// The wall clock may be set while a schedule waits, so it is read again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// For the others to hear of a schedule.
const TELL: Duration = Duration::from_secs(1);

/// A switchover that waits for its time on this node.
#[derive(Clone, Debug)]
pub(in crate::node::operations) struct Scheduled {
    pub to: Option<NodeId>,
    pub at_unix_ms: u64,
    cancel: CancellationToken,
}

/// A switchover that another node keeps, as it last told.
#[derive(Clone, Debug)]
pub(in crate::node::operations) struct Told {
    pub scheduled: ScheduledSwitchover,
    pub at: Timestamp,
}

impl Told {
    /// None once its time has come, or its keeper has been silent about it for long.
    pub fn still_holds(&self, now: Timestamp, unix_ms: u64) -> Option<ScheduledSwitchover> {
        let is_known = now.since(self.at) < LOOK_AGAIN * 3 && self.scheduled.at_unix_ms > unix_ms;
        is_known.then(|| self.scheduled.clone())
    }
}

impl NodeOperations {
    pub(super) fn schedule(
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
            let other = all
                .get(&service)
                .map(|other| format!("for {} (ms since 1970)", other.at_unix_ms))
                .or_else(|| Some(format!("kept by {}", self.told_scheduled(&service)?.kept_by)));
            if let Some(other) = other {
                return Err(Problem::new(
                    codes::BUSY,
                    what,
                    format!("one is scheduled already, {other}"),
                    format!("take it back first: tandem switchover {service} --cancel"),
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
            self.tell_scheduled(&service).await;
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
        // Taken back while the others were told.
        if cancel.is_cancelled() {
            return;
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

    /// Tells every other node of a move that this one keeps.
    async fn tell_scheduled(&self, service: &ServiceId) {
        let Some(scheduled) = self.kept_scheduled(service) else { return };
        let verb = PeerVerb::Scheduled(service.clone(), scheduled);
        // A node that does not hear it now hears it the next time.
        let _ = self.ask_peers::<bool>(&verb, TELL).await;
    }

    fn kept_scheduled(&self, service: &ServiceId) -> Option<ScheduledSwitchover> {
        let all = self.inner.scheduled.lock().unwrap_or_else(PoisonError::into_inner);
        let Scheduled { to, at_unix_ms, .. } = all.get(service)?;
        let (to, kept_by) = (to.clone(), self.ground().me.clone());
        Some(ScheduledSwitchover { to, at_unix_ms: *at_unix_ms, kept_by })
    }

    fn told_scheduled(&self, service: &ServiceId) -> Option<ScheduledSwitchover> {
        let told = self.inner.told_scheduled.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(service).and_then(|told| told.still_holds(clock::now(), clock::unix_ms()))
    }

    /// The move that waits for its time, here or on another node.
    pub(in crate::node::operations) fn scheduled(
        &self,
        service: &ServiceId,
    ) -> Option<ScheduledSwitchover> {
        self.kept_scheduled(service).or_else(|| self.told_scheduled(service))
    }

    /// Another node keeps a move.
    pub(in crate::node::operations) fn note_scheduled(
        &self,
        service: ServiceId,
        scheduled: ScheduledSwitchover,
    ) -> bool {
        let told = Told { scheduled, at: clock::now() };
        let mut all = self.inner.told_scheduled.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(service, told).is_none()
    }

    fn forget_scheduled(&self, service: &ServiceId) -> Option<Scheduled> {
        self.inner.scheduled.lock().unwrap_or_else(PoisonError::into_inner).remove(service)
    }

    /// Whether one was scheduled here.
    pub(in crate::node::operations) fn cancel_scheduled(&self, service: &ServiceId) -> bool {
        self.inner.told_scheduled.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
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
