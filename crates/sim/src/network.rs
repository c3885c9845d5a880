//! Decides what arrives: cuts in either direction, loss, delay, reordering; carries heartbeats.

use crate::event::{Event, Micros};
use crate::invariants;
use crate::node::hub::Told;
use crate::world::{World, name};
use std::rc::Rc;
use std::time::Duration;
use tandem_core::facts::{NodeFacts, Told as Order};
use tandem_core::time::Timestamp;

/// Between two heartbeats when nothing changes.
const BEAT: Micros = 100_000;
/// An answer that takes longer proves nothing.
const DEADLINE: Duration = Duration::from_secs(1);

/// What the network does.
#[derive(Clone, Debug)]
pub struct Net {
    cut: Vec<Vec<bool>>,
    stream_cut: Vec<Vec<bool>>,
    /// Percent of messages lost.
    pub loss_percent: u64,
    /// Greatest delay of a message.
    pub delay_max: Micros,
}

impl Net {
    /// A network in which all works.
    pub fn new(nodes: usize) -> Self {
        Self {
            cut: vec![vec![false; nodes]; nodes],
            stream_cut: vec![vec![false; nodes]; nodes],
            loss_percent: 0,
            delay_max: 3_000,
        }
    }

    /// Whether messages get from one node to another.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.cut[from][to]
    }

    /// Whether both hear each other.
    pub fn both(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// Whether replication connections work.
    pub fn streams(&self, a: usize, b: usize) -> bool {
        self.both(a, b) && !self.stream_cut[a.min(b)][a.max(b)]
    }

    /// Cuts or mends one direction.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from][to] = cut;
    }

    /// Cuts or mends replication only.
    pub fn set_stream_cut(&mut self, a: usize, b: usize, cut: bool) {
        self.stream_cut[a.min(b)][a.max(b)] = cut;
    }
}

impl World {
    /// What a node says of itself now.
    pub fn own_facts(&self, n: usize) -> Option<NodeFacts> {
        let node = &self.nodes[n];
        let daemon = node.daemon.as_ref()?;
        let now = node.clock.at(self.now);
        let state = self.agreed(n);
        let told = Told {
            service: &self.service,
            instance: &daemon.own,
            age: now.since(daemon.observed_at),
            config_version: state.config_version,
            draining: state.draining.contains(&node.id),
            order: Order { start: node.daemons.into(), number: self.events },
        };
        Some(daemon.hub.own(&node.id, told, now))
    }

    /// The regular heartbeat.
    pub fn on_beat_tick(&mut self, n: usize, inc: u32) {
        if !self.is_daemon(n, inc) {
            return;
        }
        let jitter = self.rng.between(0, 3_000);
        self.queue.push(self.now + BEAT + jitter, Event::BeatTick { n, inc });
        self.beat(n);
        self.dial(n);
    }

    /// A heartbeat because something changed.
    pub fn on_beat_now(&mut self, n: usize, inc: u32) {
        if !self.is_daemon(n, inc) {
            return;
        }
        if let Some(daemon) = self.nodes[n].daemon.as_mut() {
            daemon.beat_planned = false;
        }
        self.beat(n);
    }

    fn beat(&mut self, n: usize) {
        let Some(facts) = self.own_facts(n).map(Rc::new) else { return };
        invariants::promises::check(self, n, &facts);
        let (inc, sent) = (self.nodes[n].daemons, self.nodes[n].clock.at(self.now));
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            let facts = facts.clone();
            self.send(n, peer, Event::BeatRequest { to: peer, from: n, inc, sent, facts });
        }
    }

    /// A message takes its time, may overtake others, and may be lost.
    pub fn send(&mut self, from: usize, to: usize, event: Event) {
        let lost = self.rng.chance(self.net.loss_percent);
        if lost || !self.net.passes(from, to) || !self.nodes[to].powered {
            return;
        }
        let delay = self.rng.between(200, self.net.delay_max);
        self.queue.push(self.now + delay, event);
    }

    /// A connection that is refused is told; one that is not answered is not.
    fn dial(&mut self, n: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            let other = &self.nodes[peer];
            let refuses = other.powered && !other.frozen && other.daemon.is_none();
            if refuses && self.net.both(n, peer) {
                let inc = self.nodes[n].daemons;
                self.after(0, 20_000, Event::Refused { n, inc, peer, refused: true });
            }
        }
    }

    /// The peers of a daemon that died see their connections reset and refused.
    pub fn daemon_is_refused(&mut self, n: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            if self.net.both(n, peer) {
                let inc = self.nodes[peer].daemons;
                let refused = Event::Refused { n: peer, inc, peer: n, refused: true };
                self.after(500, 30_000, refused);
            }
        }
    }

    /// A connection was refused.
    pub fn on_refused(&mut self, n: usize, inc: u32, (peer, refused): (usize, bool)) {
        if !self.is_daemon(n, inc) || self.nodes[peer].daemon.is_some() {
            return;
        }
        let now = self.nodes[n].clock.at(self.now);
        let peer = name(peer).into();
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if daemon.hub.refused(&peer, refused, now) {
            self.plan_beat(n);
            self.hub_changed(n);
        }
    }

    /// A heartbeat came: heard, then answered.
    pub fn on_request(&mut self, to: usize, from: usize, beat: (u32, Timestamp, Rc<NodeFacts>)) {
        let (inc, sent, facts) = beat;
        let now = self.nodes[to].clock.at(self.now);
        let service = self.service.clone();
        let Some(daemon) = self.nodes[to].daemon.as_mut() else { return };
        let changed = daemon.hub.heard((*facts).clone(), &service, now);
        let Some(own) = self.own_facts(to).map(Rc::new) else { return };
        invariants::promises::check(self, to, &own);
        let peer = self.nodes[from].id.clone();
        if let Some(daemon) = self.nodes[to].daemon.as_mut() {
            daemon.hub.answered(&peer, now);
        }
        self.send(to, from, Event::BeatAnswer { to: from, from: to, inc, sent, facts: own });
        if changed {
            self.hub_changed(to);
        }
    }

    /// The answer came: first what it says, then that it acknowledges.
    pub fn on_answer(&mut self, to: usize, from: usize, beat: (u32, Timestamp, Rc<NodeFacts>)) {
        let (inc, sent, facts) = beat;
        let now = self.nodes[to].clock.at(self.now);
        if !self.is_daemon(to, inc) || now.since(sent) > DEADLINE {
            return;
        }
        let (service, peer) = (self.service.clone(), self.nodes[from].id.clone());
        let Some(daemon) = self.nodes[to].daemon.as_mut() else { return };
        let outlives = facts.instances.get(&service).and_then(|own| own.outlives);
        let changed = daemon.hub.heard((*facts).clone(), &service, now);
        daemon.hub.acknowledged(&peer, sent, outlives);
        if changed {
            self.hub_changed(to);
        }
    }

    /// Tell the others soon.
    pub fn plan_beat(&mut self, n: usize) {
        let inc = self.nodes[n].daemons;
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if !daemon.beat_planned {
            daemon.beat_planned = true;
            self.after(50, 2_000, Event::BeatNow { n, inc });
        }
    }
}
