//! Talks about the cluster in the API's words: maps agreed state and facts onto `Status`.
//! In: `Seen`. Out: `Status`.
//! Keeps: H41 a node that was not heard lately is never shown as running or streaming; H47 a
//! cluster without automatic failover says so as long as it is one.
//! Not here: the words themselves (`api/status.rs`), why something is so (`explain.rs`).
//! Tested by: `tests/status.rs`.

mod reason;

pub(super) use reason::unwell;

use super::copies;
use super::moves::singleton;
use super::seen::{Seen, ServiceSeen, reachable};
use crate::api::status::{
    self, Endpoint, InstanceRole, InstanceState, InstanceStatus, NodeState, NodeStatus, Phase,
    ServiceStatus, Status,
};
use crate::config::Code;
use crate::driver::explain::Explained;
use std::time::Duration;
use tandem_core::cluster::state::{self, Appointment};
use tandem_core::clustering::active_passive::verdict::{self, Verdict};
use tandem_core::facts::{Data, Health, InstanceFacts, Link, Process, Stream};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec::{Durability, NodeRole};

/// What is known only of the own instance: its last plan.
pub(super) type OwnReason<'a> = &'a dyn Fn(&ServiceId) -> Option<Explained>;

/// The whole status, but for what the caller adds: what is not agreed, and this node's own doors.
pub(super) fn status(seen: &Seen, own_reason: OwnReason<'_>) -> Status {
    Status {
        cluster: seen.config.cluster.clone(),
        config_version: seen.agreed.config_version,
        leader: seen.leadership.leader.clone(),
        waits: Vec::new(),
        nodes: nodes(seen),
        services: seen.services().map(|service| service_status(service, own_reason)).collect(),
        balanced: Vec::new(),
    }
}

fn nodes(seen: &Seen) -> Vec<NodeStatus> {
    seen.config
        .nodes
        .iter()
        .map(|(name, node)| NodeStatus {
            name: name.clone(),
            address: node.address.to_string(),
            role: match node.role {
                NodeRole::Data => status::NodeRole::Data,
                NodeRole::Witness => status::NodeRole::Witness,
            },
            zone: node.zone.clone(),
            state: node_state(seen, name),
        })
        .collect()
}

/// How this node sees another one, or itself.
pub(super) fn node_state(seen: &Seen, node: &NodeId) -> NodeState {
    let is_draining = seen.agreed.draining.contains(node);
    if *node != seen.me {
        if let Some(Link::Refused(_)) = seen.link(node) {
            return NodeState::Down;
        }
        if seen.fresh(node).is_none() {
            return NodeState::Silent;
        }
    }
    let voters = &seen.leadership.voters;
    if !voters.is_empty() && !voters.contains(node) {
        return NodeState::Joining;
    }
    if is_draining { NodeState::Draining } else { NodeState::Up }
}

fn service_status(service: ServiceSeen<'_>, own_reason: OwnReason<'_>) -> ServiceStatus {
    let pairing = service.spec.pairing;
    let seen = service.seen;
    ServiceStatus {
        name: service.name.clone(),
        kind: pairing.kind(),
        clustering: pairing.clustering(),
        replication: pairing.replication(),
        durability: durability(service),
        copies: copies::status(service),
        partitions: copies::divided::status(service),
        door: None,
        term: copies::term(service),
        phase: phase(service),
        paused: service.state.paused,
        scheduled: None,
        primary: service.appointment().map(|it| it.primary.clone()),
        endpoints: endpoints(service),
        instances: seen
            .config
            .nodes
            .keys()
            .map(|node| instance_status(service, node, own_reason))
            .collect(),
        readers: Vec::new(),
        warnings: warnings(service)
            .into_iter()
            .chain(not_in_force(service))
            .chain(no_failover(service).filter(|_| !copies::is_copies(service)))
            .chain(singleton::warnings(service))
            .collect(),
    }
}

fn durability(service: ServiceSeen<'_>) -> status::Durability {
    match service.spec.durability {
        Durability::Async { .. } if singleton::is_command(service) => status::Durability::None,
        Durability::Quorum { .. } => status::Durability::Quorum,
        Durability::Preferred { .. } => status::Durability::Preferred,
        Durability::Async { .. } => status::Durability::Async,
    }
}

