//! Tells what lasts: failovers and moves from beginning to end, stalled writes, lost redundancy.
//! In: looks at one service. Out: `Draft`s with durations on this node's own clock.
//! Keeps: the cause of a failover is the planner's own judgement of the same facts.

use super::super::candidates;
use super::super::seen::ServiceSeen;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use serde_json::Value;
use std::time::Duration;
use tandem_core::cluster::state::{Appointed, Cause, Phase};
use tandem_core::clustering::active_passive::verdict::{self, Verdict};
use tandem_core::facts::InstanceFacts;
use tandem_core::ids::Term;
use tandem_core::time::Timestamp;

/// An election that takes longer needs a human's eye.
const ELECTION_LONG: Duration = Duration::from_secs(15);
/// A change of rule stalls writes for less than this.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// What lasts over several looks at one service.
#[derive(Debug, Default)]
pub(super) struct Memory {
    failover: Option<Failover>,
    switchover: Option<(Term, Timestamp)>,
    stalled: Option<(Timestamp, bool)>,
    lost_at: Option<Timestamp>,
    was_redundant: bool,
}

#[derive(Debug)]
struct Failover {
    term: Term,
    began: Timestamp,
    told_failed: bool,
}

impl Memory {
    /// What began and ended since the last look.
    pub(super) fn look(
        &mut self,
        before: Option<ServiceSeen<'_>>,
        after: ServiceSeen<'_>,
        since_unix_ms: u64,
    ) -> Vec<Draft> {
        let mut drafts = Vec::new();
        drafts.extend(self.begins(before, after));
        for line in new_lines(before, after, since_unix_ms) {
            drafts.extend(self.appointed(after, line));
        }
        for line in newly_active(before, after, since_unix_ms) {
            drafts.extend(self.ends(after, line));
        }
        drafts.extend(self.overdue(after));
        drafts.extend(self.stall(after));
        drafts.extend(self.redundancy(after));
        drafts
    }

    fn begins(&mut self, before: Option<ServiceSeen<'_>>, after: ServiceSeen<'_>) -> Option<Draft> {
        let appointment = after.appointment()?;
        if after.state.switchover.is_some() {
            self.switchover.get_or_insert((appointment.term, after.seen.now));
            return None;
        }
        if self.failover.is_some() || before.is_none() {
            return None;
        }
        let view = after.view();
        let (cause, why) = match (&after.state.forced, judge(after)?) {
            (Some(_), _) => (Cause::Forced, "demanded by an operator".to_owned()),
            (None, Verdict::Dead(cause, why)) if !view.state.paused => (cause, why.to_string()),
            (None, _) => return None,
        };
        let failover =
            Failover { term: appointment.term, began: after.seen.now, told_failed: false };
        self.failover = Some(failover);
        Some(started(after, appointment.term, cause, &why))
    }

    /// A line that nobody saw begin, since it was over before the next look.
    fn appointed(&mut self, after: ServiceSeen<'_>, line: &Appointed) -> Option<Draft> {
        // A primary that goes on under a new term was not replaced.
        let is_failover =
            !matches!(line.cause, Cause::Founded | Cause::Switchover | Cause::Resumed);
        if !is_failover || self.failover.is_some() {
            return None;
        }
        let began = after.seen.now;
        self.failover = Some(Failover { term: line.term, began, told_failed: false });
        Some(started(after, line.term, line.cause, &line.reason))
    }

    fn ends(&mut self, after: ServiceSeen<'_>, line: &Appointed) -> Option<Draft> {
        let (primary, term) = (&line.primary, line.term);
        let (kind, began, words) = match line.cause {
            Cause::Founded => return None,
            Cause::Resumed if self.failover.is_none() => return None,
            Cause::Switchover => {
                let began = self.switchover.take().map(|(_, began)| began);
                (EventKind::SwitchoverDone, began, "serves after a planned move")
            }
            Cause::PostmasterDied
            | Cause::NodeDied
            | Cause::NodeSilent
            | Cause::InstanceHung
            | Cause::Resumed
            | Cause::Forced => {
                let began = self.failover.take().map(|failover| failover.began);
                (EventKind::FailoverDone, began, "serves after a failover")
            }
        };
        let took = began.map(|began| after.seen.now.since(began));
        let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Some(
            Draft::new(kind, format!("{primary} {words}, in term {term}"))
                .service(after.name)
                .term(term)
                .field("primary", primary.as_str())
                .field("cause", cause_word(line.cause))
                .field("took_ms", took_ms),
        )
    }

