//! Talks like a node, without being one: answers what a test put into it.

mod numbers;
mod seat;

pub(crate) use seat::{Seat, own};

use crate::api::balanced::{
    BalancedStatus, CertificateStatus, QuantilesStatus, UpstreamState, UpstreamStatus,
};
use crate::api::explain::{
    Appointed, Candidate, Explanation, FailoverNow, Finding, OnePartition, Planned, Reason, Safety,
    Severity,
};
use crate::api::metrics::MetricsSnapshot;
use crate::api::operations::{
    Operations, Outcome, PartitionOf, Refused, RunningConfig, Secret, Verb,
};
use crate::api::partitions::Divided;
use crate::api::problem;
use crate::api::role::RoleCheck;
use crate::api::status::{
    Durability, Endpoint, InstanceRole, InstanceState, InstanceStatus, NodeRole, NodeState,
    NodeStatus, Phase, ScheduledSwitchover, ServiceStatus, Status,
};
use crate::telemetry::codes;
use crate::telemetry::events::{Event, EventLog};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};
use tandem_core::cluster::state::Cause;
use tandem_core::ids::{ConfigVersion, ServiceId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::pairing::{Clustering, Kind, Replication};
use tokio::sync::{Notify, broadcast};

/// A node that says what it was told to say, and remembers what it was asked to do.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) log: EventLog,
    pub(crate) role: Mutex<RoleCheck>,
    pub(crate) asked: Mutex<Vec<Verb>>,
    pub(crate) refuse: Mutex<Option<Refused>>,
    /// Verbs wait until this is notified, if set.
    pub(crate) hold: Option<std::sync::Arc<Notify>>,
    /// Its copy of `work`.
    pub(crate) seat: Option<Arc<Seat>>,
    pub(crate) status: Mutex<Status>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            log: EventLog::new("a".into()),
            role: Mutex::new(primary()),
            asked: Mutex::default(),
            refuse: Mutex::default(),
            hold: None,
            seat: None,
            status: Mutex::new(status()),
        }
    }
}

impl Operations for Fake {
    fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    fn events_since(&self, seq: u64) -> Vec<Event> {
        self.log.since(seq)
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.log.subscribe()
    }

    fn explain(&self, service: &ServiceId) -> BoxFuture<'static, Option<Explanation>> {
        let found = (service.as_str() == "orders").then(explanation);
        Box::pin(std::future::ready(found))
    }

    fn partition(
        &self,
        service: &ServiceId,
        of: PartitionOf,
    ) -> BoxFuture<'static, Result<OnePartition, Refused>> {
        let known = (service.as_str() == "work").then(|| numbers::partition(of));
        let found = known.ok_or_else(|| problem::no_such_service(service));
        Box::pin(std::future::ready(found))
    }

    fn operate(&self, verb: Verb) -> BoxFuture<'static, Result<Outcome, Refused>> {
        self.asked.lock().unwrap().push(verb.clone());
        let refuse = self.refuse.lock().unwrap().clone();
        let hold = self.hold.clone();
        Box::pin(async move {
            if let Some(hold) = hold {
                hold.notified().await;
            }
            if let Some(refused) = refuse {
                return Err(refused);
            }
            Ok(match verb {
                Verb::MintToken { .. } => Outcome::done("made").token(Secret::new("t0ken")),
                Verb::Switchover { at_unix_ms: Some(_), .. } => Outcome::accepted("scheduled"),
                _ => Outcome::done("done").field("term", 5),
            })
        })
    }

    fn role(&self, service: Option<&ServiceId>) -> RoleCheck {
        let known = service.is_none_or(|service| service.as_str() == "orders");
        let role = self.role.lock().unwrap().clone();
        if known {
            return role;
        }
        let reason = Some("no such service".to_owned());
        RoleCheck { service: service.cloned(), role: None, serves: false, reason, ..role }
    }

    fn divided(&self, service: &ServiceId) -> Option<Arc<dyn Divided>> {
        let seat = self.seat.clone().filter(|_| service.as_str() == "work")?;
        Some(seat)
    }

    fn metrics(&self) -> MetricsSnapshot {
        numbers::metrics()
    }

    fn doctor(&self) -> BoxFuture<'static, Vec<Finding>> {
        Box::pin(std::future::ready(vec![
            Finding::good("clock", "within 3 ms of the others"),
            Finding::new(Severity::Bad, "disk", "1 % free").advice("WAL is kept", "add space"),
        ]))
    }

    fn config(&self) -> RunningConfig {
        RunningConfig { version: ConfigVersion(3), text: "cluster = \"shop\"\n".to_owned() }
    }
}

