//! Reads a story. One line per fact; a line of `when` changes what `given` said.
//!
//! For the service: `durability quorum 1 | preferred 1 | async 100, 5000 ms`, `leader c`,
//! `term 3 is a, active | appointed`, `rule a waits for 1 of b c`, `switchover to b`, `paused`,
//! `draining a`, `primaries of late: 4, each for 2 s`, `nothing is agreed`, `failover demanded`,
//! `failover demanded to c`.
//! For a node: `b: ` and words separated by commas, as in `Node::word`.

use super::words::{appointed, before_barrier, millis, number, stop, timeline, told};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::cluster::state::{Appointment, Forced, Phase, ServiceState, Switchover};
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::clustering::active_passive::{ControllerView, InstanceView, controller, instance};
use tandem_core::facts::{
    Ballot, Data, Health, InstanceFacts, Link, NodeFacts, Position, Process, Replica, Stream, Told,
    ToldEnd,
};
use tandem_core::ids::{ConfigVersion, NodeId, Revision, ServiceId, SystemId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;
use tandem_core::spec::{Durability, NodeRole, NodeSpec, ServiceSpec, Timing};
use tandem_core::time::{Observed, Timestamp};

const NOW: Timestamp = Timestamp(1_000_000_000);
const NOW_MS: u64 = 1_700_000_000_000;

type Heard = BTreeMap<NodeId, Observed<NodeFacts>>;

/// A cluster at one moment.
pub struct Story {
    leader: NodeId,
    durability: Durability,
    state: ServiceState,
    draining: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Clone)]
struct Node {
    facts: InstanceFacts,
    links: BTreeMap<NodeId, Link>,
    silence_ms: Option<u64>,
    asked: Option<Term>,
    unheard: bool,
    said: Vec<(Lsn, Duration)>,
    priority: u32,
    zone: Option<String>,
}

