//! Drives the service as a whole while a node believes that it leads, as the shell does.

use super::machine::Machine;
use super::{Event, World, index};
use std::time::Duration;
use tandem_core::cluster::command::Command;
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::clustering::active_passive::{ControllerView, Step, controller};
use tandem_core::ids::Term;
use tandem_core::time::Observed;

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
        daemon.hub.facts.insert(id.clone(), Observed::new(own, now));
        daemon.recruited.retain(|_, at| now.since(*at) < RECRUIT_AGAIN);
        let spec = agreed.spec.services.get(&self.service);
        let Some((state, spec)) = agreed.services.get(&self.service).zip(spec) else { return };
        let view = ControllerView {
            me: id,
            service: &self.service,
            spec,
            nodes: &agreed.spec.nodes,
            draining: &agreed.draining,
            state,
            facts: &daemon.hub.facts,
            trails: &Trails::default(),
            unix_ms: clock.unix_ms(self.now),
        };
        let plan = controller::plan(&view, now);
        let revision = state.revision;
        if !plan.steps.is_empty() {
            self.note(n, || format!("plans: {}", plan.reason));
        }
        for step in plan.steps {
            match step {
                Step::Recruit { node, term } => self.recruit(n, index(&node), term),
                Step::Propose(command) => {
                    let service = self.service.clone();
                    let command = Command::Service { service, expected: revision, command };
                    let id = self.propose(n, command);
                    if let Some(daemon) = self.nodes[n].daemon.as_mut() {
                        daemon.proposing = Some(id);
                    }
                }
            }
        }
    }

    fn recruit(&mut self, n: usize, to: usize, term: Term) {
        let now = self.nodes[n].clock.at(self.now);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if daemon.recruited.contains_key(&(to, term)) {
            return;
        }
        daemon.recruited.insert((to, term), now);
        let inc = self.nodes[to].daemons;
        let asked = Event::Asked { n: to, inc, term };
        if to == n { self.after(0, 500, asked) } else { self.send(n, to, asked) }
    }
}
