//! What a made-up node says in numbers, and of one partition.

use super::{balanced, explanation, reader};
use crate::api::explain::{OnePartition, PartitionState, Reason};
use crate::api::metrics::{
    DoorMetrics, InstanceMetrics, MetricsSnapshot, PeerMetrics, ServiceMetrics, UpstreamTimes,
};
use crate::api::operations::PartitionOf;
use crate::api::status::CopiesStatus;
use tandem_core::clustering::load_balanced::quantiles::Histogram;
use tandem_core::ids::{ConfigVersion, Epoch, NodeId, PartitionId, Term, TimelineId};
use tandem_core::lsn::Lsn;

pub(super) fn partition(of: PartitionOf) -> OnePartition {
    let (partition, key) = match of {
        PartitionOf::Number(partition) => (partition, None),
        PartitionOf::Key(key) => (PartitionId(6), Some(key)),
    };
    OnePartition {
        service: "work".into(),
        partition,
        count: 12,
        hash: key.as_ref().map(|_| "0x8675b487e9e6323a".to_owned()),
        key,
        epoch: Epoch(4),
        state: PartitionState::Releasing,
        owner: Some("a".into()),
        to: Some("c".into()),
        waits_for: Some("a".into()),
        releasing_ms: Some(3200),
        release_max_ms: 10_000,
        because: Reason::new("a was asked to release it to c").number("epoch", 4),
        route: Some("requests are held: it is being released".to_owned()),
        plans: explanation().plans,
    }
}

pub(super) fn metrics() -> MetricsSnapshot {
    let instance = |node: &str, primary, lag_bytes| InstanceMetrics {
        node: node.into(),
        primary,
        up: true,
        in_commit_quorum: !primary,
        timeline: Some(TimelineId(2)),
        lsn: Some(Lsn(4096)),
        lag_bytes,
        lag_s: lag_bytes.map(|bytes| bytes as f64 / 1024.0),
    };
    MetricsSnapshot {
        node: NodeId::from("a"),
        version: "0.1.0 \"x\"".to_owned(),
        config_version: ConfigVersion(3),
        is_leader: true,
        has_leader: true,
        uptime_s: 12.5,
        resident_bytes: Some(20_000_000),
        cpu_s: Some(0.25),
        peers: vec![
            PeerMetrics { node: "b".into(), up: true, silent_s: Some(0.05) },
            PeerMetrics { node: "c".into(), up: false, silent_s: None },
        ],
        services: vec![ServiceMetrics {
            service: "orders".into(),
            term: Term(4),
            active: true,
            paused: false,
            failovers_total: 2,
            switchovers_total: 1,
            lease_s: Some(1.4),
            copies: Some(CopiesStatus { wanted: 3, serving: 2, turn: None }),
            partitions: None,
            door: DoorMetrics {
                sessions: 7,
                held: 1,
                sessions_total: 90,
                local_commits_total: 2,
                ..DoorMetrics::default()
            },
            instances: vec![instance("a", true, Some(0)), instance("b", false, None)],
        }],
        balanced: vec![balanced()],
        readers: vec![("orders".into(), reader())],
        upstream_times: vec![UpstreamTimes {
            service: "cache".into(),
            upstream: "10.0.0.11:6379".to_owned(),
            histogram: Histogram {
                counts: [3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                sum_us: 12_500_000,
            },
        }],
    }
}