impl Story {
    /// The story, or the line that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let state = ServiceState {
            revision: Revision(7),
            system: Some(SystemId(1)),
            ..ServiceState::default()
        };
        let mut story = Self {
            leader: "c".into(),
            durability: Durability::Quorum { acks: 1 },
            state,
            draining: BTreeSet::new(),
            nodes: BTreeMap::new(),
        };
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') || line == "given" || line == "when" {
                continue;
            }
            story.line(line).ok_or_else(|| format!("not understood: {line}"))?;
        }
        story.connect();
        Ok(story)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        if let Some((name, words)) = line.split_once(": ").filter(|(name, _)| name.len() == 1) {
            let node = self.nodes.entry(name.into()).or_insert_with(Node::new);
            return words.split(", ").try_for_each(|word| node.word(word));
        }
        let words: Vec<&str> = line.split([' ', ',', ':']).filter(|w| !w.is_empty()).collect();
        match words.as_slice() {
            ["durability", "quorum", n] => {
                self.durability = Durability::Quorum { acks: n.parse().ok()? };
            }
            ["durability", "preferred", n] => {
                self.durability = Durability::Preferred { acks: n.parse().ok()? };
            }
            ["durability", "async", bytes, ms, "ms"] => {
                let (lag_bytes_max, lag_max) = (bytes.parse().ok()?, millis(ms)?);
                self.durability = Durability::Async { lag_bytes_max, lag_max };
            }
            ["leader", node] => self.leader = (*node).into(),
            ["nothing", "is", "agreed"] => {
                self.state = ServiceState { revision: Revision(7), ..ServiceState::default() };
            }
            ["term", term, "is", node, phase] => self.appoint(number(term)?, node, phase)?,
            ["rule", node, "waits", "for", acks, "of", standbys @ ..] => {
                let rule = CommitRule {
                    primary: (*node).into(),
                    standbys: standbys.iter().map(|name| NodeId::from(*name)).collect(),
                    acks: acks.parse().ok()?,
                };
                self.state.appointment.as_mut()?.rules.push(rule);
            }
            ["switchover", "to", node] => {
                let deadline_unix_ms = NOW_MS + 10_000;
                self.state.switchover = Some(Switchover { to: (*node).into(), deadline_unix_ms });
            }
            ["failover", "demanded", to @ ..] => {
                let to = match to {
                    ["to", node] => Some(NodeId::from(*node)),
                    [] => None,
                    _ => return None,
                };
                let deadline_unix_ms = NOW_MS + 10_000;
                let forced = Forced { to, accept_loss: false, deadline_unix_ms };
                self.state.forced = Some(forced);
            }
            ["paused"] => self.state.paused = true,
            ["draining", node] => {
                self.draining.insert((*node).into());
            }
            ["primaries", "of", "late", count, "each", "for", seconds, "s"] => {
                self.flap(count.parse().ok()?, seconds.parse().ok()?)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn appoint(&mut self, term: Term, node: &str, phase: &str) -> Option<()> {
        let phase = match phase {
            "active" => Phase::Active,
            "appointed" => Phase::Appointed,
            _ => return None,
        };
        let primary = NodeId::from(node);
        let at_unix_ms = NOW_MS - 60_000;
        self.state.history = vec![appointed(term, &primary, at_unix_ms)];
        self.state.appointment = Some(Appointment { term, primary, rules: Vec::new(), phase });
        Some(())
    }

    fn flap(&mut self, count: u64, seconds: u64) -> Option<()> {
        let appointment = self.state.appointment.as_ref()?;
        let (last, primary) = (appointment.term.0, appointment.primary.clone());
        self.state.history = (0..count)
            .rev()
            .map(|ago| appointed(Term(last - ago), &primary, NOW_MS - (ago * seconds + 1) * 1000))
            .collect();
        Some(())
    }

    /// What follows from what was said: standbys at their primary, and links that nobody spoke of.
    fn connect(&mut self) {
        let rule = self.state.appointment.as_ref().and_then(|a| a.rules.last().cloned());
        let fed: Vec<(NodeId, NodeId, Lsn)> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.facts.stream != Stream::None && !node.unheard)
            .filter_map(|(id, node)| {
                let (upstream, _) = node.facts.upstream.clone()?;
                Some((upstream, id.clone(), node.facts.flushed))
            })
            .collect();
        let all: Vec<(NodeId, bool)> =
            self.nodes.iter().map(|(id, node)| (id.clone(), node.unheard)).collect();
        for (id, node) in &mut self.nodes {
            node.facts.revision = self.state.revision;
            if node.facts.process == Process::Primary {
                node.facts.rule = node.facts.rule.take().or_else(|| rule.clone());
                for (_, standby, flushed) in fed.iter().filter(|(upstream, _, _)| upstream == id) {
                    let replica =
                        Replica { flushed: *flushed, replayed: *flushed, streaming: true };
                    node.facts.replicas.insert(standby.clone(), replica);
                }
            }
            for (peer, unheard) in all.iter().filter(|(peer, _)| peer != id) {
                let link: fn(Duration) -> Link = if *unheard { Link::Never } else { Link::Up };
                node.links.entry(peer.clone()).or_insert(link(Duration::ZERO));
            }
        }
    }

    /// The plan of the controller, then of every node.
    pub fn plans(&self) -> String {
        let service = ServiceId::from("orders");
        let facts: Heard = self
            .nodes
            .iter()
            .filter(|(_, node)| !node.unheard)
            .map(|(id, node)| (id.clone(), node.told(id, &service)))
            .collect();
        let specs = self.nodes.iter().map(|(id, node)| (id.clone(), node.spec())).collect();
        let Ok(pairing) =
            Pairing::new(Kind::Postgres, Clustering::ActivePassive, Replication::PrimaryReplica)
        else {
            panic!("the pair is refused")
        };
        let timing = Timing::default();
        let spec = ServiceSpec::new(pairing, self.durability, timing);
        let view = ControllerView {
            me: &self.leader,
            service: &service,
            spec: &spec,
            nodes: &specs,
            draining: &self.draining,
            state: &self.state,
            services: &BTreeMap::new(),
            facts: &facts,
            trails: &self.trails(&facts, &service),
            unix_ms: NOW_MS,
        };
        let plan = controller::plan(&view, NOW);
        let mut text = format!("  controller on {}: {}\n", self.leader, told(&plan.reason));
        for step in &plan.steps {
            text += &format!("    {step}\n");
        }
        for (id, node) in self.nodes.iter().filter(|(_, node)| !node.unheard) {
            text += &self.plan_of(id, node, &facts, &service);
        }
        text
    }

    /// What the controller remembers: what `said` says, and what was heard last.
    fn trails(&self, facts: &BTreeMap<NodeId, Observed<NodeFacts>>, service: &ServiceId) -> Trails {
        let mut trails = Trails::default();
        for (id, node) in &self.nodes {
            for (flushed, ago) in &node.said {
                let process = Process::Primary;
                let (flushed, flushed_at) = (*flushed, NOW.minus(*ago));
                let facts = node.facts.clone();
                trails.note(id, 0, &InstanceFacts { process, flushed, flushed_at, ..facts });
            }
            if let Some(heard) = facts.get(id) {
                let own = &heard.last_known().instances[service];
                let flushed_at = NOW.minus(heard.age(NOW));
                trails.note(id, 0, &InstanceFacts { flushed_at, ..own.clone() });
            }
        }
        trails
    }

    fn plan_of(&self, id: &NodeId, node: &Node, facts: &Heard, service: &ServiceId) -> String {
        let timing = Timing::default();
        let primary = self.state.appointment.as_ref().map(|appointment| &appointment.primary);
        let primary = primary
            .filter(|primary| *primary != id)
            .and_then(|primary| facts.get(primary)?.fresh(NOW, timing.suspicion))
            .and_then(|facts| facts.instances.get(service));
        let own = &node.facts;
        let state = &self.state;
        let asked = node.asked;
        let view = InstanceView { me: id, timing, state, own, primary, asked };
        let next = instance::plan(&view);
        match next.action {
            Some(action) => format!("  {id}: {}\n    {action}\n", told(&next.reason)),
            None => format!("  {id}: {}\n", told(&next.reason)),
        }
    }
}

