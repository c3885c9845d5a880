//! What is said about endpoints.

use super::super::balanced;
use super::cluster;
use crate::api::balanced::UpstreamState;
use crate::proxy::balancer::{EndpointSnapshot, Snapshot};
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::time::Timestamp;

const BALANCED: &str = r#"
[services.cache]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6379
upstreams = ["10.0.0.11:6379", "cache2:6379"]
"#;

fn endpoint(condition: Condition) -> EndpointSnapshot {
    EndpointSnapshot {
        address: ([10, 0, 0, 11], 6379).into(),
        condition,
        ejected_for: Some(Duration::from_millis(7_460)),
        weight: 1,
        far: false,
        share_percent: if condition.is_in_service() { 40 } else { 0 },
        in_flight: 3,
        latency_us: 250,
        served: 9,
        failed: 4,
        ejected: 1,
        failure: Some("Connection refused".to_owned()),
    }
}

fn snapshot(endpoints: Vec<EndpointSnapshot>) -> Snapshot {
    Snapshot {
        http: None,
        service: "cache".into(),
        policy: "peak-ewma",
        sessions: 3,
        held: 0,
        accepted: 9,
        refused: 0,
        expired: 0,
        retried: 4,
        endpoints,
        unresolved: vec!["cache2".to_owned()],
    }
}

#[test]
fn every_condition_has_its_reason() {
    let seen = cluster(&format!("{}{BALANCED}", super::THREE), "a");
    let told = |condition| {
        let of = balanced::all(&seen, &[snapshot(vec![endpoint(condition)])]).remove(0);
        let upstream = of.upstreams[0].clone();
        (upstream.state, upstream.reason.unwrap_or_default(), of.warnings.join("; "))
    };
    let unresolved = "cache2 cannot be looked up";
    let nobody =
        "no endpoint takes connections: clients wait up to 15s; cache2 cannot be looked up";
    for (condition, state, reason, warnings) in [
        (Condition::Up, UpstreamState::Up, "", unresolved),
        (
            Condition::Starting,
            UpstreamState::Starting,
            "comes back slowly: 40 % of its share",
            unresolved,
        ),
        (Condition::Down, UpstreamState::Down, "its checks fail: Connection refused", nobody),
        (
            Condition::Ejected(Timestamp(1)),
            UpstreamState::Ejected,
            "its work failed: Connection refused; tried again in 7.5 s",
            nobody,
        ),
        (Condition::Draining, UpstreamState::Draining, "3 connections are left", nobody),
        (Condition::Unknown, UpstreamState::Unchecked, "not asked yet", nobody),
    ] {
        assert_eq!(told(condition), (state, reason.to_owned(), warnings.to_owned()));
    }
}

#[test]
fn a_door_that_is_not_open_is_told() {
    let seen = cluster(&format!("{}{BALANCED}", super::THREE), "b");
    let of = balanced::all(&seen, &[]).remove(0);
    assert_eq!(of.warnings, ["its door on b is not open: see tandem doctor"]);
    assert_eq!(of.doors[2].listen, "10.0.0.3:6379");
}
