//! Decides what arrives, and carries heartbeats.
//! Keeps: INV-2, what is told as promised is on the disk.

use super::{Event, Mutation, What, World, name};
use crate::event::Micros;
use crate::node::hub::Told;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tandem_core::facts::{NodeFacts, Told as Order};
use tandem_core::time::Timestamp;

const BEAT: Micros = 100_000;
/// An answer that takes longer proves nothing.
const DEADLINE: Duration = Duration::from_secs(1);

impl World {
    /// What a node says of itself now.
    pub(super) fn own_facts(&self, n: usize) -> Option<NodeFacts> {
        let node = &self.nodes[n];
        let daemon = node.daemon.as_ref()?;
        let state = self.agreed(n);
        let order = Order { start: node.daemons.into(), number: self.events };
        let mut facts: Option<NodeFacts> = None;
        for (service, part) in self.services.iter().zip(&daemon.parts) {
            let told = Told {
                service,
                instance: &part.own,
                age: Duration::ZERO,
                config_version: state.config_version,
                draining: state.draining.contains(&node.id),
                order,
            };
            let own = part.hub.own(&node.id, told, node.clock.at(self.now));
            match &mut facts {
                Some(facts) => facts.instances.extend(own.instances),
                None => facts = Some(own),
            }
        }
        if let Some(facts) = &mut facts {
            facts.doors = match self.options.what {
                What::Alone => self.door(n),
                What::Divided(_) => BTreeMap::new(),
                What::Beside => [(self.services[0].clone(), daemon.door.uses.clone())].into(),
            };
        }
        facts
    }

    pub(super) fn on_beat_tick(&mut self, n: usize, inc: u32) {
        if !self.is_daemon(n, inc) {
            return;
        }
        let jitter = self.rng.between(0, 3_000);
        self.push(self.now + BEAT + jitter, Event::BeatTick { n, inc });
        self.beat(n);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            let other = &self.nodes[peer];
            let refuses = other.powered && !other.frozen && other.daemon.is_none();
            if refuses && self.net.both(n, peer) {
                self.after(0, 20_000, Event::Refused { n, inc, peer });
            }
        }
    }

    pub(super) fn on_beat_now(&mut self, n: usize, inc: u32) {
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
        self.check_promise(n, &facts);
        let (inc, sent) = (self.nodes[n].daemons, self.nodes[n].clock.at(self.now));
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            let facts = facts.clone();
            self.send(n, peer, Event::Request { to: peer, from: n, inc, sent, facts });
        }
    }

    fn check_promise(&mut self, n: usize, facts: &NodeFacts) {
        for s in 0..self.services.len() {
            let own = facts.instances.get(&self.services[s]);
            let told = own.map(|own| own.promised).unwrap_or_default();
            let kept = self.nodes[n].disks[s].promised;
            // With that mutation INV-12 must notice by itself.
            if told > kept && self.options.mutation != Some(Mutation::ForgetPromise) {
                self.violate(format!("INV-2: {} tells {told}, kept {kept}", name(n)));
            }
        }
    }

    /// A message takes its time, may overtake others, and may be lost.
    pub(super) fn send(&mut self, from: usize, to: usize, event: Event) {
        let lost = self.rng.chance(self.net.loss_percent);
        if lost || !self.net.passes(from, to) || !self.nodes[to].powered {
            return;
        }
        let delay_max = self.net.delay_max;
        self.after(200, delay_max, event);
    }

    /// The peers of a daemon that died see their connections reset and refused.
    pub(super) fn daemon_is_refused(&mut self, n: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            if self.net.both(n, peer) {
                let inc = self.nodes[peer].daemons;
                self.after(500, 30_000, Event::Refused { n: peer, inc, peer: n });
            }
        }
    }

    pub(super) fn on_refused(&mut self, n: usize, inc: u32, peer: usize) {
        if !self.is_daemon(n, inc) || self.nodes[peer].daemon.is_some() {
            return;
        }
        let now = self.nodes[n].clock.at(self.now);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let mut is_new = false;
        for part in &mut daemon.parts {
            is_new |= part.hub.refused(&name(peer).into(), true, now);
        }
        if is_new {
            self.plan_beat(n);
            self.hub_changed(n);
        }
    }

    /// A heartbeat came: heard, then answered.
    pub(super) fn on_request(
        &mut self,
        to: usize,
        from: usize,
        (inc, sent, facts): (u32, Timestamp, Rc<NodeFacts>),
    ) {
        let now = self.nodes[to].clock.at(self.now);
        let peer = self.nodes[from].id.clone();
        let Some(daemon) = self.nodes[to].daemon.as_mut() else { return };
        let mut changed = false;
        for (service, part) in self.services.iter().zip(&mut daemon.parts) {
            changed |= part.hub.heard((*facts).clone(), service, now);
            part.hub.answered(&peer, now);
        }
        let Some(mut own) = self.own_facts(to) else { return };
        if self.options.mutation != Some(Mutation::SupportWhoWasAway) {
            for (service, own) in &mut own.instances {
                own.outlives = own.outlives_for(facts.instances.get(service));
            }
        }
        let own = Rc::new(own);
        self.check_promise(to, &own);
        self.send(to, from, Event::Answer { to: from, inc, sent, facts: own });
        if changed {
            self.hub_changed(to);
            self.ask_for_proof(to);
        }
    }

    /// The answer came: first what it says, then that it acknowledges.
    pub(super) fn on_answer(&mut self, to: usize, inc: u32, sent: Timestamp, facts: &NodeFacts) {
        let now = self.nodes[to].clock.at(self.now);
        if !self.is_daemon(to, inc) || now.since(sent) > DEADLINE {
            return;
        }
        let Some(daemon) = self.nodes[to].daemon.as_mut() else { return };
        for (service, part) in self.services.iter().zip(&mut daemon.parts) {
            let outlives = facts.instances.get(service).and_then(|own| own.outlives);
            let _ = part.hub.heard(facts.clone(), service, now);
            part.hub.acknowledged(&facts.node, sent, outlives);
        }
        // The lease may have grown.
        self.hub_changed(to);
    }

    /// Tell the others soon.
    pub(super) fn plan_beat(&mut self, n: usize) {
        let inc = self.nodes[n].daemons;
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if !daemon.beat_planned {
            daemon.beat_planned = true;
            self.after(50, 2_000, Event::BeatNow { n, inc });
        }
    }
}
