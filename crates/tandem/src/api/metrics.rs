//! Talks to Prometheus: the node's numbers as text, format 0.0.4.
//! In: `MetricsSnapshot`. Out: one family after the other, each with HELP and TYPE.
//! A number that is not known is left out, never written as 0.
//! Tested by: the whole text, in `tests/metrics.rs`.

mod balanced;
mod partitions;

use crate::api::balanced::{BalancedStatus, UpstreamStatus};
use crate::api::status::CopiesStatus;
pub use balanced::UpstreamTimes;
pub use partitions::{Moves, PartitionMetrics, PartitionsOfNode};
use std::fmt::{Display, Write as _};
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId, Term, TimelineId};
use tandem_core::lsn::Lsn;

/// The node's numbers at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsSnapshot {
    /// The node.
    pub node: NodeId,
    /// Tandem's version.
    pub version: String,
    /// Version of the agreed configuration.
    pub config_version: ConfigVersion,
    /// It leads the consensus.
    pub is_leader: bool,
    /// It knows who leads.
    pub has_leader: bool,
    /// Since the daemon started.
    pub uptime_s: f64,
    /// Memory of the daemon.
    pub resident_bytes: Option<u64>,
    /// Processor time of the daemon.
    pub cpu_s: Option<f64>,
    /// How it sees its peers.
    pub peers: Vec<PeerMetrics>,
    /// Every service that Tandem runs.
    pub services: Vec<ServiceMetrics>,
    /// Every service that something else runs.
    pub balanced: Vec<BalancedStatus>,
    /// The replicas behind the doors for reads.
    pub readers: Vec<(ServiceId, UpstreamStatus)>,
    /// How long everything took at the endpoints of both.
    pub upstream_times: Vec<UpstreamTimes>,
}

/// How a peer is seen.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerMetrics {
    /// The peer.
    pub node: NodeId,
    /// Heard within the suspicion time.
    pub up: bool,
    /// Since it was last heard; none if never.
    pub silent_s: Option<f64>,
}

/// One service as this node sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceMetrics {
    /// Which.
    pub service: ServiceId,
    /// The present term.
    pub term: Term,
    /// Its primary, or its only copy, serves; of copies side by side any does.
    pub active: bool,
    /// Automatic failover is off.
    pub paused: bool,
    /// Failovers in the kept history and since.
    pub failovers_total: u64,
    /// Switchovers in the kept history and since.
    pub switchovers_total: u64,
    /// This node is primary: seconds until its lease ends.
    pub lease_s: Option<f64>,
    /// There where copies run side by side.
    pub copies: Option<CopiesStatus>,
    /// There where the work is divided.
    pub partitions: Option<PartitionMetrics>,
    /// This node's front door.
    pub door: DoorMetrics,
    /// Every instance.
    pub instances: Vec<InstanceMetrics>,
}

/// The front door of one service on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorMetrics {
    /// Sessions that are routed now.
    pub sessions: u64,
    /// Sessions that wait for a primary now.
    pub held: u64,
    /// Sessions that were routed since the daemon started.
    pub sessions_total: u64,
    /// Sessions that waited.
    pub held_total: u64,
    /// Sessions that were refused: held too long, or too many.
    pub refused_total: u64,
    /// Sessions that were cut because their primary was deposed.
    pub cut_total: u64,
    /// Commits that no standby confirmed, and that were not shown as success (H11).
    pub local_commits_total: u64,
    /// Cancel requests that were sent on.
    pub cancels_total: u64,
}

/// One instance as this node sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceMetrics {
    /// Whose.
    pub node: NodeId,
    /// It is the primary of the term and serves.
    pub primary: bool,
    /// It runs and answers.
    pub up: bool,
    /// Its confirmation may count for a commit.
    pub in_commit_quorum: bool,
    /// The timeline of its data.
    pub timeline: Option<TimelineId>,
    /// End of what is flushed there.
    pub lsn: Option<Lsn>,
    /// Bytes behind the primary.
    pub lag_bytes: Option<u64>,
    /// Seconds behind the primary.
    pub lag_s: Option<f64>,
}

/// The text that Prometheus reads.
pub fn text(snapshot: &MetricsSnapshot) -> String {
    let mut page = Page(String::with_capacity(8 * 1024));
    node(&mut page, snapshot);
    peers(&mut page, &snapshot.peers);
    services(&mut page, &snapshot.services);
    doors(&mut page, &snapshot.services);
    instances(&mut page, &snapshot.services);
    partitions::families(&mut page, &snapshot.services);
    balanced::families(&mut page, &snapshot.balanced);
    balanced::upstreams(&mut page, &snapshot.balanced, &snapshot.readers);
    balanced::requests(&mut page, &snapshot.balanced);
    balanced::owners(&mut page, &snapshot.balanced);
    balanced::times(&mut page, &snapshot.upstream_times);
    page.0
}

fn node(page: &mut Page, of: &MetricsSnapshot) {
    page.gauge("tandem_up", "The daemon answers.");
    page.sample("tandem_up", &[("node", &of.node), ("version", &of.version)], 1);
    page.one("tandem_config_version", "Version of the agreed configuration.", of.config_version);
    page.one("tandem_raft_leader", "This node leads the consensus.", flag(of.is_leader));
    page.one("tandem_raft_has_leader", "This node knows who leads.", flag(of.has_leader));
    page.one("tandem_uptime_seconds", "Since the daemon started.", of.uptime_s);
    if let Some(bytes) = of.resident_bytes {
        page.one("process_resident_memory_bytes", "Memory of the daemon.", bytes);
    }
    if let Some(seconds) = of.cpu_s {
        page.counter("process_cpu_seconds_total", "Processor time of the daemon.");
        page.sample("process_cpu_seconds_total", &[], seconds);
    }
}

