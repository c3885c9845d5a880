//! Talks about the node in numbers.
//! In: `Seen`, the doors' counters. Out: `MetricsSnapshot`; a number that is not known is none.
//! Not here: the text (`api/metrics.rs`).
//! Tested by: `tests/status.rs`.

use super::role;
use super::seen::{Seen, ServiceSeen};
use super::status;
use crate::api::metrics::{
    DoorMetrics, InstanceMetrics, MetricsSnapshot, PeerMetrics, ServiceMetrics,
};
use crate::api::status::{InstanceRole, InstanceState, NodeState, Phase};
use crate::driver::hub::Hub;
use crate::proxy::{Door, DoorCounters};
use crate::telemetry::process;
use tandem_core::cluster::state::Cause;
use tandem_core::ids::ServiceId;
use tandem_core::time::Timestamp;

/// The node's numbers now.
pub(super) fn metrics(
    seen: &Seen,
    started: Timestamp,
    hub: &Hub,
    doors: &[(ServiceId, Door)],
) -> MetricsSnapshot {
    MetricsSnapshot {
        node: seen.me.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_version: seen.agreed.config_version,
        is_leader: seen.leadership.me_leads,
        has_leader: seen.leadership.leader.is_some(),
        uptime_s: seen.now.since(started).as_secs_f64(),
        resident_bytes: process::resident_bytes(),
        cpu_s: Some(process::cpu_seconds()),
        peers: peers(seen),
        services: seen.services().map(|service| service_metrics(service, hub, doors)).collect(),
    }
}

fn peers(seen: &Seen) -> Vec<PeerMetrics> {
    let peers = seen.config.nodes.keys().filter(|node| **node != seen.me);
    peers
        .map(|node| PeerMetrics {
            node: node.clone(),
            up: !matches!(status::node_state(seen, node), NodeState::Silent | NodeState::Down),
            silent_s: seen.facts.get(node).map(|facts| facts.age(seen.now).as_secs_f64()),
        })
        .collect()
}

fn service_metrics(
    service: ServiceSeen<'_>,
    hub: &Hub,
    doors: &[(ServiceId, Door)],
) -> ServiceMetrics {
    let history = &service.state.history;
    let count = |is: &dyn Fn(Cause) -> bool| {
        u64::try_from(history.iter().filter(|line| is(line.cause)).count()).unwrap_or(u64::MAX)
    };
    let counters = doors.iter().filter(|(name, _)| name == service.name);
    let lease =
        role::lease_left(service, &hub.proof(service.name, service.spec, service.state.term()));
    ServiceMetrics {
        service: service.name.clone(),
        term: service.state.term(),
        active: status::phase(service) == Phase::Active && service.serving_primary().is_some(),
        paused: service.state.paused,
        failovers_total: count(&|cause| {
            !matches!(cause, Cause::Founded | Cause::Switchover | Cause::Resumed)
        }),
        switchovers_total: count(&|cause| cause == Cause::Switchover),
        lease_s: lease.map(|left| left.as_secs_f64()),
        door: door(counters.map(|(_, door)| door.counters())),
        instances: instances(service),
    }
}

fn door(counters: impl Iterator<Item = DoorCounters>) -> DoorMetrics {
    counters.fold(DoorMetrics::default(), |sum, it| DoorMetrics {
        sessions: sum.sessions + it.sessions.saturating_sub(it.held),
        held: sum.held + it.held,
        sessions_total: sum.sessions_total + it.routed,
        held_total: sum.held_total + it.waited,
        refused_total: sum.refused_total + it.refused + it.expired,
        cut_total: sum.cut_total + it.cut,
    })
}

fn instances(service: ServiceSeen<'_>) -> Vec<InstanceMetrics> {
    let data_nodes = service.seen.agreed.spec.data_nodes();
    data_nodes
        .map(|node| {
            let shown = status::instance_status(service, node, &|_| None);
            let up = matches!(
                shown.state,
                InstanceState::Running
                    | InstanceState::Streaming
                    | InstanceState::Disconnected
                    | InstanceState::Promised
            );
            InstanceMetrics {
                node: node.clone(),
                primary: shown.role == InstanceRole::Primary
                    && shown.state == InstanceState::Running,
                up,
                in_commit_quorum: shown.in_commit_quorum,
                timeline: shown.timeline,
                lsn: shown.lsn,
                lag_bytes: shown.lag_bytes,
                lag_s: shown.lag_s,
            }
        })
        .collect()
}
