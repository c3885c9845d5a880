//! The documented JSON, field by field: a failure here is a change that users notice.

use super::fake;
use crate::api::balanced::BalancedStatus;
use crate::api::status::{InstanceState, Status};
use serde_json::json;

#[tokio::test]
async fn every_field_is_where_it_was() {
    let served = super::serve().await;
    let (status, answer) = served.get("/v1/status").await;
    assert_eq!(status, 200);
    let expected = json!({
        "cluster": "shop",
        "config_version": 3,
        "leader": "a",
        "waits": ["service web: cannot listen on 10.0.0.1:80"],
        "nodes": [
            {"name": "a", "address": "10.0.0.1:7400", "role": "data", "zone": "eu-west-1a",
             "state": "up"},
            {"name": "b", "address": "10.0.0.2:7400", "role": "data", "zone": null,
             "state": "silent"},
            {"name": "c", "address": "10.0.0.3:7400", "role": "witness", "zone": null,
             "state": "up"},
        ],
        "services": [{
            "name": "orders",
            "kind": "postgres",
            "clustering": "active-passive",
            "replication": "primary-replica",
            "durability": "preferred",
            "term": 4,
            "phase": "active",
            "paused": false,
            "scheduled": {"to": null, "at_unix_ms": 1_763_870_400_000_u64, "kept_by": "b"},
            "primary": "a",
            "endpoints": [
                {"node": "a", "listen": "10.0.0.1:5000", "read_listen": "10.0.0.1:5001"},
            ],
            "instances": [
                {"node": "a", "role": "primary", "state": "running", "address": "10.0.0.1:5432",
                 "timeline": 2, "lsn": "0/3000060", "lag_bytes": 0, "lag_s": 0.0,
                 "in_commit_quorum": false, "awaited": false, "reason": null},
                {"node": "b", "role": "standby", "state": "disconnected",
                 "address": "10.0.0.2:5432", "timeline": 2, "lsn": "0/3000060",
                 "lag_bytes": 20_971_520, "lag_s": 2.5, "in_commit_quorum": true,
                 "awaited": true, "reason": "node b is silent"},
            ],
            "readers": [
                {"address": "10.0.0.2:5432", "state": "starting", "reason": null, "weight": 1,
                 "share_percent": 40, "far": false, "in_flight": 4, "latency_ms": 0.25,
                 "name": "b", "rate_per_s": 1.5,
                 "quantiles": {"p50_ms": 0.2, "p90_ms": 0.3, "p99_ms": 4.0},
                 "sessions_total": 900, "failed_total": 0, "retried_total": 0,
                 "ejected_total": 0, "cut_total": 0},
            ],
            "warnings": ["commits are confirmed by nobody else"],
        }],
        "balanced": [cache()],
    });
    assert_eq!(answer, expected);
    for (name, list) in [("orders", "services"), ("cache", "balanced")] {
        let (status, one) = served.get(&format!("/v1/services/{name}")).await;
        assert_eq!((status, &one), (200, &answer[list][0]));
    }
    assert_eq!(served.get("/v1/services/nothing").await.0, 404);
    assert_eq!(serde_json::from_value::<Status>(answer).unwrap(), fake::status());
    served.stop().await;
}

fn cache() -> serde_json::Value {
    json!({
        "name": "cache",
        "kind": "tcp",
        "clustering": "load-balanced",
        "replication": "none",
        "node": "a",
        "balance": "peak-ewma",
        "doors": [{"node": "a", "listen": "10.0.0.1:6379", "read_listen": null}],
        "sessions": 5,
        "held": 1,
        "sessions_total": 1000,
        "refused_total": 2,
        "expired_total": 3,
        "retried_total": 7,
        "limited_client_total": 9,
        "limited_service_total": 0,
        "certificates": [{"file": "/etc/tandem/cache.crt", "expires_unix_s": 1_900_000_000}],
        "upstreams": [
            {"address": "10.0.0.11:6379", "state": "up", "reason": null, "weight": 1,
             "share_percent": 100, "far": false, "in_flight": 4, "latency_ms": 0.25,
             "name": null, "rate_per_s": 1.5,
             "quantiles": {"p50_ms": 0.2, "p90_ms": 0.3, "p99_ms": 4.0},
             "sessions_total": 900, "failed_total": 0, "retried_total": 0, "ejected_total": 0,
             "cut_total": 0},
            {"address": "10.0.0.12:6379", "state": "down",
             "reason": "its checks fail: no answer in time", "weight": 1,
             "share_percent": 0, "far": true, "in_flight": 0, "latency_ms": null,
             "name": "cache2:6379", "rate_per_s": 0.0, "quantiles": null,
             "sessions_total": 900, "failed_total": 8, "retried_total": 6, "ejected_total": 1,
             "cut_total": 5},
        ],
        "warnings": ["cache3 cannot be looked up"],
    })
}

/// A command with a door of its own, as `tandem status` has it in two lists.
#[tokio::test]
async fn a_service_that_runs_shows_its_door() {
    let served = super::serve().await;
    let door = {
        let mut status = served.fake.status.lock().unwrap();
        let door = BalancedStatus { name: "orders".into(), ..status.balanced.remove(0) };
        status.balanced.push(door.clone());
        serde_json::to_value(door).unwrap()
    };
    let (_, mut whole) = served.get("/v1/status").await;
    let mut expected = whole["services"][0].take();
    assert!(expected["door"].is_null(), "in the list of all it is beside it");
    expected["door"] = door;
    assert_eq!(served.get("/v1/services/orders").await, (200, expected));
    served.stop().await;
}

#[test]
fn a_word_of_a_later_version_is_unknown_and_not_an_error() {
    let state: InstanceState = serde_json::from_str("\"hibernating\"").unwrap();
    assert_eq!(state, InstanceState::Unknown);
    assert_eq!(serde_json::to_string(&InstanceState::Cloning).unwrap(), "\"cloning\"");
    assert_eq!(InstanceState::Cloning.to_string(), "cloning");
}