    /// An election that does not end, or was not needed after all.
    fn overdue(&mut self, after: ServiceSeen<'_>) -> Option<Draft> {
        let failover = self.failover.as_mut()?;
        let is_decided = after.state.term() > failover.term;
        let is_active =
            after.appointment().is_some_and(|appointment| appointment.phase == Phase::Active);
        if is_decided && is_active {
            // Its end was told, or came before this node's first look.
            self.failover = None;
            return None;
        }
        if !is_decided && judge(after) == Some(Verdict::Serving) && after.state.forced.is_none() {
            self.failover = None;
            return None;
        }
        let lasts = after.seen.now.since(failover.began);
        if failover.told_failed || lasts < ELECTION_LONG {
            return None;
        }
        failover.told_failed = true;
        let now = candidates::failover_now(after);
        let why = if is_decided {
            "the new primary's barrier is not confirmed".to_owned()
        } else {
            now.because.text
        };
        let took_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let message = format!("nobody serves {} after {took_ms} ms: {why}", after.name);
        Some(
            Draft::new(EventKind::FailoverFailed, message)
                .service(after.name)
                .term(after.state.term())
                .field("took_ms", took_ms),
        )
    }

    fn stall(&mut self, after: ServiceSeen<'_>) -> Option<Draft> {
        let now = after.seen.now;
        let tell = |kind, message: &str| {
            Draft::new(kind, message).service(after.name).term(after.state.term())
        };
        let Some((have, need)) = confirming(after).filter(|(have, need)| have < need) else {
            let (since, told) = self.stalled.take()?;
            let took_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            return told
                .then(|| tell(EventKind::WritesResumed, "writes go on").field("took_ms", took_ms));
        };
        let (since, told) = self.stalled.get_or_insert((now, false));
        if *told || now.since(*since) < STALLED_AFTER {
            return None;
        }
        *told = true;
        let message = format!("writes wait: {have} of {need} standbys can confirm");
        Some(tell(EventKind::WritesStalled, &message).field("standbys", have))
    }

    fn redundancy(&mut self, after: ServiceSeen<'_>) -> Option<Draft> {
        let is_redundant = is_redundant(after);
        let was = std::mem::replace(&mut self.was_redundant, is_redundant);
        if !is_redundant {
            self.lost_at.get_or_insert(after.seen.now);
            return None;
        }
        let lost_at = self.lost_at.take().filter(|_| !was)?;
        let took = after.seen.now.since(lost_at);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Some(
            Draft::new(EventKind::RedundancyRestored, "every copy streams")
                .service(after.name)
                .term(after.state.term())
                .field("took_ms", took_ms),
        )
    }
}

fn started(after: ServiceSeen<'_>, term: Term, cause: Cause, why: &str) -> Draft {
    let lost = after.appointment().map(|appointment| appointment.primary.to_string());
    Draft::new(EventKind::FailoverStarted, why)
        .service(after.name)
        .term(term)
        .field("cause", cause_word(cause))
        .field("primary", lost)
}

fn cause_word(cause: Cause) -> Value {
    serde_json::to_value(cause).unwrap_or_default()
}

fn judge(service: ServiceSeen<'_>) -> Option<Verdict> {
    Some(verdict::judge(&service.view(), service.appointment()?, service.seen.now))
}

fn new_lines<'a>(
    before: Option<ServiceSeen<'a>>,
    after: ServiceSeen<'a>,
    since_unix_ms: u64,
) -> Vec<&'a Appointed> {
    let known = before.map_or(Term(0), |before| before.state.term());
    let lines = after.state.history.iter();
    lines.filter(|it| it.term > known && it.at_unix_ms >= since_unix_ms).collect()
}

fn newly_active<'a>(
    before: Option<ServiceSeen<'a>>,
    after: ServiceSeen<'a>,
    since_unix_ms: u64,
) -> Vec<&'a Appointed> {
    let was_active = |line: &Appointed| {
        before.is_some_and(|before| {
            let old = before.state.history.iter().find(|old| old.term == line.term);
            old.is_some_and(|old| old.active_unix_ms.is_some())
        })
    };
    let lines = after.state.history.iter();
    lines
        .filter(|it| it.active_unix_ms.is_some_and(|at| at >= since_unix_ms) && !was_active(it))
        .collect()
}

/// How many standbys of the newest rule can confirm, and how many must; none while unknown.
fn confirming(after: ServiceSeen<'_>) -> Option<(usize, usize)> {
    let rule = after.appointment()?.rules.last()?;
    let primary = after.serving_primary()?;
    let streams = |node: &&tandem_core::ids::NodeId| {
        primary.replicas.get(*node).is_some_and(|replica| replica.streaming)
    };
    Some((rule.standbys.iter().filter(streams).count(), rule.acks))
}

fn is_redundant(after: ServiceSeen<'_>) -> bool {
    let Some(appointment) = after.appointment() else { return false };
    let Some(primary): Option<&InstanceFacts> = after.serving_primary() else { return false };
    appointment.phase == Phase::Active
        && appointment.rules.len() == 1
        && after
            .seen
            .agreed
            .spec
            .data_nodes()
            .filter(|node| **node != appointment.primary)
            .all(|node| primary.replicas.get(node).is_some_and(|replica| replica.streaming))
}
