//! Tests of the operations with made-up facts: three nodes, one service, no node that runs.

mod balanced;
mod candidates;
mod copies;
mod divided;
mod doctor;
mod endpoints;
mod explain;
mod metrics;
mod outcomes;
mod role;
mod status;
mod watcher;

use super::seen::{Seen, ServiceSeen};
use crate::config::Config;
use crate::consensus::Leadership;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::command::{self, Command, ServiceCommand};
use tandem_core::cluster::state::{Appointment, Cause, ClusterState, Phase, ServiceState};
use tandem_core::facts::{Data, Health, InstanceFacts, Link, NodeFacts, Process, Replica, Stream};
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId, SystemId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;
use tandem_core::time::{Observed, Timestamp};

pub(super) const NOW: Timestamp = Timestamp(100_000_000);
const UNIX_MS: u64 = 1_800_000_000_000;
const SYSTEM: SystemId = SystemId(7);

pub(super) const THREE: &str = r#"
cluster = "shop"
[nodes.a]
address = "10.0.0.1:7400"
zone = "x"
[nodes.b]
address = "10.0.0.2:7400"
[nodes.c]
address = "10.0.0.3:7400"
[services.orders]
kind = "postgres"
clustering = "active-passive"
replication = "primary-replica"
listen = 5432
port = 6432
"#;

pub(super) fn orders() -> ServiceId {
    "orders".into()
}

/// A healthy cluster as node `me` sees it: `a` is primary in term 1, `b` and `c` stream.
pub(super) fn healthy(me: &str) -> Seen {
    cluster(THREE, me)
}

pub(super) fn cluster(text: &str, me: &str) -> Seen {
    let config = Config::parse(text, "tandem.toml").unwrap();
    let mut state = ClusterState::default();
    let found = command::Config { text: text.to_owned(), spec: config.spec() };
    state.apply(&Command::Found { cluster: "00".into(), config: Box::new(found) });
    let mut seen = Seen {
        me: me.into(),
        leadership: Leadership {
            leader: Some("a".into()),
            raft_term: 3,
            me_leads: me == "a",
            voters: config.nodes.keys().cloned().collect(),
            ..Leadership::default()
        },
        config: Arc::new(config),
        agreed: Arc::new(state),
        facts: BTreeMap::new(),
        trails: BTreeMap::new(),
        now: NOW,
        unix_ms: UNIX_MS,
    };
    agree(&mut seen, appoint(1, "a", Cause::Founded, vec![rule("a", &["b", "c"])]));
    activate(&mut seen);
    let nodes: Vec<NodeId> = seen.config.nodes.keys().cloned().collect();
    for node in &nodes {
        let links = nodes.iter().filter(|it| *it != node).map(|it| (it.clone(), up())).collect();
        let own = if node.as_str() == "a" { primary(1, &["b", "c"]) } else { standby("a", 1) };
        let facts = NodeFacts {
            ended: Default::default(),
            node: node.clone(),
            told: tandem_core::facts::Told::default(),
            config_version: ConfigVersion(1),
            links,
            instances: [(orders(), own)].into(),
            draining: false,
            doors: BTreeMap::new(),
        };
        seen.facts.insert(node.clone(), Observed::new(facts, NOW));
    }
    seen
}

fn up() -> Link {
    Link::Up(Duration::from_millis(10))
}

pub(super) fn rule(primary: &str, standbys: &[&str]) -> CommitRule {
    let standbys = standbys.iter().map(|node| NodeId::from(*node)).collect();
    CommitRule { primary: primary.into(), standbys, acks: 1 }
}

pub(super) fn appoint(
    term: u64,
    primary: &str,
    cause: Cause,
    rules: Vec<CommitRule>,
) -> ServiceCommand {
    let appointment =
        Appointment { term: Term(term), primary: primary.into(), rules, phase: Phase::Appointed };
    ServiceCommand::Appoint {
        appointment,
        cause,
        reason: format!("{primary} was chosen"),
        system: Some(SYSTEM),
        at_unix_ms: UNIX_MS + term,
    }
}

pub(super) fn agree(seen: &mut Seen, command: ServiceCommand) {
    let mut state = ClusterState::clone(&seen.agreed);
    let expected = state.services[&orders()].revision;
    state.apply(&Command::Service { service: orders(), expected, command });
    seen.agreed = Arc::new(state);
}

/// The barrier of the present term is confirmed.
pub(super) fn activate(seen: &mut Seen) {
    let appointment = state(seen).appointment.unwrap();
    let rule = appointment.rules.last().cloned().unwrap();
    let (term, at_unix_ms) = (appointment.term, UNIX_MS + 500);
    agree(seen, ServiceCommand::Activate { term, rule, system: SYSTEM, at_unix_ms });
}

pub(super) fn state(seen: &Seen) -> ServiceState {
    seen.agreed.services[&orders()].clone()
}

pub(super) fn of(seen: &Seen) -> ServiceSeen<'_> {
    seen.service(&orders()).unwrap()
}

pub(super) fn primary(term: u64, fed: &[&str]) -> InstanceFacts {
    let replica = Replica { flushed: Lsn(900), replayed: Lsn(900), streaming: true };
    InstanceFacts {
        data: Data::Present,
        process: Process::Primary,
        system: Some(SYSTEM),
        timeline: TimelineId(2),
        flushed: Lsn(1000),
        replayed: Lsn(1000),
        data_term: Term(term),
        promised: Term(term),
        promoted: Term(term),
        serving: Some(Term(term)),
        rule: Some(rule("a", fed)),
        replicas: fed.iter().map(|node| (NodeId::from(*node), replica)).collect(),
        checkpointed: true,
        was_primary: true,
        ..InstanceFacts::default()
    }
}

pub(super) fn standby(primary: &str, term: u64) -> InstanceFacts {
    InstanceFacts {
        data: Data::Present,
        process: Process::Standby,
        system: Some(SYSTEM),
        timeline: TimelineId(2),
        flushed: Lsn(900),
        replayed: Lsn(800),
        data_term: Term(term),
        promised: Term(term),
        upstream: Some((primary.into(), Term(term))),
        stream: Stream::Connected(Duration::from_millis(20)),
        health: Health::Good,
        ..InstanceFacts::default()
    }
}

/// Changes what a node said, as heard just now.
pub(super) fn say(seen: &mut Seen, node: &str, change: impl FnOnce(&mut NodeFacts)) {
    let node = NodeId::from(node);
    let mut facts = seen.facts[&node].last_known().clone();
    change(&mut facts);
    seen.facts.insert(node, Observed::new(facts, seen.now));
}

/// Changes what a node said of its instance.
pub(super) fn instance(seen: &mut Seen, node: &str, change: impl FnOnce(&mut InstanceFacts)) {
    say(seen, node, |facts| change(facts.instances.get_mut(&orders()).unwrap()));
}

/// A node is silent from `seen.now` on: everybody else is heard again `later`.
pub(super) fn later(seen: &mut Seen, later: Duration, silent: &[&str]) {
    seen.now = seen.now.plus(later);
    let now = seen.now;
    for (node, observed) in &mut seen.facts {
        if !silent.contains(&node.as_str()) {
            let mut facts = observed.last_known().clone();
            for (peer, link) in &mut facts.links {
                if silent.contains(&peer.as_str()) {
                    *link = Link::Silent(later);
                }
            }
            *observed = Observed::new(facts, now);
        }
    }
}
