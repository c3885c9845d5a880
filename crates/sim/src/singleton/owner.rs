//! Decides how the owner changes the configuration: the service out and in, with another lease; a
//! node out and in, as the product allows it.

use super::faults::Mend;
use super::{Event, FAULTS_UNTIL, World};
use crate::event::Micros;
use std::time::Duration;
use tandem_core::cluster::command::{Command, Config};
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::ControllerView;
use tandem_core::clustering::active_passive::singleton::FAILURES_MAX;
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::clustering::members::keeps_voters;
use tandem_core::spec::ClusterSpec;

impl World {
    /// The service is taken out, and comes back with a lease of its own.
    pub fn take_out(&mut self, lasts: Micros) {
        self.configure(|spec| spec.services.clear());
        // Some come back before anybody has seen that it was gone.
        let lasts = if self.rng.chance(50) { lasts / 100 } else { lasts };
        self.push(self.now + lasts, Event::Mend { kind: Mend::Owner });
    }

    /// A node is removed, or one that was comes back: one at a time.
    pub(super) fn change_members(&mut self, lasts: Micros) {
        if self.may_change() {
            let n = self.rng.below(self.nodes.len());
            let id = self.nodes[n].id.clone();
            let state = self.agreement.last();
            let holds = |state: &ServiceState| {
                let appointment = state.appointment.as_ref();
                state.partitions.is_none() && appointment.is_some_and(|it| it.primary == id)
            };
            // Who owns partitions is refused by what is agreed itself.
            let is_holder = self.work.is_none() && state.services.values().any(holds);
            let is_there = state.spec.nodes.contains_key(&id);
            if is_there && (is_holder || state.spec.nodes.len() < 3) {
                return;
            }
            let founded = self.founded.nodes[&id].clone();
            self.configure(move |spec| {
                if is_there {
                    spec.nodes.remove(&id);
                } else {
                    spec.nodes.insert(id, founded);
                }
            });
        }
        self.push(self.now + lasts, Event::Mend { kind: Mend::Owner });
    }

    /// As the node that is asked judges it.
    fn may_change(&self) -> bool {
        let Some(leader) = self.agreement.leader else { return false };
        let agreed = self.agreed(leader);
        let Some(daemon) = self.nodes[leader].daemon.as_ref() else { return false };
        let clock = &self.nodes[leader].clock;
        agreed.services.iter().all(|(service, state)| {
            let Some(spec) = agreed.spec.services.get(service) else { return true };
            let view = ControllerView {
                me: &self.nodes[leader].id,
                service,
                spec,
                nodes: &agreed.spec.nodes,
                draining: &agreed.draining,
                state,
                services: &agreed.services,
                facts: &daemon.parts[0].hub.facts,
                trails: &Trails::default(),
                unix_ms: clock.unix_ms(self.now),
            };
            keeps_voters(&view, clock.at(self.now)).is_none()
        })
    }

    /// What was taken out comes back, the nodes one at a time.
    pub(super) fn put_back(&mut self) {
        let spec = self.agreement.last().spec.clone();
        if spec.services.is_empty() {
            let mut services = self.founded.services.clone();
            let lease_ms =
                if self.now < FAULTS_UNTIL { [300, 900, 3000][self.rng.below(3)] } else { 900 };
            for service in services.values_mut() {
                service.timing.lease = Duration::from_millis(lease_ms);
            }
            return self.configure(move |spec| spec.services = services);
        }
        let missing = self.founded.nodes.keys().find(|node| !spec.nodes.contains_key(*node));
        if let Some(node) = missing.cloned().filter(|_| self.may_change()) {
            let founded = self.founded.nodes[&node].clone();
            self.configure(move |spec| {
                spec.nodes.insert(node, founded);
            });
        }
    }

    pub(super) fn configure(&mut self, change: impl FnOnce(&mut ClusterSpec)) {
        let state = self.agreement.last();
        let (expected, mut spec) = (state.config_version, state.spec.clone());
        change(&mut spec);
        // A seat for each node that there is.
        spec.services.retain(|_, service| service.seat.is_none());
        let config = Box::new(Config { text: String::new(), spec: spec.with_seats() });
        self.operate(Command::Configure { expected, config });
    }

    /// A node that the planner should have moved it to.
    pub(super) fn better_place(&self, holder: usize) -> Option<usize> {
        let state = self.agreement.last();
        let fits = |n: &usize| {
            let node = &self.nodes[*n];
            let failed = node.daemon.as_ref().map_or(0, |daemon| daemon.parts[0].own.starts_failed);
            !node.witness && failed < FAILURES_MAX && !state.draining.contains(&node.id)
        };
        let others = || (0..self.nodes.len()).filter(|n| *n != holder).filter(fits);
        let priority = |n: usize| self.nodes[n].priority;
        if state.draining.contains(&self.nodes[holder].id) {
            return others().next();
        }
        others().find(|n| priority(holder) == 0 && priority(*n) > 0)
    }
}
