//! Drives the service as a whole while a node believes that it leads, as the shell does.

use crate::event::{Event, Micros};
use crate::invariants;
use crate::mutation::Mutation;
use crate::world::{World, index};
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::command::{Command, ServiceCommand};
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::trail::Trail;
use tandem_core::clustering::active_passive::{ControllerView, Plan, Step, controller};
use tandem_core::facts::ToldEnd;
use tandem_core::ids::Term;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;
use tandem_core::spec::{Durability, ServiceSpec};
use tandem_core::time::Observed;

const RECRUIT_AGAIN: Duration = Duration::from_millis(150);

impl World {
    /// One round of the controller's loop.
    pub fn control(&mut self, n: usize) {
        let daemon = self.nodes[n].daemon.as_ref();
        let leads = daemon.is_some_and(|daemon| daemon.leads && daemon.proposing.is_none());
        if !leads || !self.nodes[n].awake() {
            return;
        }
        let agreed = self.agreed(n);
        let Some(own) = self.own_facts(n) else { return };
        let node = &mut self.nodes[n];
        let now = node.clock.at(self.now);
        let Some(daemon) = node.daemon.as_mut() else { return };
        if let Some(instance) = own.instances.get(&self.service) {
            daemon.hub.trails.note(&node.id, own.told.start, instance);
        }
        daemon.hub.facts.insert(node.id.clone(), Observed::new(own, now));
        daemon.recruited.retain(|_, at| now.since(*at) < RECRUIT_AGAIN);
        let Some(state) = agreed.services.get(&self.service) else { return };
        let node = &self.nodes[n];
        let Some(daemon) = node.daemon.as_ref() else { return };
        let spec = self.spec_of(n);
        let view = ControllerView {
            me: &node.id,
            service: &self.service,
            spec: &spec,
            nodes: &agreed.spec.nodes,
            draining: &agreed.draining,
            state,
            services: &agreed.services,
            facts: &daemon.hub.facts,
            trails: &daemon.hub.trails,
            unix_ms: node.clock.unix_ms(self.now),
        };
        let spec = self.without_bound(&spec);
        let view = ControllerView { spec: &spec, ..view };
        let mut plan = controller::plan(&view, now);
        let heard = known_end(&view);
        let heard_at = self.last_heard(&view);
        let same = invariants::fresh::plans_alike(&view, &plan, now);
        let broken = self.weaken(state, &plan);
        if let Some(state) = &broken {
            plan = controller::plan(&ControllerView { state, ..view.clone() }, now);
        }
        self.check(same, || format!("{}: {}", invariants::fresh::RULE, plan.reason));
        let reason = plan.reason.to_string();
        if self.nodes[n]
            .daemon
            .as_mut()
            .is_some_and(|d| d.planned.replace(reason.clone()).as_ref() != Some(&reason))
        {
            self.note(n, || format!("plans: {reason}"));
        }
        for step in plan.steps {
            match step {
                Step::Recruit { node, term } => self.recruit(n, index(&node), term),
                Step::Propose(command) => {
                    if matches!(command, ServiceCommand::Appoint { .. }) {
                        (self.record.heard, self.record.heard_at) = (heard, heard_at);
                    }
                    let command = Command::Service {
                        service: self.service.clone(),
                        expected: state.revision,
                        command: strengthen(command, broken.as_ref(), state),
                    };
                    let id = self.propose(n, command);
                    if let Some(daemon) = self.nodes[n].daemon.as_mut() {
                        daemon.proposing = Some(id);
                    }
                }
            }
        }
    }

    fn recruit(&mut self, n: usize, to: usize, term: Term) {
        let node = &mut self.nodes[n];
        let now = node.clock.at(self.now);
        let Some(daemon) = node.daemon.as_mut() else { return };
        if daemon.recruited.contains_key(&(to, term)) {
            return;
        }
        daemon.recruited.insert((to, term), now);
        let inc = self.nodes[to].daemons;
        let asked = Event::Asked { n: to, inc, term };
        if to == n {
            self.after(0, 500, asked);
        } else {
            self.send(n, to, asked);
        }
    }

    /// Asked to promise.
    pub fn on_asked(&mut self, n: usize, inc: u32, term: Term) {
        if self.is_daemon(n, inc)
            && let Some(daemon) = self.nodes[n].daemon.as_mut()
        {
            daemon.asked = daemon.asked.max(Some(term));
            self.drive(n);
        }
    }

    /// The proposal ended, or is waited for no longer.
    pub fn on_proposal_ended(&mut self, n: usize, inc: u32, id: u64) {
        if self.is_daemon(n, inc)
            && let Some(daemon) = self.nodes[n].daemon.as_mut()
            && daemon.proposing == Some(id)
        {
            daemon.proposing = None;
            self.hub_changed(n);
        }
    }

    /// With `DropBound` or `DropTimeBound`, one of the bounds of `Async` is none.
    fn without_bound(&self, spec: &ServiceSpec) -> ServiceSpec {
        let mut spec = spec.clone();
        if let Durability::Async { lag_bytes_max, lag_max } = &mut spec.durability {
            match self.options.mutation {
                Some(Mutation::DropBound) => *lag_bytes_max = u64::MAX,
                Some(Mutation::DropTimeBound) => *lag_max = Duration::MAX,
                _ => {}
            }
        }
        spec
    }

    /// Of when the furthest word of the appointed primary was, in true time.
    fn last_heard(&self, view: &ControllerView<'_>) -> Micros {
        let clock = |(n, told): (usize, ToldEnd)| {
            self.record.clocks.get(&(n, told.run)).map(|clock| clock.when(told.at))
        };
        furthest(view).and_then(clock).unwrap_or(0)
    }

    /// With `DropMeeting`, an election sees rules that any one ballot satisfies.
    fn weaken(&self, state: &ServiceState, plan: &Plan) -> Option<ServiceState> {
        let elects = plan.steps.iter().any(|step| matches!(step, Step::Recruit { .. }));
        if self.options.mutation != Some(Mutation::DropMeeting) || !elects {
            return None;
        }
        let mut state = state.clone();
        let appointment = state.appointment.as_mut()?;
        let primary = appointment.primary.clone();
        appointment.rules = vec![CommitRule { primary, standbys: BTreeSet::new(), acks: 1 }];
        Some(state)
    }
}

/// How far the appointed primary told anybody who is known here to have come.
fn known_end(view: &ControllerView<'_>) -> usize {
    furthest(view).map_or(0, |(_, told)| told.position.flushed.0 as usize)
}

fn furthest(view: &ControllerView<'_>) -> Option<(usize, ToldEnd)> {
    let primary = &view.state.appointment.as_ref()?.primary;
    let others = view.facts.values().map(Observed::last_known);
    let others = others.filter_map(|facts| facts.instances.get(view.service)?.ends.get(primary));
    let own = view.trails.of(primary).and_then(Trail::end);
    let told = others.copied().chain(own).max_by_key(|told| told.position)?;
    Some((index(primary), told))
}

/// What is agreed under a weakened view still has the real rules.
fn strengthen(
    mut command: ServiceCommand,
    broken: Option<&ServiceState>,
    state: &ServiceState,
) -> ServiceCommand {
    let real = state.appointment.as_ref().filter(|_| broken.is_some());
    if let (ServiceCommand::Appoint { appointment, .. }, Some(real)) = (&mut command, real)
        && let Some(last) = appointment.rules.pop()
    {
        appointment.rules.clone_from(&real.rules);
        appointment.rules.push(last);
    }
    command
}
