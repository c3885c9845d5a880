//! Decides what this node answers to a load balancer.
//! In: `Seen`, the heartbeats that were acknowledged. Out: `RoleCheck`.
//! Keeps: INV-3, H41 a primary serves only while its lease is proven at this moment; a replica's
//! lag is known only from a primary that was heard lately.
//! Not here: paths and statuses (`api/role.rs`).
//! Tested by: `tests/role.rs`.

use super::seen::{Seen, ServiceSeen};
use super::status;
use crate::api::role::RoleCheck;
use crate::api::status::{InstanceRole, InstanceState};
use crate::driver::hub::Hub;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::cluster::lease::{self, Proof};
use tandem_core::facts::{Health, InstanceFacts, Process};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::time::Timestamp;

/// What this node is for a service; without a name, for the only one.
pub(super) fn role(seen: &Seen, service: Option<&ServiceId>, hub: &Hub) -> RoleCheck {
    let named = match service {
        Some(name) => seen.service(name),
        None if seen.services().count() == 1 => seen.services().next(),
        None => None,
    };
    let Some(of) = named else {
        let reason = match service {
            Some(name) => format!("there is no service {name}"),
            None => "there is not exactly one service: put its name before the path".to_owned(),
        };
        return RoleCheck {
            node: seen.me.clone(),
            service: service.cloned(),
            role: None,
            state: InstanceState::Unknown,
            serves: false,
            term: Term(0),
            timeline: None,
            lsn: None,
            lag_bytes: None,
            live: true,
            reason: Some(reason),
        };
    };
    let acknowledged = hub.proof(of.name, of.spec, of.state.term());
    role_in(of, &acknowledged)
}

/// The same for one service, given when peers acknowledged.
pub(super) fn role_in(
    service: ServiceSeen<'_>,
    acknowledged: &BTreeMap<NodeId, Timestamp>,
) -> RoleCheck {
    let me = &service.seen.me;
    let own = service.instance(me);
    let role = status::role(service, me);
    let objection = match (role, own) {
        (InstanceRole::Witness, _) => Some("this node is a witness".to_owned()),
        (_, None) => Some("this node knows nothing of its instance yet".to_owned()),
        (InstanceRole::Primary | InstanceRole::Active, Some(own)) => {
            primary_objection(service, own, acknowledged)
        }
        (_, Some(own)) => replica_objection(service, own),
    };
    let with_data = own.filter(|own| own.system.is_some());
    let is_primary = matches!(role, InstanceRole::Primary | InstanceRole::Active);
    RoleCheck {
        node: me.clone(),
        service: Some(service.name.clone()),
        role: Some(role),
        state: status::instance_state(service, me),
        serves: objection.is_none(),
        term: service.state.term(),
        timeline: with_data.map(|own| own.timeline),
        lsn: with_data.map(|own| own.flushed),
        lag_bytes: match with_data {
            Some(_) if is_primary && objection.is_none() => Some(0),
            Some(own) if !is_primary => service.lag_bytes(own),
            Some(_) | None => None,
        },
        live: true,
        reason: objection,
    }
}

fn primary_objection(
    service: ServiceSeen<'_>,
    own: &InstanceFacts,
    acknowledged: &BTreeMap<NodeId, Timestamp>,
) -> Option<String> {
    let term = service.state.term();
    if own.process != Process::Primary || own.promoted != term || own.serving != Some(term) {
        return Some(format!("appointed for term {term}, and does not serve it yet"));
    }
    if own.withdrawn.is_some() {
        return Some("it is about to be stopped, and takes nobody new".to_owned());
    }
    if own.promised > term {
        return Some(format!("promised term {}", own.promised));
    }
    match lease_left(service, acknowledged) {
        Some(left) if !left.is_zero() => unwell(own),
        Some(_) | None => Some("its lease is not proven at this moment".to_owned()),
    }
}

/// How long the lease of this node's primary lasts, as proven now.
pub(super) fn lease_left(
    service: ServiceSeen<'_>,
    acknowledged: &BTreeMap<NodeId, Timestamp>,
) -> Option<Duration> {
    let appointment = service.appointment()?;
    let me = &service.seen.me;
    if appointment.primary != *me {
        return None;
    }
    let voters: BTreeSet<NodeId> = service.seen.agreed.spec.nodes.keys().cloned().collect();
    let now = service.seen.now;
    let proof = Proof { me, voters: &voters, rules: &appointment.rules, now, acknowledged };
    let until = lease::valid_until(&proof, service.spec.timing.lease)?;
    Some(until.since(now))
}

fn replica_objection(service: ServiceSeen<'_>, own: &InstanceFacts) -> Option<String> {
    if own.process != Process::Standby {
        let state = status::instance_state(service, &service.seen.me);
        return Some(format!("its instance is {state}"));
    }
    if status::instance_state(service, &service.seen.me) == InstanceState::Disconnected {
        return Some("it receives nothing: what it shows may be old".to_owned());
    }
    unwell(own)
}

/// What keeps an instance that is there from answering a client.
fn unwell(own: &InstanceFacts) -> Option<String> {
    match own.health {
        Health::Good | Health::DiskFull => None,
        Health::Hung(_) | Health::ConnectionsUsedUp | Health::DiskStuck(_) => status::unwell(own),
    }
}
