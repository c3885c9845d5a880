//! Keeps what this node knows of itself and of the others, and wakes whoever plans on it.
//! In: own observations, peers' heartbeats, acknowledgements. Out: snapshots, `changed()`.
//! Keeps: INV-8 every fact has the time at which it was learnt, and a delayed one undoes no newer
//! one; a promise, once heard, is never forgotten, whatever order messages arrive in.
//! Not here: the sending (`heartbeat.rs`), decisions (the core).

mod doors;
mod leaving;
mod own_copy;

use crate::runtime::clock;
pub use doors::DoorWords;
use own_copy::OwnCopy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::cluster::lease;
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::facts::{
    Ended, InstanceFacts, Link, NodeFacts, Process, Stream, Told, differs, instance_differs,
};
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId, Term};
use tandem_core::spec::ServiceSpec;
use tandem_core::time::{Observed, Timestamp};
use tokio::sync::watch;

/// Between two heartbeats where the configuration does not say otherwise.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// Everything known, shared by the tasks of a node.
#[derive(Debug)]
pub struct Hub {
    me: NodeId,
    start: u64,
    known: Mutex<Known>,
    changed: watch::Sender<u64>,
    own_changed: watch::Sender<u64>,
    speaks: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    peers: BTreeMap<NodeId, Observed<NodeFacts>>,
    promised: BTreeMap<(NodeId, ServiceId), Term>,
    acknowledged: BTreeMap<NodeId, Acknowledged>,
    answered: BTreeMap<NodeId, Timestamp>,
    links: BTreeMap<NodeId, LinkFact>,
    instances: BTreeMap<ServiceId, (InstanceFacts, Timestamp)>,
    rest: BTreeSet<ServiceId>,
    copies: BTreeMap<ServiceId, OwnCopy>,
    doors: doors::Doors,
    leaving: leaving::Leaving,
    config_version: ConfigVersion,
    ended: Ended,
    draining: bool,
    heartbeat: Duration,
    said: u64,
    trails: BTreeMap<ServiceId, Trails>,
}

/// The last heartbeat that a peer acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Acknowledged {
    sent: Timestamp,
    /// Whose lease the peer would wait out, as it knew when it answered.
    outlives: BTreeMap<ServiceId, Option<Term>>,
}

/// What the connection to a peer is like, apart from when it was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LinkFact {
    known_since: Timestamp,
    refused_at: Option<Timestamp>,
    last_heard: Option<Timestamp>,
}

impl LinkFact {
    /// Nothing is known of it yet.
    fn new() -> Self {
        Self { known_since: clock::now(), refused_at: None, last_heard: None }
    }
}

