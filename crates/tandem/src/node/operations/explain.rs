//! Talks about why a service is as it is: verdict, hold-off, candidates, plans and history.
//! In: `ServiceSeen`, the plans of every node that answers. Out: `Explanation`.
//! Plans of the controller are known to the node that leads, and plans of an instance to its own
//! node: so all are asked (`between.rs`).
//! Not here: the decisions (the core), the shapes (`api/explain.rs`).
//! Tested by: `tests/explain.rs`.

use super::candidates;
use super::copies;
use super::moves::singleton;
use super::seen::ServiceSeen;
use super::status;
use crate::api::explain::{Appointed, Explanation, Planned, Reason};
use crate::api::status::Phase;
use crate::driver::explain::Explained;
use tandem_core::cluster::state::{Appointment, Cause};
use tandem_core::clustering::active_passive::controller::hold_off;
use tandem_core::clustering::active_passive::verdict::{self, Verdict};
use tandem_core::ids::NodeId;

/// Why a service is as it is.
pub(super) fn explain(service: ServiceSeen<'_>, plans: Vec<Planned>) -> Explanation {
    if copies::is_copies(service) {
        return copies::explain(service, plans);
    }
    let state = service.state;
    let phase = status::phase(service);
    Explanation {
        service: service.name.clone(),
        kind: Some(service.spec.pairing.kind()),
        term: state.term(),
        phase,
        primary: service.appointment().map(|appointment| appointment.primary.clone()),
        summary: summary(service, phase),
        // Not agreed, so the caller adds it.
        scheduled: None,
        no_failover_because: no_failover_because(service, phase),
        failover_now: candidates::failover_now(service),
        plans,
        history: state
            .history
            .iter()
            .rev()
            .map(|line| Appointed {
                term: line.term,
                primary: line.primary.clone(),
                cause: line.cause,
                reason: line.reason.clone(),
                at_unix_ms: line.at_unix_ms,
                active_unix_ms: line.active_unix_ms,
            })
            .collect(),
        placements: Vec::new(),
        shares: Vec::new(),
    }
}

pub(super) fn planned(me: &NodeId, explained: Explained) -> Planned {
    let steps =
        if explained.steps.is_empty() { "wait".to_owned() } else { explained.steps.join("; ") };
    Planned {
        unix_ms: explained.unix_ms,
        by: me.clone(),
        plan: format!("{}: {steps}", explained.who),
        reason: Reason::from(&explained.reason),
        times: explained.times,
    }
}

/// The same of the copy that one node has of divided work.
pub(super) fn planned_for(me: &NodeId, seat: &NodeId, explained: Explained) -> Planned {
    let planned = planned(me, explained);
    Planned { plan: format!("copy of {seat}, {}", planned.plan), ..planned }
}

fn summary(service: ServiceSeen<'_>, phase: Phase) -> String {
    let Some(appointment) = service.appointment() else {
        return match &service.state.founder {
            _ if singleton::is_command(service) => "nobody was chosen yet to run it".to_owned(),
            Some(founder) => format!("{founder} makes the first copy of the data"),
            None => "nobody was chosen yet to make the first copy of the data".to_owned(),
        };
    };
    let (primary, term) = (&appointment.primary, appointment.term);
    let verdict = verdict::judge(&service.view(), appointment, service.seen.now);
    let state = service.state;
    match (phase, verdict) {
        (Phase::Switchover, _) => {
            let to = state.switchover.as_ref().map_or("another node", |it| it.to.as_str());
            format!("{primary} hands over to {to}")
        }
        (Phase::Electing, Verdict::Dead(_, why)) if state.paused => {
            format!("{primary} is lost ({why}), and automatic failover is paused")
        }
        (Phase::Electing, Verdict::Dead(_, why)) => {
            let word = service.holder_word();
            format!("{primary} is lost ({why}): a new {word} is being elected")
        }
        (Phase::Electing, _) => format!("an election after term {term} is under way"),
        (_, Verdict::Serving) if phase == Phase::Active => {
            format!("{primary} serves term {term}")
        }
        (_, Verdict::Serving) => {
            format!("{primary} is the {} in term {term}, not confirmed yet", service.holder_word())
        }
        (_, Verdict::Dead(Cause::CrashLoop, why)) => format!("crash loop: {why}"),
        (_, Verdict::Moving(why) | Verdict::Unknown(why) | Verdict::Dead(_, why)) => {
            why.to_string()
        }
    }
}

fn no_failover_because(service: ServiceSeen<'_>, phase: Phase) -> Vec<Reason> {
    let Some(appointment) = service.appointment() else {
        return vec![Reason::new(format!("there is no {} yet", service.holder_word()))];
    };
    let mut reasons = Vec::new();
    if service.state.paused {
        reasons.push(Reason::new("automatic failover is paused: tandem resume"));
    }
    let view = service.view();
    match verdict::judge(&view, appointment, service.seen.now) {
        Verdict::Serving => reasons.push(serving(service, appointment)),
        Verdict::Moving(why) => {
            reasons.push(Reason::from(&why.within(|why| format!("on its way: {why}"))));
        }
        Verdict::Unknown(why) => {
            reasons.push(Reason::from(&why.within(|why| format!("no evidence: {why}"))));
        }
        Verdict::Dead(_, why) => match hold_off(&view) {
            Some(wait) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let waits = |why: &str| {
                    format!("the last primaries did not last, so the next waits ({why})")
                };
                reasons.push(Reason::from(&why.within(waits)).number("wait_ms", wait_ms));
            }
            // One is under way.
            None if phase == Phase::Electing && !service.state.paused => {}
            None => reasons.push(Reason::from(&why)),
        },
    }
    reasons
}

fn serving(service: ServiceSeen<'_>, appointment: &Appointment) -> Reason {
    let primary = &appointment.primary;
    let heard = service.seen.facts.get(primary).map(|facts| facts.age(service.seen.now));
    let reason = Reason::new(format!("{primary} serves"));
    match heard {
        Some(age) if *primary != service.seen.me => {
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            let limit = service.spec.timing.suspicion.as_millis();
            reason
                .number("heard_ms_ago", age_ms)
                .number("suspicion_ms", u64::try_from(limit).unwrap_or(u64::MAX))
        }
        Some(_) | None => reason,
    }
}
