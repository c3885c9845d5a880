//! Tells what was agreed: appointments, rules, wishes of operators, the configuration.
//! In: two looks. Out: `Draft`s.

use super::super::seen::{Seen, ServiceSeen};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use tandem_core::cluster::state::Appointed;
use tandem_core::ids::ConfigVersion;
use tandem_core::spec::Durability;

/// What differs between two looks, the history aside.
pub(super) fn changes(before: &Seen, after: &Seen) -> Vec<Draft> {
    let (was, is) = (&before.agreed, &after.agreed);
    if was.config_version == ConfigVersion(0) {
        return Vec::new();
    }
    let mut drafts = Vec::new();
    if was.config_version != is.config_version {
        let message = format!("configuration {} is in force", is.config_version);
        let draft = Draft::new(EventKind::ConfigApplied, message);
        drafts.push(draft.field("config_version", is.config_version.0));
    }
    for node in is.draining.difference(&was.draining) {
        let message = format!("an operator empties {node}");
        drafts.push(Draft::new(EventKind::NodeDrained, message).field("node", node.as_str()));
    }
    for node in was.draining.difference(&is.draining) {
        let message = format!("{node} takes work again");
        drafts.push(Draft::new(EventKind::NodeUndrained, message).field("node", node.as_str()));
    }
    for service in after.services() {
        if let Some(before) = before.service(service.name) {
            drafts.extend(service_changes(before, service));
        }
    }
    drafts
}

fn service_changes(before: ServiceSeen<'_>, after: ServiceSeen<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let tell = |kind, message: String| {
        Draft::new(kind, message).service(after.name).term(after.state.term())
    };
    if before.state.system.is_none()
        && let Some(system) = after.state.system
    {
        let message = format!("{} has its first copy", after.name);
        drafts.push(tell(EventKind::ServiceFounded, message).field("system", system.to_string()));
    }
    match (before.state.paused, after.state.paused) {
        (false, true) => drafts
            .push(tell(EventKind::ServicePaused, "automatic failover was turned off".to_owned())),
        (true, false) => drafts
            .push(tell(EventKind::ServiceResumed, "automatic failover was turned on".to_owned())),
        (_, _) => {}
    }
    if let Some(switchover) = &after.state.switchover
        && before.state.switchover.is_none()
    {
        let message = format!("{} is to take over, planned", switchover.to);
        drafts
            .push(tell(EventKind::SwitchoverStarted, message).field("to", switchover.to.as_str()));
    }
    if let Some(switchover) = &before.state.switchover
        && after.state.switchover.is_none()
        && before.state.term() == after.state.term()
    {
        let message = format!("the move to {} was given up; nothing has moved", switchover.to);
        drafts.push(tell(EventKind::SwitchoverFailed, message).field("to", switchover.to.as_str()));
    }
    if let Some(placed) = after.state.copies.placed.last()
        && before.state.copies.placed.last() != Some(placed)
    {
        drafts.push(tell(EventKind::CopiesPlaced, placed.reason.clone()));
    }
    drafts.extend(rules(before, after));
    drafts
}

fn rules(before: ServiceSeen<'_>, after: ServiceSeen<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let (Some(was), Some(is)) = (before.appointment(), after.appointment()) else { return drafts };
    let (Some(old), Some(new)) = (was.rules.last(), is.rules.last()) else { return drafts };
    let tell = |kind, message: String| {
        Draft::new(kind, message).service(after.name).term(is.term).field("rule", new.to_string())
    };
    if old != new {
        drafts.push(tell(EventKind::RuleChanged, format!("{old} becomes {new}")));
    }
    if is.rules.len() == 1 && (was.rules.len() > 1 || old != new) {
        drafts.push(tell(EventKind::RuleSettled, format!("{new} alone is in effect, proven")));
    }
    let asked = match after.spec.durability {
        Durability::Quorum { acks } | Durability::Preferred { acks } => acks,
        Durability::Async { .. } => 0,
    };
    if new.acks < asked && old.acks >= asked {
        let message = format!("{} of {asked} standbys confirm each commit", new.acks);
        drafts.push(tell(EventKind::DurabilityReduced, message).field("acks", new.acks));
    }
    if new.acks >= asked && old.acks < asked {
        let message = format!("{} standbys confirm each commit, as asked", new.acks);
        drafts.push(tell(EventKind::DurabilityRestored, message).field("acks", new.acks));
    }
    drafts
}

/// Appointments and activations, also those that came and went between two looks.
pub(super) fn history(before: &Seen, after: &Seen, since_unix_ms: u64) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for service in after.services() {
        let known = before.service(service.name).map(|it| &it.state.history);
        let known = |line: &Appointed| {
            known.and_then(|lines| lines.iter().find(|old| old.term == line.term))
        };
        for line in service.state.history.iter().filter(|it| it.at_unix_ms >= since_unix_ms) {
            let old = known(line);
            let tell = |kind, message: String| {
                Draft::new(kind, message)
                    .service(service.name)
                    .term(line.term)
                    .field("primary", line.primary.as_str())
                    .field("cause", serde_json::to_value(line.cause).unwrap_or_default())
            };
            if old.is_none() {
                let message = format!("{} in term {}: {}", line.primary, line.term, line.reason);
                drafts.push(tell(EventKind::PrimaryAppointed, message));
            }
            if let Some(active) = line.active_unix_ms
                && old.is_none_or(|old| old.active_unix_ms.is_none())
            {
                let took_ms = active.saturating_sub(line.at_unix_ms);
                let message = format!("{} serves term {}", line.primary, line.term);
                drafts.push(tell(EventKind::PrimaryActivated, message).field("took_ms", took_ms));
            }
        }
    }
    drafts
}
