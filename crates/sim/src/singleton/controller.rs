//! Drives the service as a whole while a node believes that it leads, as the shell does.

use super::machine::Machine;
use super::{Event, World, index};
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::cluster::command::{Command, ServiceCommand};
use tandem_core::cluster::state::{ClusterState, ServiceState};
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::clustering::active_passive::{ControllerView, Step};
use tandem_core::clustering::copies::controller::{self, CopiesView};
use tandem_core::facts::NodeFacts;
use tandem_core::ids::{NodeId, Revision, ServiceId, Term};
use tandem_core::spec::ServiceSpec;
use tandem_core::time::{Observed, Timestamp};

const RECRUIT_AGAIN: Duration = Duration::from_millis(150);

impl World {
    /// One round of the controller's loop.
    pub(super) fn control(&mut self, n: usize) {
        let agreed = self.agreed(n);
        let Some(own) = self.own_facts(n) else { return };
        let Machine { id, clock, daemon, .. } = &mut self.nodes[n];
        let now = clock.at(self.now);
        let Some(daemon) = daemon.as_mut() else { return };
        if !daemon.leads || daemon.proposing.is_some() {
            return;
        }
        let facts = &mut daemon.parts[0].hub.facts;
        facts.insert(id.clone(), Observed::new(own, now));
        let mut facts = facts.clone();
        self.spoil_facts(&mut facts, now);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        daemon.recruited.retain(|_, at| now.since(*at) < RECRUIT_AGAIN);
        let all = self.services.iter().chain(&self.work).cloned().collect::<Vec<_>>();
        for (s, service) in all.iter().enumerate() {
            let node = &self.nodes[n];
            let (Some(state), Some(spec)) =
                (agreed.services.get(service), agreed.spec.services.get(service))
            else {
                continue;
            };
            let unix_ms = node.clock.unix_ms(self.now);
            if spec.copies.is_some() {
                let steps =
                    steps_of_copies((&agreed, unix_ms), (service, spec, state), &facts, now);
                if self.carry_out(n, (s, service, state.revision), steps) {
                    return;
                }
                continue;
            }
            let view = ControllerView {
                me: &node.id,
                service,
                spec,
                nodes: &agreed.spec.nodes,
                draining: &agreed.draining,
                state,
                services: &agreed.services,
                facts: &facts,
                trails: &Trails::default(),
                unix_ms,
            };
            let mut plan = tandem_core::clustering::plan(&view, now);
            self.spoil_plan(&agreed, &mut plan);
            if !plan.steps.is_empty() {
                self.note(n, || format!("plans for {service}: {}", plan.reason));
            }
            let expected = state.revision;
            if self.carry_out(n, (s, service, expected), plan.steps) {
                return;
            }
        }
    }

    /// Whether something was proposed.
    fn carry_out(
        &mut self,
        n: usize,
        (s, service, expected): (usize, &ServiceId, Revision),
        steps: Vec<Step>,
    ) -> bool {
        for step in steps {
            match step {
                Step::Recruit { node, term } => self.recruit(n, index(&node), (s, term)),
                Step::Propose(command) => {
                    let command = Command::Service { service: service.clone(), expected, command };
                    let id = self.propose(n, command);
                    if let Some(daemon) = self.nodes[n].daemon.as_mut() {
                        daemon.proposing = Some(id);
                    }
                    return true;
                }
            }
        }
        false
    }

    fn recruit(&mut self, n: usize, to: usize, (s, term): (usize, Term)) {
        let now = self.nodes[n].clock.at(self.now);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if daemon.recruited.contains_key(&(to, s, term)) {
            return;
        }
        daemon.recruited.insert((to, s, term), now);
        let inc = self.nodes[to].daemons;
        let asked = Event::Asked { n: to, inc, s, term };
        if to == n { self.after(0, 500, asked) } else { self.send(n, to, asked) }
    }
}

fn steps_of_copies(
    (agreed, unix_ms): (&ClusterState, u64),
    (service, spec, state): (&ServiceId, &ServiceSpec, &ServiceState),
    facts: &BTreeMap<NodeId, Observed<NodeFacts>>,
    now: Timestamp,
) -> Vec<Step> {
    let (nodes, draining) = (&agreed.spec.nodes, &agreed.draining);
    let view = CopiesView { service, spec, nodes, draining, state, facts, unix_ms };
    let propose = |command| Step::Propose(ServiceCommand::Copies(command));
    controller::plan(&view, now).command.into_iter().map(propose).collect()
}
