//! Talks to operators who want copies started anew, or a node emptied of them.
//! In: wishes. Out: `Outcome`.
//! Keeps: INV-14, what is asked for here is done by the planners, in turns.
//! Not here: what is told of copies (`mod.rs`).
//! Tested by: `tests/copies`.

use super::super::NodeOperations;
use super::super::seen::{Seen, ServiceSeen};
use super::divided;
use super::{instance_state, is_copies, is_spared, wanted};
use crate::api::operations::{Outcome, Refused};
use crate::api::status::InstanceState;
use crate::config::Command;
use crate::driver::wire::Wish;
use crate::runtime::clock;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
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

/// How long an operator waits at most, less than the API gives a verb; it goes on without them.
const WAIT_MAX: Duration = Duration::from_secs(75);
/// The same, where primaries were waited for before.
const EMPTY_MAX: Duration = Duration::from_secs(45);
/// Besides what one copy may take by its configuration.
const MARGIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

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
        match service.spec.partitions {
            // Its copy stays, and has nothing to do.
            Some(_) => divided::owns(*service, node) > 0,
            None => is_copies(*service) && service.instance(node).is_some_and(runs),
        }
    };
    seen.services().filter(is_left).map(|service| service.name.clone()).collect()
}

impl NodeOperations {
    /// Starts every copy anew, one at a time.
    pub(in crate::node::operations) async fn restart_copies(
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
            let seen = self.seen();
            let message = seen.service(&service).map(|of| round_in_words(of, term));
            Outcome::done(message.unwrap_or_else(|| format!("{service} was taken out meanwhile")))
        } else {
            let message =
                format!("copies of {service} start anew, one at a time; not all are back");
            Outcome::accepted(format!("{message}: tandem explain {service} says why"))
        };
        Ok(outcome.field("service", service.as_str()).field("took_ms", took_ms))
    }

    /// Starts one copy anew, whoever's turn it is.
    pub(in crate::node::operations) async fn restart_copy(
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
            let of = seen.service(&service);
            of.map_or(Ok(()), |of| may_be_away(of, &node, what))?;
            of.is_some_and(|of| state(instance_state(of, &node)))
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
    pub(in crate::node::operations) async fn until_no_copy(&self, node: &NodeId) -> Vec<ServiceId> {
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

/// Refuses what would leave clients without anybody.
pub(in crate::node::operations) fn may_be_away(
    service: ServiceSeen<'_>,
    node: &NodeId,
    what: &str,
) -> Result<(), Problem> {
    if is_spared(service, node) {
        return Ok(());
    }
    let because = format!("it is the only copy of {} that serves", service.name);
    let advice = "tandem status says why the others do not: mend one, or undrain its node";
    Err(Problem::new(codes::LAST_COPY, what, because, advice))
}

/// What a round that is over has come to: who did not answer had no turn.
pub(in crate::node::operations) fn round_in_words(service: ServiceSeen<'_>, term: Term) -> String {
    let name = service.name;
    let wanted = wanted(service);
    let is_new = |node: &&NodeId| {
        service.instance(node).is_some_and(|own| copies::takes_work(own) && own.promoted >= term)
    };
    let left: BTreeSet<&NodeId> = wanted.iter().filter(|node| !is_new(node)).collect();
    if left.is_empty() {
        return format!("every copy of {name} was started anew, one at a time");
    }
    let (done, all, left) = (wanted.len() - left.len(), wanted.len(), list(left));
    format!(
        "{done} of {all} copies of {name} were started anew, one at a time; not on {left}: it does \
         not answer, and gets its turn once it does"
    )
}

/// Whether every copy that can was started for a term, and serves.
fn is_round_over(service: ServiceSeen<'_>, term: Term) -> bool {
    let is_new = |node: &NodeId| {
        service.instance(node).is_none_or(|own| copies::takes_work(own) && own.promoted >= term)
    };
    let state = &service.state.copies;
    state.term >= term && state.turn.is_none() && wanted(service).iter().all(is_new)
}
