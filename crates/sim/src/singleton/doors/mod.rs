//! Drives the door of each node: it leads sessions to the copy, as far as it knows where that is.
//! Keeps: INV-14, checked where a copy is asked to end by a plan: what it serves had its time.

use super::{Event, What, World, index, name};
use crate::event::Micros;
use std::collections::BTreeMap;
use tandem_core::clustering::active_passive::singleton::door::{DoorView, leads_to};
use tandem_core::facts::{DoorUse, NodeFacts};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::time::{Observed, Timestamp};

/// A door of which nothing old is on its way any more.
const SETTLED: Micros = 3_000_000;

/// What a door has at a node's copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    at: usize,
    until: Micros,
}

impl World {
    /// What the daemon of a node knows of all, itself included.
    pub(super) fn known(
        &self,
        n: usize,
        s: usize,
        now: Timestamp,
    ) -> BTreeMap<NodeId, Observed<NodeFacts>> {
        let Some(daemon) = &self.nodes[n].daemon else { return BTreeMap::new() };
        let mut facts = daemon.parts[s].hub.facts.clone();
        let own = self.own_facts(n).map(|own| (own.node.clone(), Observed::new(own, now)));
        facts.extend(own);
        facts
    }

    /// What its door has at copies that withdrew, as far as it has heard.
    pub(super) fn door(&self, n: usize) -> BTreeMap<ServiceId, BTreeMap<NodeId, DoorUse>> {
        let Some(daemon) = self.nodes[n].daemon.as_ref() else { return BTreeMap::new() };
        let (me, service) = (&self.nodes[n].id, &self.services[0]);
        let part = &daemon.parts[0];
        let others = part.hub.facts.iter().filter(|(node, _)| *node != me);
        let told = others.filter_map(|(node, facts)| {
            Some((node, facts.last_known().instances.get(service)?.withdrawn?))
        });
        let own = part.own.withdrawn.map(|withdrawn| (me, withdrawn));
        let uses = told.chain(own).map(|(node, obeys)| {
            let there = |it: &&Session| it.at == index(node) && it.until > self.now;
            let in_flight = daemon.sessions.iter().filter(there).count() as u32;
            (node.clone(), DoorUse { obeys, in_flight })
        });
        BTreeMap::from([(service.clone(), uses.collect())])
    }

    /// Where it leads a client that comes now.
    fn led_to(&self, n: usize) -> Option<usize> {
        let now = self.nodes[n].clock.at(self.now);
        let agreed = self.agreed(n);
        let service = &self.services[0];
        let spec = agreed.spec.services.get(service)?;
        let facts = self.known(n, 0, now);
        let (state, suspicion) = (agreed.services.get(service)?, spec.timing.suspicion);
        leads_to(&DoorView { service, state, facts: &facts, suspicion }, now).map(index)
    }

    /// A client comes, now and then.
    pub(super) fn lead(&mut self, n: usize) {
        if self.options.what != What::Alone || self.options.calm {
            return;
        }
        let Some(at) = self.led_to(n) else { return };
        let lasts = if self.rng.chance(5) { 30_000_000 } else { self.rng.between(1_000, 900_000) };
        let (until, inc) = (self.now + lasts, self.nodes[n].daemons);
        let now = self.now;
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        daemon.sessions.retain(|it| it.until > now);
        daemon.sessions.push(Session { at, until });
        // Who waits for its end hears of it at once.
        self.push(until, Event::BeatNow { n, inc });
    }

    /// A copy is asked to end by a plan: whoever it serves by a door that its node hears had as
    /// long as may be.
    pub(super) fn judge_stop(&mut self, n: usize) {
        let is_alone = self.options.what == What::Alone;
        let Some(daemon) = self.nodes[n].daemon.as_ref().filter(|_| is_alone) else { return };
        let now = self.nodes[n].clock.at(self.now);
        let part = &daemon.parts[0];
        let withdrawn = part.own.withdrawn;
        if withdrawn.is_some_and(|since| now >= since.plus(self.drain_max)) {
            return;
        }
        let suspicion = tandem_core::spec::Timing::of_command().suspicion;
        let is_heard = |m: usize| {
            let facts = part.hub.facts.get(&self.nodes[m].id);
            m == n || facts.is_some_and(|facts| facts.age(now) <= suspicion)
        };
        let has_one = |m: &usize| {
            let door = self.nodes[*m].daemon.as_ref();
            let door = door.filter(|door| self.now - door.since > SETTLED);
            let there = |it: &Session| it.at == n && it.until > self.now;
            door.is_some_and(|door| door.sessions.iter().any(there))
        };
        let cut = (0..self.nodes.len()).filter(|m| is_heard(*m)).find(has_one);
        if let Some(door) = cut {
            let (door, at) = (name(door), name(n));
            self.violate(format!("INV-14: a plan cuts what the door of {door} has on {at}"));
        }
    }
}