/// How far a service has come.
pub(super) fn phase(service: ServiceSeen<'_>) -> Phase {
    if copies::is_copies(service) {
        return copies::phase(service);
    }
    let Some(appointment) = service.appointment() else { return Phase::Founding };
    if service.state.switchover.is_some() {
        return Phase::Switchover;
    }
    if service.state.forced.is_some() {
        return Phase::Electing;
    }
    let view = service.view();
    let begun = view.promised_max() > appointment.term;
    match verdict::judge(&view, appointment, service.seen.now) {
        Verdict::Dead(..) => return Phase::Electing,
        Verdict::Moving(_) | Verdict::Unknown(_) if begun => return Phase::Electing,
        Verdict::Moving(_) | Verdict::Unknown(_) | Verdict::Serving => {}
    }
    match appointment.phase {
        state::Phase::Appointed => Phase::Appointed,
        state::Phase::Active => Phase::Active,
    }
}

fn endpoints(service: ServiceSeen<'_>) -> Vec<Endpoint> {
    let Some((listen, read_listen)) = service.doors() else { return Vec::new() };
    let nodes = service.seen.config.nodes.iter();
    nodes
        .map(|(name, node)| Endpoint {
            node: name.clone(),
            listen: reachable(listen.on(node), node),
            read_listen: read_listen.map(|listen| reachable(listen.on(node), node)),
        })
        .collect()
}

/// One instance.
pub(super) fn instance_status(
    service: ServiceSeen<'_>,
    node: &NodeId,
    own_reason: OwnReason<'_>,
) -> InstanceStatus {
    let facts = service.instance(node);
    let with_data = facts.filter(|facts| facts.system.is_some());
    let (lag_bytes, lag_s) = lag(service, node, facts);
    InstanceStatus {
        node: node.clone(),
        role: role(service, node),
        state: instance_state(service, node),
        address: service.instance_address(node).unwrap_or_default(),
        timeline: with_data.map(|facts| facts.timeline),
        lsn: with_data.map(|facts| facts.flushed),
        lag_bytes,
        lag_s,
        in_commit_quorum: in_commit_quorum(service, node),
        awaited: is_awaited(service, node),
        reason: reason::reason(service, node, own_reason),
    }
}

/// What a node's instance is in the present term.
pub(super) fn role(service: ServiceSeen<'_>, node: &NodeId) -> InstanceRole {
    let spec = service.seen.agreed.spec.nodes.get(node);
    if spec.is_some_and(|spec| spec.role == NodeRole::Witness) {
        InstanceRole::Witness
    } else if copies::is_copies(service) {
        InstanceRole::Copy
    } else if singleton::is_command(service) {
        singleton::role(service, node)
    } else if service.appointment().is_some_and(|appointment| appointment.primary == *node) {
        InstanceRole::Primary
    } else {
        InstanceRole::Standby
    }
}

/// What a node's instance does.
pub(super) fn instance_state(service: ServiceSeen<'_>, node: &NodeId) -> InstanceState {
    match role(service, node) {
        InstanceRole::Witness => return InstanceState::Absent,
        InstanceRole::Copy => return copies::instance_state(service, node),
        InstanceRole::Primary
        | InstanceRole::Active
        | InstanceRole::Passive
        | InstanceRole::Standby
        | InstanceRole::Replica
        | InstanceRole::Unknown => {}
    }
    let Some(facts) = service.instance(node) else { return InstanceState::Unknown };
    if singleton::is_command(service) {
        return singleton::instance_state(service, facts);
    }
    match &facts.data {
        Data::Quarantined { .. } | Data::Foreign => return InstanceState::Quarantined,
        Data::Suspect { .. } => return InstanceState::Suspect,
        Data::Copying { .. } => return InstanceState::Cloning,
        Data::Witness => return InstanceState::Absent,
        Data::Empty if facts.process == Process::Stopped => return InstanceState::Absent,
        Data::Empty | Data::Present | Data::Mixed => {}
    }
    let is_up = matches!(facts.process, Process::Primary | Process::Standby);
    if is_up && matches!(facts.health, Health::Hung(_) | Health::DiskStuck(_)) {
        return InstanceState::Hung;
    }
    match facts.process {
        Process::Stopped => InstanceState::Stopped,
        Process::Starting => InstanceState::Starting,
        Process::Promoting => InstanceState::Promoting,
        Process::Stopping => InstanceState::Stopping,
        Process::Primary if facts.serving == Some(service.state.term()) => InstanceState::Running,
        Process::Primary => InstanceState::Promoting,
        Process::Standby => standby_state(service, facts),
    }
}

fn standby_state(service: ServiceSeen<'_>, facts: &InstanceFacts) -> InstanceState {
    if facts.ballot.is_some_and(|ballot| ballot.term > service.state.term()) {
        return InstanceState::Promised;
    }
    match facts.stream {
        Stream::Connected(silence) if silence <= service.spec.timing.suspicion * 2 => {
            InstanceState::Streaming
        }
        Stream::Connected(_) | Stream::None => InstanceState::Disconnected,
    }
}