impl Node {
    fn new() -> Self {
        let facts = InstanceFacts {
            data: Data::Present,
            system: Some(SystemId(1)),
            timeline: TimelineId(1),
            ..InstanceFacts::default()
        };
        Self {
            facts,
            links: BTreeMap::new(),
            silence_ms: None,
            asked: None,
            unheard: false,
            said: Vec::new(),
            priority: 100,
            zone: None,
        }
    }

    fn spec(&self) -> NodeSpec {
        let is_witness = self.facts.data == Data::Witness;
        let role = if is_witness { NodeRole::Witness } else { NodeRole::Data };
        NodeSpec { role, zone: self.zone.clone(), priority: self.priority, capacity: 1 }
    }

    fn told(&self, id: &NodeId, service: &ServiceId) -> Observed<NodeFacts> {
        let facts = NodeFacts {
            ended: Default::default(),
            node: id.clone(),
            told: Told::default(),
            config_version: ConfigVersion(1),
            links: self.links.clone(),
            instances: [(service.clone(), self.facts.clone())].into(),
            draining: false,
            doors: BTreeMap::new(),
        };
        Observed::new(facts, NOW.minus(Duration::from_millis(self.silence_ms.unwrap_or(0))))
    }

    /// What few stories need.
    fn rare_word(&mut self, words: &[&str]) -> Option<()> {
        let facts = &mut self.facts;
        match words {
            ["said", position, ms, "ms", "ago"] => {
                self.said.push((Lsn(position.parse().ok()?), millis(ms)?));
            }
            ["heard", node, "say", position, ms, "ms", "ago"] => {
                let flushed = Lsn(position.parse().ok()?);
                let position = Position { data_term: facts.data_term, flushed };
                let told = ToldEnd { position, run: 0, at: NOW.minus(millis(ms)?) };
                facts.ends.insert((*node).into(), told);
            }
            ["hung", "for", ms, "ms"] => facts.health = Health::Hung(millis(ms)?),
            ["disk", "stuck", "for", ms, "ms"] => facts.health = Health::DiskStuck(millis(ms)?),
            ["disk", "full"] => facts.health = Health::DiskFull,
            ["not", "checkpointed"] => facts.checkpointed = false,
            ["timeline", number, "from", end] => timeline(facts, number, Some(end))?,
            ["timeline", number] => timeline(facts, number, None)?,
            ["connections", "used", "up"] => facts.health = Health::ConnectionsUsedUp,
            _ => return None,
        }
        Some(())
    }

