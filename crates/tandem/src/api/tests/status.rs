//! The documented JSON, field by field: a failure here is a change that users notice.

use super::fake;
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
            "warnings": ["commits are confirmed by nobody else"],
        }],
    });
    assert_eq!(answer, expected);
    assert_eq!(serde_json::from_value::<Status>(answer).unwrap(), fake::status());
    served.stop().await;
}

#[test]
fn a_word_of_a_later_version_is_unknown_and_not_an_error() {
    let state: InstanceState = serde_json::from_str("\"hibernating\"").unwrap();
    assert_eq!(state, InstanceState::Unknown);
    assert_eq!(serde_json::to_string(&InstanceState::Cloning).unwrap(), "\"cloning\"");
    assert_eq!(InstanceState::Cloning.to_string(), "cloning");
}
