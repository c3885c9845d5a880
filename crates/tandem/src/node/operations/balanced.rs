//! Talks about the node's balancers in the API's words: maps their snapshots onto `BalancedStatus`.
//! In: the configuration, snapshots. Out: `BalancedStatus`, with the reasons and warnings.
//! Not here: the words themselves (`api/balanced.rs`).
//! Tested by: `tests/balanced.rs`.

use super::seen::{Seen, reachable};
use crate::api::balanced::{BalancedStatus, UpstreamState, UpstreamStatus};
use crate::api::status::Endpoint;
use crate::config::Balanced;
use crate::proxy::balancer::{EndpointSnapshot, Snapshot};
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::ids::ServiceId;

/// Every service that is configured, whether its door is open here or not.
pub(super) fn all(seen: &Seen, snapshots: &[Snapshot]) -> Vec<BalancedStatus> {
    let services = seen.config.balanced.iter();
    services
        .map(|(name, config)| {
            let snapshot = snapshots.iter().find(|it| it.service == *name);
            service(seen, (name, config), snapshot)
        })
        .collect()
}

fn service(
    seen: &Seen,
    (name, config): (&ServiceId, &Balanced),
    snapshot: Option<&Snapshot>,
) -> BalancedStatus {
    let door = |node: (&_, &crate::config::Node)| Endpoint {
        node: tandem_core::ids::NodeId::clone(node.0),
        listen: reachable(config.listen.on(node.1), node.1),
        read_listen: None,
    };
    let count = |of: fn(&Snapshot) -> u64| snapshot.map_or(0, of);
    BalancedStatus {
        name: name.clone(),
        kind: config.pairing.kind(),
        clustering: config.pairing.clustering(),
        replication: config.pairing.replication(),
        node: seen.me.clone(),
        balance: config.policy.word().to_owned(),
        doors: seen.config.nodes.iter().map(door).collect(),
        sessions: count(|it| it.sessions),
        held: count(|it| it.held),
        sessions_total: count(|it| it.accepted),
        refused_total: count(|it| it.refused),
        expired_total: count(|it| it.expired),
        retried_total: count(|it| it.retried),
        upstreams: snapshot.map_or_else(Vec::new, |it| it.endpoints.iter().map(upstream).collect()),
        warnings: snapshot.map_or_else(
            || vec![format!("its door on {} is not open: see tandem doctor", seen.me)],
            |it| warnings(config, it),
        ),
    }
}

fn upstream(of: &EndpointSnapshot) -> UpstreamStatus {
    let state = match of.condition {
        Condition::Unknown => UpstreamState::Unchecked,
        Condition::Up => UpstreamState::Up,
        Condition::Starting => UpstreamState::Starting,
        Condition::Down => UpstreamState::Down,
        Condition::Ejected(_) => UpstreamState::Ejected,
        Condition::Draining => UpstreamState::Draining,
    };
    UpstreamStatus {
        address: of.address.to_string(),
        state,
        reason: reason(of),
        weight: of.weight,
        share_percent: of.share_percent,
        far: of.far,
        in_flight: of.in_flight,
        latency_ms: (of.latency_us > 0).then(|| of.latency_us as f64 / 1000.0),
        sessions_total: of.served,
        failed_total: of.failed,
        ejected_total: of.ejected,
    }
}

fn reason(of: &EndpointSnapshot) -> Option<String> {
    let why = of.failure.as_deref().unwrap_or("no answer");
    Some(match of.condition {
        Condition::Up => return None,
        Condition::Unknown => "not asked yet".to_owned(),
        Condition::Starting => format!("comes back slowly: {} % of its share", of.share_percent),
        Condition::Down => format!("its checks fail: {why}"),
        Condition::Ejected(_) => {
            let left = of.ejected_for.unwrap_or_default().as_secs_f64();
            format!("its work failed: {why}; tried again in {left:.1} s")
        }
        Condition::Draining if of.in_flight == 0 => "drained: nothing is left".to_owned(),
        Condition::Draining => format!("{} connections are left", of.in_flight),
    })
}

fn warnings(config: &Balanced, snapshot: &Snapshot) -> Vec<String> {
    let endpoints = &snapshot.endpoints;
    let mut warnings = Vec::new();
    if endpoints.iter().all(|it| it.share_percent == 0) {
        let held = crate::config::print_duration(config.hold_max);
        warnings.push(format!("no endpoint takes connections: clients wait up to {held}"));
    } else if !endpoints.iter().any(|it| it.condition.is_in_service()) {
        warnings.push("no endpoint is known to be up: work goes to the least bad".to_owned());
    }
    let unresolved = snapshot.unresolved.iter();
    warnings.extend(unresolved.map(|name| format!("{name} cannot be looked up")));
    if snapshot.sessions >= config.sessions_max as u64 {
        warnings.push("full: sessions_max connections are open, more are closed".to_owned());
    }
    warnings
}