    /// One thing about a node.
    fn word(&mut self, word: &str) -> Option<()> {
        let facts = &mut self.facts;
        let words: Vec<&str> = word.split_whitespace().collect();
        match words.as_slice() {
            ["primary", "of", "term", term] => {
                let term = number(term)?;
                facts.process = Process::Primary;
                (facts.promised, facts.promoted) = (term, term);
                (facts.timeline_term, facts.data_term) = (term, term);
                facts.serving = Some(term);
                (facts.checkpointed, facts.was_primary) = (true, true);
            }
            ["standby", "of", upstream, "in", "term", term] => {
                let term = number(term)?;
                facts.process = Process::Standby;
                facts.upstream = Some(((*upstream).into(), term));
                (facts.followed, facts.promised, facts.data_term) = (term, term, term);
                facts.stream = Stream::Connected(Duration::ZERO);
            }
            ["standby", "of", "nobody"] => {
                facts.process = Process::Standby;
                (facts.upstream, facts.stream) = (None, Stream::None);
            }
            ["witness"] => *facts = InstanceFacts { data: Data::Witness, ..Default::default() },
            ["failed", "to", "rejoin", times, "times"] => {
                facts.rejoin_failures = times.parse().ok()?;
            }
            ["quarantined"] => facts.data = Data::Quarantined { reason: "it says why".into() },
            ["disk", "suspect"] => facts.data = Data::Suspect { reason: "fsync failed".into() },
            ["data", "not", "made", "here"] => facts.data = Data::Foreign,
            ["of", "database", number] => facts.system = Some(SystemId(number.parse().ok()?)),
            ["empty"] => *facts = InstanceFacts::default(),
            ["stopped"] => stop(facts, false),
            ["stopped", "cleanly"] => stop(facts, true),
            ["before", "the", "barrier"] => before_barrier(facts),
            ["promoted", "for", term] => facts.promoted = number(term)?,
            ["at", position] => {
                facts.flushed = Lsn(position.parse().ok()?);
                facts.replayed = facts.flushed;
            }
            ["not", "fed"] => facts.stream = Stream::None,
            ["not", "fed", "for", ms, "ms"] => {
                (facts.stream, facts.stalled) = (Stream::None, millis(ms)?);
            }
            ["asked", "to", "promise", term] => self.asked = Some(number(term)?),
            ["votes", "in", "term", term] => {
                let term = number(term)?;
                let position = Position { data_term: facts.data_term, flushed: facts.flushed };
                let position = (facts.data != Data::Witness).then_some(position);
                facts.promised = term;
                facts.ballot = Some(Ballot { term, position, held: None });
                (facts.upstream, facts.stream) = (None, Stream::None);
            }
            ["silent", "for", ms, "ms"] => self.silence_ms = Some(ms.parse().ok()?),
            ["unheard"] => self.unheard = true,
            ["priority", number] => self.priority = number.parse().ok()?,
            ["zone", name] => self.zone = Some((*name).into()),
            ["its", "copy", "was", "begun"] => facts.data = Data::Mixed,
            ["refused", "by", peer] => {
                self.links.insert((*peer).into(), Link::Refused(Duration::from_millis(20)));
            }
            ["hears", "nothing", "of", peer, "for", ms, "ms"] => {
                self.links.insert((*peer).into(), Link::Silent(millis(ms)?));
            }
            _ => return self.rare_word(&words),
        }
        Some(())
    }
}