pub(crate) fn primary() -> RoleCheck {
    RoleCheck {
        node: "a".into(),
        service: Some("orders".into()),
        role: Some(InstanceRole::Primary),
        state: InstanceState::Running,
        serves: true,
        term: Term(4),
        timeline: Some(TimelineId(2)),
        lsn: Some(Lsn(0x0300_0060)),
        lag_bytes: Some(0),
        live: true,
        reason: None,
    }
}

pub(crate) fn replica(lag_bytes: Option<u64>) -> RoleCheck {
    let (role, state) = (Some(InstanceRole::Standby), InstanceState::Streaming);
    RoleCheck { role, state, lag_bytes, ..primary() }
}

pub(crate) fn status() -> Status {
    let node = |name: &str, role, zone: Option<&str>, state| NodeStatus {
        name: name.into(),
        address: format!("10.0.0.{}:7400", name.as_bytes()[0] - b'a' + 1),
        role,
        zone: zone.map(str::to_owned),
        state,
    };
    Status {
        cluster: "shop".to_owned(),
        config_version: ConfigVersion(3),
        leader: Some("a".into()),
        waits: vec!["service web: cannot listen on 10.0.0.1:80".to_owned()],
        nodes: vec![
            node("a", NodeRole::Data, Some("eu-west-1a"), NodeState::Up),
            node("b", NodeRole::Data, None, NodeState::Silent),
            node("c", NodeRole::Witness, None, NodeState::Up),
        ],
        services: vec![service()],
        balanced: vec![balanced()],
    }
}

fn balanced() -> BalancedStatus {
    BalancedStatus {
        name: "cache".into(),
        kind: Kind::Tcp,
        clustering: Clustering::LoadBalanced,
        replication: Replication::None,
        node: "a".into(),
        balance: "peak-ewma".to_owned(),
        doors: vec![Endpoint {
            node: "a".into(),
            listen: "10.0.0.1:6379".to_owned(),
            read_listen: None,
        }],
        sessions: 5,
        held: 1,
        sessions_total: 1000,
        refused_total: 2,
        expired_total: 3,
        retried_total: 7,
        limited_client_total: 9,
        limited_service_total: 0,
        certificates: vec![CertificateStatus {
            file: "/etc/tandem/cache.crt".to_owned(),
            expires_unix_s: 1_900_000_000,
        }],
        http: None,
        owners: None,
        upstreams: vec![
            upstream("10.0.0.11:6379", UpstreamState::Up, 100),
            UpstreamStatus {
                reason: Some("its checks fail: no answer in time".to_owned()),
                far: true,
                in_flight: 0,
                rate_per_s: 0.0,
                latency_ms: None,
                quantiles: None,
                name: Some("cache2:6379".to_owned()),
                retried_total: 6,
                failed_total: 8,
                ejected_total: 1,
                cut_total: 5,
                ..upstream("10.0.0.12:6379", UpstreamState::Down, 0)
            },
        ],
        warnings: vec!["cache3 cannot be looked up".to_owned()],
    }
}

