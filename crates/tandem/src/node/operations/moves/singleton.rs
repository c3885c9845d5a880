//! Talks about commands that run once: who could take over, what is wrong, a restart in place.
//! In: `ServiceSeen`. Out: objections, `FailoverNow`, warnings; `Outcome`.
//! Keeps: INV-12, what is said here decides nothing: the planners ask for proof.
//! Not here: services of PostgreSQL (`candidates.rs`, `status.rs`, `wishes.rs`).
//! Tested by: `tests/singleton`.

use super::super::NodeOperations;
use super::super::candidates::Objection;
use super::super::seen::ServiceSeen;
use crate::api::explain::{Candidate, FailoverNow, Reason, Safety};
use crate::api::operations::{Outcome, Refused};
use crate::api::status::{InstanceRole, InstanceState};
use crate::config::Command;
use crate::driver::wire::Wish;
use crate::runtime::clock;
use std::time::Duration;
use tandem_core::cluster::state::Appointment;
use tandem_core::clustering::active_passive::controller::MOVE_MAX_MS;
use tandem_core::clustering::active_passive::singleton::{self, FAILURES_MAX};
use tandem_core::facts::{Data, InstanceFacts, Process};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::pairing::Kind;
use tandem_core::spec::Seat;

/// Besides sessions that end, a stop and two hooks.
const MOVE: Duration = Duration::from_secs(10);

pub(in crate::node::operations) fn is_command(service: ServiceSeen<'_>) -> bool {
    service.spec.pairing.kind() == Kind::Command
}

/// What a data node is to it.
pub(in crate::node::operations) fn role(service: ServiceSeen<'_>, node: &NodeId) -> InstanceRole {
    let runs = service.appointment().is_some_and(|appointment| appointment.primary == *node);
    if runs { InstanceRole::Active } else { InstanceRole::Passive }
}

/// What a node's copy does.
pub(in crate::node::operations) fn instance_state(
    service: ServiceSeen<'_>,
    own: &InstanceFacts,
) -> InstanceState {
    let serves = own.process == Process::Primary && own.serving == Some(service.state.term());
    match own.process {
        _ if serves && own.withdrawn.is_some() => InstanceState::Draining,
        _ if serves => InstanceState::Running,
        _ if matches!(own.data, Data::Quarantined { .. }) => InstanceState::Quarantined,
        // Whatever it is in at this moment, it comes to nothing.
        _ if own.starts_failed >= FAILURES_MAX => InstanceState::CrashLoop,
        Process::Stopping => InstanceState::Stopping,
        Process::Stopped => InstanceState::Stopped,
        Process::Starting | Process::Primary | Process::Promoting | Process::Standby => {
            InstanceState::Starting
        }
    }
}

/// Why there is none, as far as its node can tell the others.
pub(in crate::node::operations) fn does_not_run(own: &InstanceFacts) -> String {
    match own.starts_failed {
        1 => "it failed: see output.log there".to_owned(),
        times => format!("it failed {times} times in a row: see output.log there"),
    }
}

/// How long a planned move may take.
pub(in crate::node::operations) fn move_max(command: &Command) -> Duration {
    let own = command.drain_max + command.stop_max + command.hook_max * 2;
    (own + MOVE).min(Duration::from_millis(MOVE_MAX_MS))
}

/// What keeps a node from running it.
pub(in crate::node::operations) fn objection(
    service: ServiceSeen<'_>,
    node: &NodeId,
) -> Option<Objection> {
    if singleton::is_fit(&service.view(), node, service.seen.now) {
        return None;
    }
    let failed = service.instance(node).map_or(0, |own| own.starts_failed);
    Objection::new(match failed {
        0 => format!("{node} was not heard lately"),
        times => format!("it failed {times} times in a row on {node}: see output.log there"),
    })
}

/// What a failover at this moment would do.
pub(in crate::node::operations) fn failover_now(
    service: ServiceSeen<'_>,
    appointment: &Appointment,
) -> FailoverNow {
    let view = service.view();
    let others = view.data_nodes().filter(|node| **node != appointment.primary);
    let candidates: Vec<Candidate> = others
        .map(|node| {
            let objection = objection(service, node);
            Candidate {
                node: node.clone(),
                eligible: objection.is_none(),
                lsn: None,
                lag_bytes: None,
                because: objection.map_or_else(|| "answers".to_owned(), |it| it.because),
            }
        })
        .collect();
    let best = singleton::best(&view, Some(&appointment.primary), service.seen.now);
    let (safety, because) = match best {
        Some(_) => (Safety::Safe, "it starts elsewhere once it is proven gone where it is"),
        None => (Safety::Impossible, "no other node can run it now"),
    };
    FailoverNow {
        safety,
        because: Reason::new(because),
        would_choose: best,
        may_lose_bytes: None,
        candidates,
    }
}

/// What a human should know.
pub(in crate::node::operations) fn warnings(service: ServiceSeen<'_>) -> Vec<String> {
    if !is_command(service) {
        return Vec::new();
    }
    let nodes = service.seen.agreed.spec.data_nodes();
    let failing = nodes.filter_map(|node| {
        let failed = service.instance(node)?.starts_failed;
        (failed >= FAILURES_MAX).then(|| {
            format!("crash loop: it failed {failed} times in a row on {node}, see output.log there")
        })
    });
    failing.collect()
}

impl NodeOperations {
    /// How long a planned move of a service may take, where that is not the usual.
    pub(in crate::node::operations) fn command_of(&self, service: &ServiceId) -> Option<Command> {
        self.seen().config.commands.get(service).cloned()
    }

    /// Ends the copy in order and starts it again where it is; what failed is tried at once.
    pub(in crate::node::operations) async fn restart_command(
        &self,
        (service, command): (ServiceId, Command),
        node: NodeId,
        what: &str,
    ) -> Result<Outcome, Refused> {
        let began = clock::now();
        let runs_there = {
            let (seen, seat) = (self.seen(), Seat::name(&service, &node));
            let holds = |name: &ServiceId| {
                let state = seen.agreed.services.get(name);
                let appointment = state.and_then(|state| state.appointment.as_ref());
                appointment.is_some_and(|it| it.primary == node)
            };
            holds(&service) || holds(&seat)
        };
        self.wish(&service, &node, Wish::Restart, what).await?;
        let message = |words: &str| format!("{service} on {node} {words}");
        let is_back = runs_there
            && self.until(&service, &node, InstanceState::Running, move_max(&command)).await;
        let took_ms = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        let outcome = match (runs_there, is_back) {
            (false, _) => Outcome::done(message("may be tried again: its failures are forgotten")),
            (true, true) => Outcome::done(message("was restarted")),
            (true, false) => Outcome::accepted(message("was told to end, and starts again")),
        };
        Ok(outcome
            .field("service", service.as_str())
            .field("node", node.as_str())
            .field("took_ms", took_ms))
    }
}
