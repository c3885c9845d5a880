//! Decides how the owner changes the configuration: the service out and in, with another lease; a
//! node out and in, as the product allows it.

use super::faults::Mend;
use super::machine::Machine;
use super::{Event, FAULTS_UNTIL, World};
use crate::event::Micros;
use std::time::Duration;
use tandem_core::cluster::command::{Command, Config};
use tandem_core::cluster::state::ClusterState;
use tandem_core::clustering::active_passive::ControllerView;
use tandem_core::clustering::active_passive::singleton::FAILURES_MAX;
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::clustering::members::keeps_voters;
use tandem_core::ids::{ClusterId, ServiceId};
use tandem_core::spec::{ClusterSpec, NodeRole, NodeSpec, ServiceSpec};

pub(super) fn founded(nodes: &[Machine], service: &ServiceId, spec: &ServiceSpec) -> ClusterState {
    let machine = |node: &Machine| NodeSpec {
        role: if node.witness { NodeRole::Witness } else { NodeRole::Data },
        zone: None,
        priority: node.priority,
        capacity: 1,
    };
    let spec = ClusterSpec {
        nodes: nodes.iter().map(|node| (node.id.clone(), machine(node))).collect(),
        services: [(service.clone(), spec.clone())].into(),
    };
    let config = Box::new(Config { text: String::new(), spec });
    let mut state = ClusterState::default();
    state.apply(&Command::Found { cluster: ClusterId::from("c0ffee"), config });
    state
}

impl World {
    /// The service is taken out, and comes back with a lease of its own.
    pub(super) fn take_out(&mut self, lasts: Micros) {
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
            let service = state.services.get(&self.service);
            let holder = service.and_then(|it| it.appointment.as_ref());
            let is_holder = holder.is_some_and(|it| it.primary == id);
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
        let spec = agreed.spec.services.get(&self.service);
        let Some((state, spec)) = agreed.services.get(&self.service).zip(spec) else { return true };
        let clock = &self.nodes[leader].clock;
        let view = ControllerView {
            me: &self.nodes[leader].id,
            service: &self.service,
            spec,
            nodes: &agreed.spec.nodes,
            draining: &agreed.draining,
            state,
            facts: &daemon.hub.facts,
            trails: &Trails::default(),
            unix_ms: clock.unix_ms(self.now),
        };
        keeps_voters(&view, clock.at(self.now)).is_none()
    }

    /// What was taken out comes back, the nodes one at a time.
    pub(super) fn put_back(&mut self) {
        let spec = self.agreement.last().spec.clone();
        if spec.services.is_empty() {
            let mut service = self.spec.clone();
            let lease_ms =
                if self.now < FAULTS_UNTIL { [300, 900, 3000][self.rng.below(3)] } else { 900 };
            service.timing.lease = Duration::from_millis(lease_ms);
            let name = self.service.clone();
            return self.configure(move |spec| {
                spec.services.insert(name, service);
            });
        }
        let missing = self.founded.nodes.keys().find(|node| !spec.nodes.contains_key(*node));
        if let Some(node) = missing.cloned().filter(|_| self.may_change()) {
            let founded = self.founded.nodes[&node].clone();
            self.configure(move |spec| {
                spec.nodes.insert(node, founded);
            });
        }
    }

    fn configure(&mut self, change: impl FnOnce(&mut ClusterSpec)) {
        let state = self.agreement.last();
        let (expected, mut spec) = (state.config_version, state.spec.clone());
        change(&mut spec);
        let config = Box::new(Config { text: String::new(), spec });
        self.operate(Command::Configure { expected, config });
    }

    /// A node that the planner should have moved it to.
    pub(super) fn better_place(&self, holder: usize) -> Option<usize> {
        let state = self.agreement.last();
        let fits = |n: &usize| {
            let node = &self.nodes[*n];
            let failed = node.daemon.as_ref().map_or(0, |daemon| daemon.own.starts_failed);
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