fn upstream(address: &str, state: UpstreamState, share_percent: u32) -> UpstreamStatus {
    UpstreamStatus {
        address: address.to_owned(),
        name: None,
        state,
        reason: None,
        weight: 1,
        share_percent,
        far: false,
        in_flight: 4,
        rate_per_s: 1.5,
        latency_ms: Some(0.25),
        quantiles: Some(QuantilesStatus { p50_ms: 0.2, p90_ms: 0.3, p99_ms: 4.0 }),
        sessions_total: 900,
        failed_total: 0,
        retried_total: 0,
        ejected_total: 0,
        cut_total: 0,
    }
}

fn reader() -> UpstreamStatus {
    let name = Some("b".to_owned());
    UpstreamStatus { name, ..upstream("10.0.0.2:5432", UpstreamState::Starting, 40) }
}

fn service() -> ServiceStatus {
    let instance = |node: &str, role, state| InstanceStatus {
        node: node.into(),
        role,
        state,
        address: format!("10.0.0.{}:5432", node.as_bytes()[0] - b'a' + 1),
        timeline: Some(TimelineId(2)),
        lsn: Some(Lsn(0x0300_0060)),
        lag_bytes: Some(0),
        lag_s: Some(0.0),
        in_commit_quorum: false,
        awaited: false,
        reason: None,
    };
    ServiceStatus {
        name: "orders".into(),
        kind: Kind::Postgres,
        clustering: Clustering::ActivePassive,
        replication: Replication::PrimaryReplica,
        durability: Durability::Preferred,
        copies: None,
        partitions: None,
        door: None,
        term: Term(4),
        phase: Phase::Active,
        paused: false,
        scheduled: Some(scheduled()),
        primary: Some("a".into()),
        endpoints: vec![Endpoint {
            node: "a".into(),
            listen: "10.0.0.1:5000".to_owned(),
            read_listen: Some("10.0.0.1:5001".to_owned()),
        }],
        instances: vec![
            instance("a", InstanceRole::Primary, InstanceState::Running),
            InstanceStatus {
                lag_bytes: Some(20_971_520),
                lag_s: Some(2.5),
                in_commit_quorum: true,
                awaited: true,
                reason: Some("node b is silent".to_owned()),
                ..instance("b", InstanceRole::Standby, InstanceState::Disconnected)
            },
        ],
        readers: vec![reader()],
        warnings: vec!["commits are confirmed by nobody else".to_owned()],
    }
}

fn scheduled() -> ScheduledSwitchover {
    ScheduledSwitchover { to: None, at_unix_ms: 1_763_870_400_000, kept_by: "b".into() }
}

pub(crate) fn explanation() -> Explanation {
    Explanation {
        service: "orders".into(),
        kind: Some(Kind::Postgres),
        term: Term(4),
        phase: Phase::Active,
        primary: Some("a".into()),
        summary: "a serves in term 4".to_owned(),
        scheduled: Some(scheduled()),
        no_failover_because: vec![Reason::new("a proved its lease").number("lease_ms", 1400)],
        failover_now: FailoverNow {
            safety: Safety::Safe,
            because: Reason::new("b holds every acknowledged commit"),
            would_choose: Some("b".into()),
            may_lose_bytes: Some(0),
            candidates: vec![Candidate {
                node: "b".into(),
                eligible: true,
                lsn: Some(Lsn(0x0300_0060)),
                lag_bytes: Some(0),
                because: "streams".to_owned(),
            }],
        },
        plans: vec![Planned {
            unix_ms: 1_763_836_447_123,
            by: "a".into(),
            plan: "wait".to_owned(),
            reason: Reason::new("all is well"),
            times: 12,
        }],
        placements: Vec::new(),
        shares: Vec::new(),
        history: vec![Appointed {
            term: Term(4),
            primary: "a".into(),
            cause: Cause::PostmasterDied,
            reason: "the keeper of c saw it exit".to_owned(),
            at_unix_ms: 1_763_836_440_000,
            active_unix_ms: Some(1_763_836_440_290),
        }],
    }
}

/// A refusal as a node would make it.
pub(crate) fn refusal() -> Refused {
    Refused::new(codes::TARGET_LAGS, "cannot switch over to b", "it lags", "wait")
}
