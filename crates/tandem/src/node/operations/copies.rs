//! Talks about commands whose copies run side by side: how many serve, why one does not, a restart
//! of all, what a node still has.
//! In: `ServiceSeen`, wishes. Out: parts of `Status` and `Explanation`; `Outcome`.
//! Keeps: INV-14, what is asked for here is done by the planners, in turns.
//! Not here: one copy that runs alone (`moves/singleton.rs`), the door's endpoints (`balanced.rs`).
//! Tested by: `tests/copies.rs`, `tests/copies`.

use super::NodeOperations;
use super::seen::{Seen, ServiceSeen};
use crate::api::explain::{Explanation, FailoverNow, Placement, Planned, Reason, Safety};
use crate::api::operations::{Outcome, Refused};
use crate::api::status::{CopiesStatus, InstanceRole, InstanceState, Phase};
use crate::config::Command;
use crate::driver::wire::Wish;
use crate::runtime::clock;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tandem_core::cluster::command::ServiceCommand;
use tandem_core::cluster::copies::CopiesCommand;
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::copies;
use tandem_core::facts::{InstanceFacts, Process};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::reason::list;
use tandem_core::spec::NodeRole;

/// How long an operator waits at most, less than the API gives a verb; it goes on without them.
const WAIT_MAX: Duration = Duration::from_secs(75);
/// The same, where primaries were waited for before.
const EMPTY_MAX: Duration = Duration::from_secs(45);
/// Besides what one copy may take by its configuration.
const MARGIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(super) fn is_copies(service: ServiceSeen<'_>) -> bool {
    service.spec.copies.is_some()
}

/// The nodes on which a copy shall run now.
fn wanted(service: ServiceSeen<'_>) -> BTreeSet<NodeId> {
    let agreed = &service.seen.agreed;
    let mut wanted = copies::wanted(&agreed.spec.nodes, service.spec, &service.state.copies);
    wanted.retain(|node| !agreed.draining.contains(node));
    wanted
}

fn serving(service: ServiceSeen<'_>) -> BTreeSet<NodeId> {
    let takes = |node: &NodeId| service.instance(node).is_some_and(copies::takes_work);
    service.seen.agreed.spec.data_nodes().filter(|node| takes(node)).cloned().collect()
}

/// How many there are, and how many there shall be.
pub(super) fn status(service: ServiceSeen<'_>) -> Option<CopiesStatus> {
    service.spec.copies?;
    let turn = service.state.copies.turn.clone();
    Some(CopiesStatus { wanted: wanted(service).len(), serving: serving(service).len(), turn })
}

pub(super) fn phase(service: ServiceSeen<'_>) -> Phase {
    if serving(service).is_empty() { Phase::Appointed } else { Phase::Active }
}

pub(super) fn role(service: ServiceSeen<'_>, node: &NodeId) -> InstanceRole {
    let spec = service.seen.agreed.spec.nodes.get(node);
    match spec.map(|spec| spec.role) {
        Some(NodeRole::Witness) => InstanceRole::Witness,
        Some(NodeRole::Data) | None => InstanceRole::Copy,
    }
}

pub(super) fn instance_state(service: ServiceSeen<'_>, node: &NodeId) -> InstanceState {
    if role(service, node) == InstanceRole::Witness {
        return InstanceState::Absent;
    }
    let Some(own) = service.instance(node) else { return InstanceState::Unknown };
    match own.process {
        Process::Primary if own.withdrawn.is_some() => InstanceState::Draining,
        Process::Primary if own.serving.is_some() => InstanceState::Running,
        Process::Primary | Process::Starting => InstanceState::Starting,
        Process::Stopping => InstanceState::Stopping,
        Process::Stopped if wanted(service).contains(node) => InstanceState::Stopped,
        Process::Stopped | Process::Standby | Process::Promoting => InstanceState::Absent,
    }
}

/// Why a copy is not as it should be; none where it is.
pub(super) fn reason(
    service: ServiceSeen<'_>,
    own: &InstanceFacts,
    planned: Option<String>,
) -> Option<String> {
    if own.starts_failed > 0 {
        let failed = own.starts_failed;
        return Some(format!("it ended by itself {failed} times in a row: see output.log there"));
    }
    if copies::takes_work(own) {
        let is_old = own.pending_restart || own.promoted < service.state.copies.term;
        return is_old.then(|| "it waits for its turn to start anew".to_owned());
    }
    planned
}

/// What a human should know.
pub(super) fn warnings(service: ServiceSeen<'_>) -> Vec<String> {
    let (wanted, serving) = (wanted(service), serving(service));
    let mut warnings = Vec::new();
    if serving.is_empty() {
        warnings.push("no copy serves: clients are held".to_owned());
    } else if serving.intersection(&wanted).count() < wanted.len() {
        let away = list(wanted.difference(&serving));
        warnings.push(format!("{} of {} copies serve; not on {away}", serving.len(), wanted.len()));
    }
    let replicas = service.spec.copies.and_then(|copies| copies.replicas).unwrap_or(0) as usize;
    if replicas > wanted.len() {
        let places = wanted.len();
        warnings.push(format!("{replicas} copies are wanted, and {places} nodes can have one"));
    }
    warnings
}

