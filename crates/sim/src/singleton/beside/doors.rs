//! Drives the doors of copies: where each leads, and what it says to copies that withdraw.

use super::Event;
use crate::event::Micros;
use crate::singleton::{Event as Outer, Mutation, What, World};
use std::collections::{BTreeMap, BTreeSet};
use tandem_core::clustering::copies::door::{DoorView, look};
use tandem_core::facts::{DoorUse, door_differs};
use tandem_core::ids::NodeId;
use tandem_core::spec::Timing;

/// While somebody waits for what it has to end.
const SOON: Micros = 10_000;

/// The door of one node; lost with its daemon.
#[derive(Debug, Default)]
pub(crate) struct Door {
    /// Where it leads.
    pub takers: BTreeSet<NodeId>,
    /// What it says of copies that withdrew.
    pub uses: BTreeMap<NodeId, DoorUse>,
    planned: bool,
    /// It looks again once so much time has passed.
    soon: Option<Micros>,
}

impl World {
    /// The door looks soon: it is a task of its own.
    pub(crate) fn plan_guide(&mut self, n: usize) {
        let inc = self.nodes[n].daemons;
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if self.options.what == What::Beside && !std::mem::replace(&mut daemon.door.planned, true) {
            // Some daemons have much else to do.
            let most = if self.rng.chance(3) { 300_000 } else { 2_000 };
            self.after(20, most, Outer::Beside(Event::Guide { n, inc }));
        }
    }

    pub(super) fn on_guide(&mut self, n: usize, inc: u32) {
        if !self.is_daemon(n, inc) {
            return;
        }
        let now = self.nodes[n].clock.at(self.now);
        let facts = self.known(n, 0, now);
        let view = DoorView {
            me: &self.nodes[n].id,
            service: &self.services[0],
            facts: &facts,
            suspicion: Timing::of_command().suspicion,
        };
        let look = look(&view, now);
        let late = self.options.mutation == Some(Mutation::ObeyFirst);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        daemon.door.planned = false;
        daemon.door.soon = daemon.door.soon.filter(|at| *at > self.now);
        let before = std::mem::replace(&mut daemon.door.takers, look.takers.clone());
        if late && before != look.takers && self.rng.chance(50) {
            // Told at the next look.
            self.set_takers(n, before);
            self.plan_guide(n);
        }
        let count = |node: &NodeId| {
            let forgets = self.options.mutation == Some(Mutation::ForgetInFlight);
            Some(if forgets { 0 } else { self.in_flight(n, node) })
        };
        let uses = look.uses(count);
        self.tell_uses(n, uses);
    }

    fn set_takers(&mut self, n: usize, takers: BTreeSet<NodeId>) {
        if let Some(daemon) = self.nodes[n].daemon.as_mut() {
            daemon.door.takers = takers;
        }
    }

    fn tell_uses(&mut self, n: usize, uses: BTreeMap<NodeId, DoorUse>) {
        let inc = self.nodes[n].daemons;
        let waits = uses.values().any(|it| it.in_flight > 0);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let before = std::mem::replace(&mut daemon.door.uses, uses.clone());
        let soon = self.now + SOON;
        if waits && daemon.door.soon.is_none() {
            daemon.door.soon = Some(soon);
            self.push(soon, Outer::Beside(Event::Guide { n, inc }));
        }
        if door_differs(Some(&before), Some(&uses)) {
            self.plan_beat(n);
            self.hub_changed(n);
        }
    }
}