fn lag(
    service: ServiceSeen<'_>,
    node: &NodeId,
    facts: Option<&InstanceFacts>,
) -> (Option<u64>, Option<f64>) {
    let Some(facts) = facts.filter(|facts| facts.system.is_some()) else { return (None, None) };
    if service.appointment().is_some_and(|appointment| appointment.primary == *node) {
        let serves = facts.process == Process::Primary;
        return if serves { (Some(0), Some(0.0)) } else { (None, None) };
    }
    let lag_bytes = service.lag_bytes(facts);
    let age = service.seen.facts.get(node).map_or(Duration::ZERO, |it| it.age(service.seen.now));
    (lag_bytes, facts.lag(lag_bytes, age).map(|lag| lag.as_secs_f64()))
}

/// Whether every rule that may be in force counts on the node.
pub(super) fn in_commit_quorum(service: ServiceSeen<'_>, node: &NodeId) -> bool {
    let Some(Appointment { primary, rules, phase, .. }) = service.appointment() else {
        return false;
    };
    if primary == node {
        return *phase == state::Phase::Active;
    }
    !rules.is_empty() && rules.iter().all(|rule| rule.standbys.contains(node))
}

/// Whether writes wait for a standby that the primary does not feed.
fn is_awaited(service: ServiceSeen<'_>, node: &NodeId) -> bool {
    let Some(rule) = service.appointment().and_then(|appointment| appointment.rules.last()) else {
        return false;
    };
    let Some(primary) = service.serving_primary() else { return false };
    let is_fed = |node: &NodeId| primary.replicas.get(node).is_some_and(|it| it.streaming);
    let fed = rule.standbys.iter().filter(|node| is_fed(node)).count();
    fed < rule.acks && rule.standbys.contains(node) && !is_fed(node)
}

/// What the owner should know, loudest first.
pub(super) fn warnings(service: ServiceSeen<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if service.seen.leadership.leader.is_none() {
        let me = &service.seen.me;
        warnings.push(format!("{me} knows of no leader: what it shows may be old"));
    }
    if copies::is_copies(service) {
        warnings.extend(copies::warnings(service));
        return paused(service, warnings);
    }
    let Some(appointment) = service.appointment() else { return warnings };
    let primary = &appointment.primary;
    if service.instance(primary).is_none() {
        warnings.push(format!("the primary {primary} is not heard by {}", service.seen.me));
    }
    if let (Some(rule), Some(own)) = (appointment.rules.last(), service.instance(primary)) {
        let streams = |node: &&NodeId| own.replicas.get(*node).is_some_and(|it| it.streaming);
        let streaming = rule.standbys.iter().filter(streams).count();
        if streaming < rule.acks {
            warnings.push(format!(
                "writes wait: each needs {} of {} standbys, and {streaming} stream",
                rule.acks,
                rule.standbys.len()
            ));
        }
        let (Durability::Quorum { acks } | Durability::Preferred { acks }) =
            service.spec.durability
        else {
            warnings.push("commits are confirmed by nobody else (async)".to_owned());
            return paused(service, warnings);
        };
        if rule.acks == 0 {
            warnings.push(format!(
                "commits are confirmed by nobody else: the loss of {primary}'s disk loses them"
            ));
        } else if rule.acks < acks {
            warnings.push(format!("commits are confirmed by {} of {acks} standbys", rule.acks));
        }
    }
    paused(service, warnings)
}

/// Nobody takes over by itself, as the configuration is (H47).
fn no_failover(service: ServiceSeen<'_>) -> Option<String> {
    let found = service.seen.config.warnings.iter().find(|it| it.code == Code::NoFailover)?;
    Some(format!("no automatic failover: {}", found.because))
}

/// Nodes where a part of the agreed configuration waits, or is not taken.
fn not_in_force(service: ServiceSeen<'_>) -> Option<String> {
    let (seen, version) = (service.seen, service.seen.agreed.config_version);
    let is_behind =
        |node: &&NodeId| seen.fresh(node).is_some_and(|facts| facts.config_version < version);
    let nodes = seen.agreed.spec.nodes.keys().filter(is_behind);
    let nodes: Vec<&str> = nodes.map(NodeId::as_str).collect();
    let nodes = nodes.join(", ");
    let what = format!("parts of configuration {version} wait on {nodes}: see tandem doctor");
    (!nodes.is_empty()).then_some(what)
}

fn paused(service: ServiceSeen<'_>, mut warnings: Vec<String>) -> Vec<String> {
    if service.state.paused {
        warnings.push("automatic failover is paused".to_owned());
    }
    warnings
}
