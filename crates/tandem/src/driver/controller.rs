//! Carries out the plans of the service as a whole, while this node leads.
//! In: agreed state, facts. Out: commands proposed, promises asked for.
//! Keeps: INV-6 each command names the revision it was planned on; a leader that lost its majority
//! can propose nothing, and what it recruits only delays (CRATES: `is_leader` proves nothing).
//! Not here: the decisions (`tandem_core::clustering::active_passive`), the own copy
//! (`instance.rs`).

use super::asks::Asks;
use super::explain::Explanations;
use super::hub::Hub;
use super::wire::{Request, encode};
use crate::consensus::{Agreed, Consensus};
use crate::peers::{Channel, Mesh};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::command::{Command, ServiceCommand};
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::{ControllerView, Step};
use tandem_core::clustering::copies::{
    self,
    controller::{CopiesView, Decision},
};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

/// How often to plan when nothing changes.
const TICK: Duration = Duration::from_millis(100);
/// A promise that was asked for is asked for again after this.
const RECRUIT_AGAIN: Duration = Duration::from_millis(150);
/// How long one proposal may take before the next plan is made.
const PROPOSAL: Duration = Duration::from_millis(2000);

/// The controller of one node.
pub struct Controller {
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What is agreed.
    pub consensus: Consensus,
    /// The way to the others.
    pub mesh: Mesh,
    /// Where this node's own instances take requests.
    pub local: Arc<Asks>,
    /// The last plans, for operators.
    pub explanations: Arc<Explanations>,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}

impl Controller {
    /// Plans and acts until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.hub.changed();
        let mut agreed = self.consensus.state();
        let mut leadership = self.consensus.leadership();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut recruited: BTreeMap<(NodeId, ServiceId, Term), Timestamp> = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = changed.changed() => if result.is_err() { return },
                result = agreed.changed() => if result.is_err() { return },
                result = leadership.changed() => if result.is_err() { return },
                _ = ticks.tick() => {}
            }
            if !leadership.borrow_and_update().me_leads {
                recruited.clear();
                continue;
            }
            let snapshot = agreed.borrow_and_update().clone();
            let now = clock::now();
            recruited.retain(|_, at| now.since(*at) < RECRUIT_AGAIN);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.act(&snapshot, now, &mut recruited) => {}
            }
        }
    }

    async fn act(
        &self,
        agreed: &Agreed,
        now: Timestamp,
        recruited: &mut BTreeMap<(NodeId, ServiceId, Term), Timestamp>,
    ) {
        let facts = self.hub.everyone();
        for (service, state) in &agreed.state.services {
            let Some(spec) = agreed.state.spec.services.get(service) else { continue };
            if spec.copies.is_some() {
                self.act_on_copies(agreed, (service, spec, state), now).await;
                continue;
            }
            let view = ControllerView {
                me: self.hub.me(),
                service,
                spec,
                nodes: &agreed.state.spec.nodes,
                draining: &agreed.state.draining,
                state,
                services: &agreed.state.services,
                facts: &facts,
                trails: &self.hub.trails(service),
                unix_ms: clock::unix_ms(),
            };
            let plan = tandem_core::clustering::plan(&view, now);
            self.explanations.planned(service, &plan);
            for step in plan.steps {
                match step {
                    Step::Recruit { node, term } => {
                        let key = (node, service.clone(), term);
                        if let Entry::Vacant(entry) = recruited.entry(key) {
                            self.recruit(entry.key()).await;
                            entry.insert(now);
                        }
                    }
                    Step::Propose(command) => self.propose(service, state, command).await,
                }
            }
        }
    }

    async fn act_on_copies(
        &self,
        agreed: &Agreed,
        (service, spec, state): (&ServiceId, &ServiceSpec, &ServiceState),
        now: Timestamp,
    ) {
        let view = CopiesView {
            service,
            spec,
            nodes: &agreed.state.spec.nodes,
            draining: &agreed.state.draining,
            state,
            facts: &self.hub.everyone(),
            unix_ms: clock::unix_ms(),
        };
        let Decision { command, reason } = copies::controller::plan(&view, now);
        let steps = command.iter().map(|command| format!("propose to {command}")).collect();
        self.explanations.note(service, "controller", steps, &reason);
        if let Some(command) = command {
            self.propose(service, state, ServiceCommand::Copies(command)).await;
        }
    }

    async fn propose(&self, service: &ServiceId, state: &ServiceState, command: ServiceCommand) {
        let (service, expected) = (service.clone(), state.revision);
        let command = Command::Service { service: service.clone(), expected, command };
        if let Err(error) = self.consensus.propose(command, PROPOSAL).await {
            tracing::warn!(%service, %error, "a plan could not be agreed");
        }
    }

    /// Asks without waiting for the answer: the ballot arrives with the node's facts.
    async fn recruit(&self, (node, service, term): &(NodeId, ServiceId, Term)) {
        tracing::info!(%node, %service, %term, "asks for a promise");
        if node == self.hub.me() {
            if let Some(asks) = self.local.of(service) {
                // Full: the next plan asks again.
                let _ = asks.try_send(*term);
            }
            return;
        }
        let body = encode(&Request::Recruit { service: service.clone(), term: *term });
        let request = self.mesh.request(node, Channel::Operate, body, Duration::from_secs(1));
        // Sent within the first poll; a node that does not answer is asked again by the next plan.
        let _ = tokio::time::timeout(Duration::from_millis(5), request).await;
    }
}
