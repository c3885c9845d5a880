//! Talks about the node in numbers.
//! In: `Seen`, the doors' counters. Out: `MetricsSnapshot`; a number that is not known is none.
//! Not here: the text (`api/metrics.rs`).
//! Tested by: `tests/status.rs`.

use super::Ground;
use super::balanced;
use super::copies;
use super::copies::rounds::Rounds;
use super::role;
use super::seen::{Seen, ServiceSeen};
use super::status;
use crate::api::metrics::{
    DoorMetrics, InstanceMetrics, MetricsSnapshot, PeerMetrics, ServiceMetrics,
};
use crate::api::status::{InstanceRole, InstanceState, NodeState, Phase};
use crate::driver::hub::Hub;
use crate::proxy::{Door, DoorCounters, EndpointSnapshot};
use crate::telemetry::process;
use std::collections::BTreeMap;
use tandem_core::cluster::state::Cause;
use tandem_core::ids::{ServiceId, Term};
use tandem_core::time::Timestamp;

/// Appointments by their cause, counted for as long as the daemon runs: the agreed history keeps
/// only the last ones, and a counter must not fall.
#[derive(Debug, Default)]
pub(super) struct Appointments(BTreeMap<ServiceId, Counted>);

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    upto: Term,
    failovers: u64,
    switchovers: u64,
}

impl Appointments {
    /// Counts what the history has that was not counted before.
    pub(super) fn note(&mut self, seen: &Seen) {
        for service in seen.services() {
            let counted = self.0.entry(service.name.clone()).or_default();
            for line in &service.state.history {
                if line.term <= counted.upto {
                    continue;
                }
                counted.upto = line.term;
                match line.cause {
                    Cause::Founded | Cause::Resumed => {}
                    Cause::Switchover => counted.switchovers += 1,
                    _ => counted.failovers += 1,
                }
            }
        }
    }

    /// Failovers and switchovers.
    #[cfg(test)]
    pub(super) fn totals(&self, service: &ServiceId) -> (u64, u64) {
        let Counted { failovers, switchovers, .. } = self.of(service);
        (failovers, switchovers)
    }

    fn of(&self, service: &ServiceId) -> Counted {
        self.0.get(service).copied().unwrap_or_default()
    }
}

/// The node's numbers now.
pub(super) fn metrics(
    seen: &Seen,
    started: Timestamp,
    ground: &Ground,
    (appointed, rounds): (&Appointments, &Rounds),
) -> MetricsSnapshot {
    let of = |service: ServiceSeen<'_>| {
        let name = service.name;
        let overdue = ground.driven.seat(name).map(|seat| seat.overdue());
        let of = service_metrics(service, &ground.hub, &ground.doors, appointed.of(name));
        ServiceMetrics { partitions: copies::divided::metrics(service, rounds, overdue), ..of }
    };
    let snapshots = ground.doors_of_endpoints();
    let readers: Vec<(&ServiceId, EndpointSnapshot)> = ground
        .doors
        .iter()
        .flat_map(|(service, door)| door.readers().into_iter().map(move |it| (service, it)))
        .collect();
    let endpoints = snapshots
        .iter()
        .flat_map(|of| of.endpoints.iter().map(move |it| (&of.service, it)))
        .chain(readers.iter().map(|(service, it)| (*service, it)));
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
        services: seen.services().map(of).collect(),
        balanced: balanced::all(seen, &snapshots),
        upstream_times: balanced::times(endpoints),
        readers: readers
            .iter()
            .map(|(service, it)| ((*service).clone(), balanced::upstream(it)))
            .collect(),
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
    counted: Counted,
) -> ServiceMetrics {
    let counters = doors.iter().filter(|(name, _)| name == service.name);
    let lease =
        role::lease_left(service, &hub.proof(service.name, service.spec, service.state.term()));
    ServiceMetrics {
        service: service.name.clone(),
        term: service.state.term(),
        active: status::phase(service) == Phase::Active
            && (copies::is_copies(service) || service.serving_primary().is_some()),
        paused: service.state.paused,
        failovers_total: counted.failovers,
        switchovers_total: counted.switchovers,
        lease_s: lease.map(|left| left.as_secs_f64()),
        copies: copies::status(service),
        partitions: None,
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
        local_commits_total: sum.local_commits_total + it.local_commits,
        cancels_total: sum.cancels_total + it.cancels,
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
                primary: matches!(shown.role, InstanceRole::Primary | InstanceRole::Active)
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