impl Hub {
    /// An empty hub for this node.
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            start: clock::unix_ms(),
            known: Mutex::new(Known { heartbeat: HEARTBEAT, ..Known::default() }),
            changed: watch::Sender::new(0),
            own_changed: watch::Sender::new(0),
            speaks: AtomicBool::new(false),
        }
    }

    /// Waits until every service of `services` has something to say, `limit` at most; from then on
    /// this node speaks for itself.
    pub async fn settle(&self, services: &BTreeSet<ServiceId>, limit: Duration) {
        let mut published = self.own_changed();
        let all = async {
            while !services.iter().all(|it| self.known().instances.contains_key(it)) {
                if published.changed().await.is_err() {
                    return;
                }
            }
        };
        // What is missing by now is missing in what this node says, too.
        let _ = tokio::time::timeout(limit, all).await;
        self.speaks.store(true, Ordering::Release);
    }

    /// Whether heartbeats may be answered: before, an earlier daemon's words still stand.
    pub fn speaks(&self) -> bool {
        self.speaks.load(Ordering::Acquire)
    }

    /// This node.
    pub fn me(&self) -> &NodeId {
        &self.me
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it holds the lock; a poisoned one still holds whole values.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes when anything that plans depend on changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes when the others should be told at once.
    pub fn own_changed(&self) -> watch::Receiver<u64> {
        self.own_changed.subscribe()
    }

    /// A peer said this.
    pub fn heard(&self, facts: NodeFacts) {
        let now = clock::now();
        let mut known = self.known();
        for (service, instance) in &facts.instances {
            let promised = known.promised.entry((facts.node.clone(), service.clone())).or_default();
            *promised = (*promised).max(instance.promised);
        }
        let link = known.links.entry(facts.node.clone()).or_insert_with(LinkFact::new);
        link.last_heard = Some(now);
        link.refused_at = None;
        let older = |before: &Observed<NodeFacts>| facts.told.is_before(&before.last_known().told);
        if known.peers.get(&facts.node).is_some_and(older) {
            return;
        }
        for (service, instance) in &facts.instances {
            known.trails.entry(service.clone()).or_default().note(
                &facts.node,
                facts.told.start,
                instance,
            );
        }
        let before = known.peers.insert(facts.node.clone(), Observed::new(facts.clone(), now));
        drop(known);
        if before.is_none_or(|before| differs(before.last_known(), &facts)) {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// A peer answered a heartbeat that was sent at `sent` with these facts.
    pub fn acknowledged(&self, sent: Timestamp, facts: NodeFacts) {
        let told = facts.instances.iter();
        let outlives = told.map(|(service, own)| (service.clone(), own.outlives)).collect();
        let peer = facts.node.clone();
        // First what it says, then that it acknowledged: a promise in the answer must count.
        self.heard(facts);
        let mut known = self.known();
        let last = known.acknowledged.entry(peer).or_default();
        if sent >= last.sent {
            *last = Acknowledged { sent, outlives };
        }
    }

    /// This node answered a peer's heartbeat: until a lease later, the peer may rest on it.
    pub fn answered(&self, peer: &NodeId) {
        self.known().answered.insert(peer.clone(), clock::now());
    }

    /// When this node last answered a peer's heartbeat.
    pub fn answered_at(&self, peer: &NodeId) -> Option<Timestamp> {
        self.known().answered.get(peer).copied()
    }

    /// Whether a service of this node needs its lease proven whatever its copy does: a holder that
    /// waits for its next try starts only under one.
    pub fn rest(&self, service: &ServiceId, does: bool) {
        let mut known = self.known();
        if !does {
            known.rest.remove(service);
        } else if !known.rest.contains(service) {
            known.rest.insert(service.clone());
        }
    }

    /// Whether this node has, or may soon need, a lease, which only answers to its own heartbeats
    /// prove.
    pub fn rests_on_answers(&self) -> bool {
        let known = self.known();
        !known.rest.is_empty()
            || known.instances.values().any(|(own, _)| match own.process {
                // A command and the hook before it start under a lease.
                Process::Primary | Process::Promoting | Process::Starting | Process::Stopping => {
                    true
                }
                Process::Stopped | Process::Standby => {
                    own.ballot.is_some() || !own.stalled.is_zero()
                }
            })
    }

    /// When this node last answered each peer's heartbeat.
    pub fn answered_all(&self) -> BTreeMap<NodeId, Timestamp> {
        self.known().answered.clone()
    }

    /// A peer's machine refuses connections (true), or no longer does.
    pub fn refused(&self, peer: &NodeId, refused: bool) {
        let mut known = self.known();
        let link = known.links.entry(peer.clone()).or_insert_with(LinkFact::new);
        if link.refused_at.is_some() == refused {
            return;
        }
        link.refused_at = refused.then(clock::now);
        drop(known);
        self.wake();
    }

    /// What this node's instance is like now; the others are told at once if it matters.
    pub fn publish(&self, service: &ServiceId, facts: &InstanceFacts, observed_at: Timestamp) {
        let mut known = self.known();
        let before = known.instances.insert(service.clone(), (facts.clone(), observed_at));
        known.trails.entry(service.clone()).or_default().note(&self.me, self.start, facts);
        drop(known);
        if before.is_none_or(|(before, _)| instance_differs(&before, facts)) {
            self.wake();
        }
    }

    /// A service ended here: nothing is said of it any more.
    pub fn retire(&self, service: &ServiceId) {
        let mut known = self.known();
        known.copies.remove(service);
        known.instances.remove(service);
        known.rest.remove(service);
        known.leaving.forget(service);
        drop(known);
        self.wake();
    }

    /// The configuration this node has applied, and whether it is being emptied.
    pub fn configured(&self, version: ConfigVersion, draining: bool) {
        let mut known = self.known();
        known.config_version = version;
        known.draining = draining;
    }

    /// Of which services nothing is left here.
    pub fn nothing_left(&self, ended: Ended) {
        let is_new = {
            let mut known = self.known();
            let is_new = known.ended != ended;
            known.ended = ended;
            is_new
        };
        if is_new {
            self.wake();
        }
    }

    /// A heartbeat to every peer now: what it proves is waited for.
    pub fn nudge(&self) {
        self.own_changed.send_modify(|version| *version += 1);
    }

    fn wake(&self) {
        self.own_changed.send_modify(|version| *version += 1);
        self.changed.send_modify(|version| *version += 1);
    }

    /// What this node tells the others now.
    pub fn own(&self) -> NodeFacts {
        let now = clock::now();
        let mut known = self.known();
        known.said += 1;
        NodeFacts {
            node: self.me.clone(),
            told: Told { start: self.start, number: known.said },
            config_version: known.config_version,
            ended: known.ended.clone(),
            draining: known.draining,
            doors: known.doors.told(),
            links: known
                .links
                .iter()
                .map(|(peer, l)| (peer.clone(), link(*l, known.heartbeat, now)))
                .collect(),
            instances: known
                .instances
                .iter()
                .map(|(service, (facts, at))| {
                    let ends = known.trails.get(service).map(|trails| trails.ends());
                    let facts = aged(facts, now.since(*at));
                    let ends = ends.unwrap_or_default();
                    let seat = known.copies.get(service).map(|copy| copy.seat.clone());
                    let seat = seat.unwrap_or_default();
                    let told = InstanceFacts { ends, seat, ..facts };
                    (service.clone(), known.leaving.told(service, told))
                })
                .collect(),
        }
    }

    /// The same, as the answer to a peer's heartbeat.
    pub fn own_to(&self, peer: &NodeId) -> NodeFacts {
        let mut own = self.own();
        let known = self.known();
        let asker = known.peers.get(peer).map(|told| &told.last_known().instances);
        for (service, facts) in &mut own.instances {
            facts.outlives = facts.outlives_for(asker.and_then(|it| it.get(service)));
        }
        drop(known);
        own
    }

    /// What every node last said, this one included.
    pub fn everyone(&self) -> BTreeMap<NodeId, Observed<NodeFacts>> {
        let mut all = self.known().peers.clone();
        all.insert(self.me.clone(), Observed::new(self.own(), clock::now()));
        all
    }

    /// How far each primary of a service had come, and when, by its own clock (H1).
    pub fn trails(&self, service: &ServiceId) -> Trails {
        self.known().trails.get(service).cloned().unwrap_or_default()
    }

    /// Per peer that promised nothing later than `term` and supports its primary: when the
    /// heartbeat was sent that it last acknowledged.
    pub fn proof(
        &self,
        service: &ServiceId,
        spec: &ServiceSpec,
        term: Term,
    ) -> BTreeMap<NodeId, Timestamp> {
        let known = self.known();
        let supports = |peer: &NodeId, last: &Acknowledged| {
            let promised = known.promised.get(&(peer.clone(), service.clone()));
            let outlives = last.outlives.get(service).copied().flatten();
            promised.is_none_or(|promised| *promised <= term)
                && lease::supports(spec, term, outlives)
        };
        let all = known.acknowledged.iter();
        all.filter(|(peer, last)| supports(peer, last))
            .map(|(peer, last)| (peer.clone(), last.sent))
            .collect()
    }

    /// A node left the cluster.
    pub fn forget(&self, keep: &dyn Fn(&NodeId) -> bool) {
        let mut known = self.known();
        known.peers.retain(|node, _| keep(node));
        known.links.retain(|node, _| keep(node));
        known.acknowledged.retain(|node, _| keep(node));
        known.trails.values_mut().for_each(|trails| trails.retain(keep));
    }

    /// How often each peer should be heard.
    pub fn expect_every(&self, heartbeat: Duration) {
        self.known().heartbeat = heartbeat;
    }

    /// Peers whose connection is watched from now on.
    pub fn expect(&self, peer: &NodeId) {
        self.known().links.entry(peer.clone()).or_insert_with(LinkFact::new);
    }
}

fn link(fact: LinkFact, heartbeat: Duration, now: Timestamp) -> Link {
    let ago = |at: Option<Timestamp>| at.map(|at| now.since(at));
    let heard = ago(fact.last_heard).ok_or(now.since(fact.known_since));
    Link::new(ago(fact.refused_at), heard, heartbeat)
}

/// The same facts, told later than they were observed.
fn aged(facts: &InstanceFacts, age: Duration) -> InstanceFacts {
    let mut facts = facts.clone();
    if let Stream::Connected(silence) = facts.stream {
        facts.stream = Stream::Connected(silence.saturating_add(age));
    }
    facts
}