fn peers(page: &mut Page, peers: &[PeerMetrics]) {
    page.gauge("tandem_peer_up", "The peer was heard within the suspicion time.");
    for peer in peers {
        page.sample("tandem_peer_up", &[("peer", &peer.node)], flag(peer.up));
    }
    page.gauge("tandem_peer_silent_seconds", "Since the peer was last heard.");
    for peer in peers {
        if let Some(seconds) = peer.silent_s {
            page.sample("tandem_peer_silent_seconds", &[("peer", &peer.node)], seconds);
        }
    }
}

fn services(page: &mut Page, services: &[ServiceMetrics]) {
    let mut family = |name: &str, help: &str, value: &dyn Fn(&ServiceMetrics) -> Option<Number>| {
        page.family(name, help);
        for of in services {
            if let Some(value) = value(of) {
                page.sample(name, &[("service", &of.service)], value);
            }
        }
    };
    family("tandem_service_term", "The present term.", &|of| Some(of.term.0.into()));
    family("tandem_service_active", "The primary or a copy serves.", &|of| {
        Some(flag(of.active).into())
    });
    family("tandem_service_paused", "Automatic failover is off.", &|of| {
        Some(flag(of.paused).into())
    });
    family("tandem_service_failovers_total", "Failovers.", &|of| Some(of.failovers_total.into()));
    family("tandem_service_switchovers_total", "Switchovers.", &|of| {
        Some(of.switchovers_total.into())
    });
    family("tandem_service_lease_seconds", "Until the lease of the primary here ends.", &|of| {
        of.lease_s.map(Number::Real)
    });
    let copies = |of: &ServiceMetrics, count: fn(&CopiesStatus) -> usize| {
        of.copies.as_ref().map(|copies| Number::Whole(count(copies) as u64))
    };
    family("tandem_copies_wanted", "Copies that shall serve side by side.", &|of| {
        copies(of, |copies| copies.wanted)
    });
    family("tandem_copies_serving", "Copies that do.", &|of| copies(of, |copies| copies.serving));
}

fn doors(page: &mut Page, services: &[ServiceMetrics]) {
    let mut family = |name: &str, help: &str, value: fn(&DoorMetrics) -> u64| {
        page.family(name, help);
        for of in services {
            page.sample(name, &[("service", &of.service)], value(&of.door));
        }
    };
    family("tandem_door_sessions", "Sessions routed now.", |door| door.sessions);
    family("tandem_door_held", "Sessions waiting for a primary now.", |door| door.held);
    family("tandem_door_sessions_total", "Sessions routed.", |door| door.sessions_total);
    family("tandem_door_held_total", "Sessions that waited.", |door| door.held_total);
    family("tandem_door_refused_total", "Sessions refused.", |door| door.refused_total);
    family("tandem_door_cut_total", "Sessions cut at a fence.", |door| door.cut_total);
    family(
        "tandem_door_local_commits_total",
        "Commits that no standby confirmed, and that were not shown as success.",
        |door| door.local_commits_total,
    );
    family("tandem_door_cancels_total", "Cancel requests sent on.", |door| door.cancels_total);
}

fn instances(page: &mut Page, services: &[ServiceMetrics]) {
    let mut family =
        |name: &str, help: &str, value: &dyn Fn(&InstanceMetrics) -> Option<Number>| {
            page.gauge(name, help);
            for of in services {
                for instance in &of.instances {
                    if let Some(value) = value(instance) {
                        let labels: [(&str, &dyn Display); 2] =
                            [("service", &of.service), ("node", &instance.node)];
                        page.sample(name, &labels, value);
                    }
                }
            }
        };
    family("tandem_service_primary", "The instance is the primary and serves.", &|of| {
        Some(flag(of.primary).into())
    });
    family("tandem_instance_up", "The instance runs and answers.", &|of| Some(flag(of.up).into()));
    family("tandem_instance_in_commit_quorum", "It may confirm commits.", &|of| {
        Some(flag(of.in_commit_quorum).into())
    });
    family("tandem_instance_timeline", "The timeline of its data.", &|of| {
        of.timeline.map(|timeline| u64::from(timeline.0).into())
    });
    family("tandem_instance_lsn_bytes", "End of what is flushed there.", &|of| {
        of.lsn.map(|lsn| lsn.0.into())
    });
    family("tandem_instance_lag_bytes", "Bytes behind the primary.", &|of| {
        of.lag_bytes.map(Number::Whole)
    });
    family("tandem_instance_lag_seconds", "Seconds behind the primary.", &|of| {
        of.lag_s.map(Number::Real)
    });
}

pub(super) const fn flag(yes: bool) -> u64 {
    yes as u64
}

#[derive(Clone, Copy)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
        }
    }
}

pub(super) struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn counter(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} counter");
    }

    fn histogram(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} histogram");
    }

    pub(super) fn family(&mut self, name: &str, help: &str) {
        if name.ends_with("_total") { self.counter(name, help) } else { self.gauge(name, help) }
    }

    fn one(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauge(name, help);
        self.sample(name, &[], value);
    }

    pub(super) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let start = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{start}{label}=\"{}\"", escape(&text.to_string()));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