/// Why it is as it is.
pub(super) fn explain(service: ServiceSeen<'_>, plans: Vec<Planned>) -> Explanation {
    let (wanted, serving) = (wanted(service), serving(service));
    let summary = match &service.state.copies.turn {
        Some(turn) => format!("copies start anew, one at a time; it is the turn of {turn}"),
        None => {
            let (have, want) = (serving.len(), wanted.len());
            format!("{have} of {want} copies serve, on {}", list(&serving))
        }
    };
    let placements = service.state.copies.placed.iter().rev();
    Explanation {
        service: service.name.clone(),
        term: service.state.copies.term,
        phase: phase(service),
        primary: None,
        summary,
        scheduled: None,
        no_failover_because: Vec::new(),
        failover_now: FailoverNow {
            safety: Safety::Safe,
            because: Reason::new("every copy serves: doors send nothing to one that is lost"),
            would_choose: None,
            may_lose_bytes: None,
            candidates: Vec::new(),
        },
        plans,
        history: Vec::new(),
        placements: placements
            .map(|line| Placement {
                nodes: line.nodes.iter().cloned().collect(),
                reason: line.reason.clone(),
                at_unix_ms: line.at_unix_ms,
            })
            .collect(),
    }
}

/// How long one copy may take to end and to be back.
fn one_max(command: &Command) -> Duration {
    let drain = command.copies.as_ref().map_or(Duration::ZERO, |copies| copies.drain_max);
    let grace = command.health.as_ref().map_or(Duration::ZERO, |health| health.grace);
    drain + command.stop_max + command.hook_max * 2 + grace + MARGIN
}

/// Services that still have a copy on a node.
fn left_on(seen: &Seen, node: &NodeId) -> Vec<ServiceId> {
    let is_left = |service: &ServiceSeen<'_>| {
        let runs = |own: &InstanceFacts| own.process != Process::Stopped;
        is_copies(*service) && service.instance(node).is_some_and(runs)
    };
    seen.services().filter(is_left).map(|service| service.name.clone()).collect()
}

impl NodeOperations {
    /// Starts every copy anew, one at a time.
    pub(super) async fn restart_copies(
        &self,
        (service, command): (ServiceId, Command),
        what: &str,
    ) -> Result<Outcome, Refused> {
        let began = clock::now();
        let asked = AtomicU64::new(0);
        let make = |state: &ServiceState| {
            asked.store(state.copies.term.next().0, Ordering::Relaxed);
            Ok(ServiceCommand::Copies(CopiesCommand::Restart))
        };
        self.change(&service, what, &make).await?;
        let term = Term(asked.into_inner());
        let nodes = self.seen().config.data_nodes().count();
        let limit = one_max(&command) * u32::try_from(nodes).unwrap_or(1);
        let is_done = || self.seen().service(&service).is_none_or(|of| is_round_over(of, term));
        let done = self.until_true(limit.min(WAIT_MAX), &is_done).await;
        let took_ms = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        let outcome = if done {
            Outcome::done(format!("every copy of {service} was started anew, one at a time"))
        } else {
            let message =
                format!("copies of {service} start anew, one at a time; not all are back");
            Outcome::accepted(format!("{message}: tandem explain {service} says why"))
        };
        Ok(outcome.field("service", service.as_str()).field("took_ms", took_ms))
    }

    /// Starts one copy anew, whoever's turn it is.
    pub(super) async fn restart_copy(
        &self,
        (service, command): (ServiceId, Command),
        node: NodeId,
        what: &str,
    ) -> Result<Outcome, Refused> {
        let began = clock::now();
        let state =
            |it: InstanceState| matches!(it, InstanceState::Running | InstanceState::Draining);
        let serves = {
            let seen = self.seen();
            seen.service(&service).is_some_and(|of| state(instance_state(of, &node)))
        };
        self.wish(&service, &node, Wish::Restart, what).await?;
        let message = |words: &str| format!("{service} on {node} {words}");
        let limit = one_max(&command).min(WAIT_MAX);
        let outcome = if !serves {
            Outcome::done(message("is started anew: its failures are forgotten"))
        } else if self.until(&service, &node, InstanceState::Running, limit).await {
            Outcome::done(message("was restarted"))
        } else {
            Outcome::accepted(message("was told to end, and starts again"))
        };
        let took_ms = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        let outcome = outcome.field("service", service.as_str()).field("node", node.as_str());
        Ok(outcome.field("took_ms", took_ms))
    }

    /// Waits until no copy is left on a node; those services that still have one.
    pub(super) async fn until_no_copy(&self, node: &NodeId) -> Vec<ServiceId> {
        let of = left_on(&self.seen(), node);
        let limit = {
            let seen = self.seen();
            let commands = of.iter().filter_map(|service| seen.config.commands.get(service));
            commands.map(one_max).max().unwrap_or_default().min(EMPTY_MAX)
        };
        let is_empty = || left_on(&self.seen(), node).is_empty();
        self.until_true(limit, &is_empty).await;
        left_on(&self.seen(), node)
    }

    async fn until_true(&self, limit: Duration, is_so: &(dyn Fn() -> bool + Send + Sync)) -> bool {
        let mut changed = self.ground().hub.changed();
        let reached = async {
            while !is_so() {
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        };
        tokio::time::timeout(limit, reached).await.is_ok()
    }
}

/// Whether every copy that can was started for a term, and serves.
fn is_round_over(service: ServiceSeen<'_>, term: Term) -> bool {
    let is_new = |node: &NodeId| {
        service.instance(node).is_none_or(|own| copies::takes_work(own) && own.promoted >= term)
    };
    let state = &service.state.copies;
    state.term >= term && state.turn.is_none() && wanted(service).iter().all(is_new)
}
