//! Keeps what one daemon knows, as the shell's hub does: when it was learnt, promises for good.

use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::cluster::lease;
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::facts::{InstanceFacts, Link, NodeFacts, Stream, Told as Order, differs};
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId, Term};
use tandem_core::spec::ServiceSpec;
use tandem_core::time::{Observed, Timestamp};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_millis(100);

/// Everything that one daemon knows; lost with it.
#[derive(Debug, Default)]
pub struct Hub {
    /// What each node last said; the own facts are put in before each plan.
    pub facts: BTreeMap<NodeId, Observed<NodeFacts>>,
    promised: BTreeMap<NodeId, Term>,
    /// When the heartbeat was sent, and what the peer would wait out before it votes.
    acknowledged: BTreeMap<NodeId, (Timestamp, Option<Term>)>,
    answered: BTreeMap<NodeId, Timestamp>,
    links: BTreeMap<NodeId, LinkFact>,
    /// How far each primary had come, and when that was heard.
    pub trails: Trails,
}

#[derive(Clone, Copy, Debug, Default)]
struct LinkFact {
    known_since: Timestamp,
    refused_at: Option<Timestamp>,
    last_heard: Option<Timestamp>,
}

impl Hub {
    /// A hub that expects these peers from now on.
    pub fn new(peers: impl Iterator<Item = NodeId>, now: Timestamp) -> Self {
        let link = LinkFact { known_since: now, ..LinkFact::default() };
        let links = peers.map(|peer| (peer, link)).collect();
        Self { links, ..Self::default() }
    }

    /// A peer said this; whether a plan may depend on it.
    pub fn heard(&mut self, facts: NodeFacts, service: &ServiceId, now: Timestamp) -> bool {
        if let Some(instance) = facts.instances.get(service) {
            let promised = self.promised.entry(facts.node.clone()).or_default();
            *promised = (*promised).max(instance.promised);
        }
        let link = self.links.entry(facts.node.clone()).or_default();
        link.last_heard = Some(now);
        link.refused_at = None;
        let before = self.facts.get(&facts.node);
        if before.is_some_and(|before| facts.told.is_before(&before.last_known().told)) {
            return false;
        }
        if let Some(instance) = facts.instances.get(service) {
            self.trails.note(&facts.node, facts.told.start, instance);
        }
        let changed = before.is_none_or(|before| differs(before.last_known(), &facts));
        self.facts.insert(facts.node.clone(), Observed::new(facts, now));
        changed
    }

    /// A peer acknowledged a heartbeat that was sent at `sent`, and would wait out that term's
    /// lease.
    pub fn acknowledged(&mut self, peer: &NodeId, sent: Timestamp, outlives: Option<Term>) {
        let last = self.acknowledged.entry(peer.clone()).or_default();
        if sent >= last.0 {
            *last = (sent, outlives);
        }
    }

    /// This node answered a peer.
    pub fn answered(&mut self, peer: &NodeId, now: Timestamp) {
        self.answered.insert(peer.clone(), now);
    }

    /// When this node last answered each peer.
    pub const fn answered_all(&self) -> &BTreeMap<NodeId, Timestamp> {
        &self.answered
    }

    /// A peer's machine refuses connections, or no longer does; whether that is new.
    pub fn refused(&mut self, peer: &NodeId, refused: bool, now: Timestamp) -> bool {
        let link = self.links.entry(peer.clone()).or_default();
        if link.refused_at.is_some() == refused {
            return false;
        }
        link.refused_at = refused.then_some(now);
        true
    }

    /// What this node says of itself.
    pub fn own(&self, me: &NodeId, own: Told<'_>, now: Timestamp) -> NodeFacts {
        NodeFacts {
            ended: Default::default(),
            node: me.clone(),
            told: own.order,
            config_version: own.config_version,
            draining: own.draining,
            doors: BTreeMap::new(),
            links: self.links.iter().map(|(peer, l)| (peer.clone(), link(*l, BEAT, now))).collect(),
            instances: BTreeMap::from([(
                own.service.clone(),
                InstanceFacts { ends: self.trails.ends(), ..aged(own.instance, own.age) },
            )]),
        }
    }

    /// Per peer that promised nothing later than `term` and supports its primary: when the
    /// heartbeat was sent that it last acknowledged.
    pub fn proof(
        &self,
        spec: &ServiceSpec,
        term: Term,
        strangers: bool,
    ) -> BTreeMap<NodeId, Timestamp> {
        self.acknowledged
            .iter()
            .filter(|(peer, _)| self.promised.get(*peer).is_none_or(|promised| *promised <= term))
            .filter(|(_, (_, outlives))| strangers || lease::supports(spec, term, *outlives))
            .map(|(peer, (sent, _))| (peer.clone(), *sent))
            .collect()
    }
}

/// What a daemon puts into its heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The service.
    pub service: &'a ServiceId,
    /// The own copy.
    pub instance: &'a InstanceFacts,
    /// How old that is.
    pub age: Duration,
    /// The configuration applied.
    pub config_version: ConfigVersion,
    /// Takes no new work.
    pub draining: bool,
    /// Which of all that it says.
    pub order: Order,
}

fn link(fact: LinkFact, heartbeat: Duration, now: Timestamp) -> Link {
    let ago = |at: Option<Timestamp>| at.map(|at| now.since(at));
    let heard = ago(fact.last_heard).ok_or(now.since(fact.known_since));
    Link::new(ago(fact.refused_at), heard, heartbeat)
}

fn aged(facts: &InstanceFacts, age: Duration) -> InstanceFacts {
    let mut facts = facts.clone();
    if let Stream::Connected(silence) = facts.stream {
        facts.stream = Stream::Connected(silence.saturating_add(age));
    }
    facts
}
