//! Tells why an instance is not as it should be.
//! In: `ServiceSeen`. Out: a few words, or nothing where all is well.
//! Not here: what it is and does (`status.rs`), warnings about a service.
//! Tested by: `tests/status.rs`.

use super::super::copies;
use super::super::seen::{Seen, ServiceSeen};
use super::{OwnReason, instance_state, role};
use crate::api::status::{InstanceRole, InstanceState};
use std::time::Duration;
use tandem_core::facts::{Data, Health, InstanceFacts, Process};
use tandem_core::ids::NodeId;

/// Why an instance is not as it should be; none where it is.
pub(super) fn reason(
    service: ServiceSeen<'_>,
    node: &NodeId,
    own_reason: OwnReason<'_>,
) -> Option<String> {
    let role = role(service, node);
    let state = instance_state(service, node);
    let is_well = matches!(
        (role, state),
        (InstanceRole::Witness, _)
            | (InstanceRole::Primary | InstanceRole::Active, InstanceState::Running)
            | (InstanceRole::Standby, InstanceState::Streaming)
    );
    let Some(facts) = service.instance(node) else {
        return not_heard(service.seen, node).filter(|_| role != InstanceRole::Witness);
    };
    if copies::is_copies(service) {
        let planned = (*node == service.seen.me).then(|| own_reason(service.name)).flatten();
        return copies::reason(service, facts, planned.map(|it| it.reason.to_string()));
    }
    if let Some(reason) = unwell(facts) {
        return Some(reason);
    }
    if facts.starts_failed > 0 {
        return Some(super::super::candidates::does_not_start(service, facts));
    }
    if is_well {
        return facts.pending_restart.then(|| "settings wait for a restart".to_owned());
    }
    if *node == service.seen.me {
        return own_reason(service.name).map(|explained| explained.reason.to_string());
    }
    if facts.withdrawn.is_some() {
        return Some("doors hold whoever comes: it is about to be stopped".to_owned());
    }
    facts.process.eq(&Process::Primary).then(|| {
        if role == InstanceRole::Primary {
            "its barrier is not confirmed yet".to_owned()
        } else if role == InstanceRole::Active {
            "its checks have not succeeded yet".to_owned()
        } else {
            format!("is no longer the {}", service.holder_word())
        }
    })
}

fn not_heard(seen: &Seen, node: &NodeId) -> Option<String> {
    let Some(observed) = seen.facts.get(node) else {
        return Some(format!("{node} was never heard by {}", seen.me));
    };
    if observed.age(seen.now) <= seen.suspicion() {
        return Some(format!("{node} does not speak of it yet"));
    }
    let age = observed.age(seen.now).as_secs_f64();
    Some(format!("{node} was last heard {age:.1} s ago"))
}

/// What the facts themselves complain about.
pub(in crate::node::operations) fn unwell(facts: &InstanceFacts) -> Option<String> {
    let seconds = |age: Duration| age.as_secs_f64();
    match &facts.data {
        Data::Quarantined { reason } => return Some(format!("quarantined: {reason}")),
        Data::Suspect { reason } => return Some(format!("disk suspect: {reason}")),
        Data::Foreign => {
            let reason =
                "its data was not made here: adopted if it founds the service, else reinit";
            return Some(reason.to_owned());
        }
        Data::Mixed => return Some("a copy was interrupted; it will be made again".to_owned()),
        Data::Copying { percent: Some(percent) } => return Some(format!("{percent} % copied")),
        Data::Copying { percent: None } => return Some("being copied".to_owned()),
        Data::Empty | Data::Present | Data::Witness => {}
    }
    match facts.health {
        Health::Good => None,
        Health::Hung(age) => Some(format!("no answer for {:.1} s", seconds(age))),
        Health::ConnectionsUsedUp => Some("all connections are in use".to_owned()),
        Health::DiskStuck(age) => Some(format!("its disk is stuck for {:.1} s", seconds(age))),
        Health::DiskFull => Some("no space is left on its disk".to_owned()),
    }
}
