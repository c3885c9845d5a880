//! Talks to operators who want something done: hands each verb to what carries it out.
//! In: `Verb`. Out: `Outcome` or `Refused`, each recorded as an event.
//! Not here: what takes more than a few lines (`moves/`, `members/`, `wishes.rs`).
//! Tested by: the modules named above, and against three nodes.

use super::balanced::Draining;
use super::moves::singleton::move_max;
use super::{NodeOperations, refusals};
use crate::api::operations::{Outcome, Refused, Verb};
use crate::config::NewNode;
use crate::consensus::Agreed;
use crate::telemetry::codes;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use crate::telemetry::problem::Problem;
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::command::{Command, ServiceCommand};
use tandem_core::cluster::state::{Applied, ClusterState, Phase, ServiceState};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::pairing::Kind;
use tandem_core::spec::NodeRole;

/// For the primaries of a node to move away.
const EMPTIED: Duration = Duration::from_secs(30);
/// The same where clients are let finish first; `copies/verbs.rs` has the rest of a verb's time.
const EMPTIED_MAX: Duration = Duration::from_secs(40);
/// For the newest agreed state to reach this node; an election may be under way.
const NEWEST: Duration = Duration::from_secs(3);
/// For a change to be seen on this node.
const SEEN: Duration = Duration::from_secs(1);

/// Carries a verb out, and records that it was asked and what was refused.
pub(super) async fn operate(operations: NodeOperations, verb: Verb) -> Result<Outcome, Refused> {
    let events = &operations.ground().events;
    let (name, service, subject) = describe(&verb);
    let draft = |kind, message: String| {
        let draft = Draft::new(kind, message).field("verb", name);
        let draft =
            if let Some(node) = &subject { draft.field("node", node.as_str()) } else { draft };
        if let Some(service) = &service { draft.service(service) } else { draft }
    };
    let on = service.as_ref().map(ServiceId::as_str).or(subject.as_ref().map(NodeId::as_str));
    let on = on.unwrap_or("the cluster");
    events.record(draft(EventKind::OperatorAsked, format!("{name} of {on}")));
    let outcome = carry_out(&operations, verb).await;
    if let Err(problem) = &outcome {
        let refused = draft(EventKind::OperatorRefused, format!("{name} of {on}: {problem}"));
        events.record(refused.field("code", problem.code.to_string()));
    }
    outcome
}

fn describe(verb: &Verb) -> (&'static str, Option<ServiceId>, Option<NodeId>) {
    match verb {
        Verb::Switchover { service, to, .. } => ("switchover", Some(service.clone()), to.clone()),
        Verb::CancelSwitchover { service } => ("cancel-switchover", Some(service.clone()), None),
        Verb::Failover { service, to, .. } => ("failover", Some(service.clone()), to.clone()),
        Verb::Pause { service } => ("pause", Some(service.clone()), None),
        Verb::Resume { service } => ("resume", Some(service.clone()), None),
        Verb::Restart { service, node } => ("restart", Some(service.clone()), node.clone()),
        Verb::Reload { service } => ("reload", Some(service.clone()), None),
        Verb::Reinit { service, node } => ("reinit", Some(service.clone()), Some(node.clone())),
        Verb::Drain { node } => ("drain", None, Some(node.clone())),
        Verb::Undrain { node } => ("undrain", None, Some(node.clone())),
        Verb::DrainUpstream { service, .. } => ("drain-upstream", Some(service.clone()), None),
        Verb::UndrainUpstream { service, .. } => ("undrain-upstream", Some(service.clone()), None),
        Verb::ApplyConfig { .. } => ("apply-config", None, None),
        Verb::AddNode { node, .. } => ("add-node", None, Some(node.clone())),
        Verb::RemoveNode { node } => ("remove-node", None, Some(node.clone())),
        Verb::MintToken { node } => ("mint-token", None, Some(node.clone())),
    }
}

/// Whether a verb is judged by what is agreed, which must then be the newest there is.
const fn decides(verb: &Verb) -> bool {
    match verb {
        Verb::Switchover { .. }
        | Verb::Failover { .. }
        | Verb::Pause { .. }
        | Verb::Resume { .. }
        | Verb::Restart { .. }
        | Verb::Reinit { .. }
        | Verb::Drain { .. }
        | Verb::Undrain { .. }
        | Verb::DrainUpstream { .. }
        | Verb::UndrainUpstream { .. }
        | Verb::ApplyConfig { .. }
        | Verb::AddNode { .. }
        | Verb::RemoveNode { .. } => true,
        Verb::CancelSwitchover { .. } | Verb::Reload { .. } | Verb::MintToken { .. } => false,
    }
}

async fn carry_out(operations: &NodeOperations, verb: Verb) -> Result<Outcome, Refused> {
    if decides(&verb) {
        let newest = operations.ground().consensus.linearizable(NEWEST).await;
        newest.map_err(|error| refusals::not_agreed("cannot decide on it", &error))?;
    }
    match verb {
        Verb::Switchover { service, to, at_unix_ms } => {
            operations.switchover(service, to, at_unix_ms).await
        }
        Verb::CancelSwitchover { service } => operations.cancel_switchover(service).await,
        Verb::Failover { service, to, accept_loss } => {
            operations.failover(service, to, accept_loss).await
        }
        Verb::Pause { service } => operations.pause(&service, true).await,
        Verb::Resume { service } => operations.pause(&service, false).await,
        Verb::Restart { service, node } => operations.restart(service, node).await,
        Verb::Reload { service } => operations.reload(service).await,
        Verb::Reinit { service, node } => operations.reinit(service, node).await,
        Verb::Drain { node } => operations.drain(node).await,
        Verb::Undrain { node } => operations.undrain(node).await,
        Verb::DrainUpstream { service, upstream } => {
            operations.drain_upstream(&service, &upstream, Draining::On).await
        }
        Verb::UndrainUpstream { service, upstream } => {
            operations.drain_upstream(&service, &upstream, Draining::Off).await
        }
        Verb::ApplyConfig { text, expected } => operations.apply_config(&text, expected).await,
        Verb::AddNode { node, address, witness, zone } => {
            let role = if witness { NodeRole::Witness } else { NodeRole::Data };
            operations.add_node(NewNode { node, address, role, zone }).await
        }
        Verb::RemoveNode { node } => operations.remove_node(node).await,
        Verb::MintToken { node } => operations.mint_token(node).await,
    }
}

/// The services whose primary a node is.
fn primary_of(state: &ClusterState, node: &NodeId) -> BTreeSet<ServiceId> {
    let is_here = |state: &ServiceState| {
        state.appointment.as_ref().is_some_and(|appointment| appointment.primary == *node)
    };
    // A seat stays where it is; what it owns moves.
    let is_seat = |it: &ServiceId| state.spec.services.get(it).is_some_and(|it| it.seat.is_some());
    let services = state.services.iter().filter(|(id, state)| !is_seat(id) && is_here(state));
    services.map(|(service, _)| service.clone()).collect()
}

/// Those of `services` whose primary does not serve yet: a verb that follows would be refused.
pub(super) fn unsettled<'a>(
    state: &ClusterState,
    services: &'a BTreeSet<ServiceId>,
) -> Vec<&'a ServiceId> {
    let is_settled = |service: &ServiceId| {
        state.services.get(service).is_none_or(|state| {
            let appointment = state.appointment.as_ref();
            state.switchover.is_none() && appointment.is_some_and(|it| it.phase == Phase::Active)
        })
    };
    services.iter().filter(|service| !is_settled(service)).collect()
}

/// Whether all of them are on their way to another node.
fn is_moving(state: &ClusterState, services: &BTreeSet<ServiceId>) -> bool {
    let is_moving =
        |it: &ServiceId| state.services.get(it).is_some_and(|it| it.switchover.is_some());
    services.iter().all(is_moving)
}

/// Why a node still has them. Only what is left of a command has `drain_max`.
pub(super) fn why_left(state: &ClusterState, services: &BTreeSet<ServiceId>) -> &'static str {
    let is_command = |it| it == Some(Kind::Command);
    let kind = |it: &ServiceId| state.spec.services.get(it).map(|spec| spec.pairing.kind());
    match is_moving(state, services) {
        true if services.iter().map(kind).all(is_command) => {
            "they are being moved: clients there have up to drain_max to end"
        }
        true => "they are being moved",
        false => "no other node can take over yet",
    }
}

impl NodeOperations {
    async fn pause(&self, service: &ServiceId, paused: bool) -> Result<Outcome, Refused> {
        let word = if paused { "pause" } else { "resume" };
        let what = format!("cannot {word} automatic failover of {service}");
        let make = |state: &ServiceState| {
            if state.paused == paused {
                let because = if paused { "it is paused" } else { "it is not paused" };
                return Err(Problem::new(codes::ALREADY_SO, &what, because, "tandem status"));
            }
            Ok(ServiceCommand::Pause { paused })
        };
        let asked = self.change(service, &what, &make).await?;
        let is_seen = |agreed: &Agreed| {
            agreed.state.services.get(service).is_none_or(|state| state.revision > asked)
        };
        let _ = self.wait(SEEN, is_seen).await;
        let word = if paused { "off" } else { "on" };
        let message = format!("automatic failover of {service} is {word}");
        Ok(Outcome::done(message).field("service", service.as_str()).field("paused", paused))
    }

    pub(super) async fn mark_draining(
        &self,
        node: &NodeId,
        draining: bool,
        what: &str,
    ) -> Result<(), Refused> {
        if !self.seen().agreed.spec.nodes.contains_key(node) {
            return Err(refusals::no_such_node(node));
        }
        let command = Command::Drain { node: node.clone(), draining };
        match self.agree(command, what).await? {
            Applied::Changed => Ok(()),
            Applied::Ignored { .. } => {
                let because = match draining {
                    true => format!("{node} is being emptied already"),
                    false => format!("{node} is not being emptied"),
                };
                Err(Problem::new(codes::ALREADY_SO, what, because, "tandem status shows it"))
            }
        }
    }

    async fn drain(&self, node: NodeId) -> Result<Outcome, Refused> {
        let what = format!("cannot empty {node}");
        let on_it = primary_of(&self.seen().agreed, &node);
        self.mark_draining(&node, true, &what).await?;
        let is_empty = |agreed: &Agreed| {
            agreed.state.draining.contains(&node)
                && primary_of(&agreed.state, &node).is_empty()
                && unsettled(&agreed.state, &on_it).is_empty()
        };
        let commands = on_it.iter().filter_map(|service| self.command_of(service));
        let longest = commands.map(|it| move_max(&it)).max().unwrap_or_default();
        if self.wait(EMPTIED.max(longest).min(EMPTIED_MAX), is_empty).await.is_some() {
            return Ok(self.emptied(node).await);
        }
        let agreed = self.seen().agreed;
        let left = primary_of(&agreed, &node);
        let services: Vec<String> = if left.is_empty() {
            unsettled(&agreed, &on_it).iter().map(ToString::to_string).collect()
        } else {
            left.iter().map(ToString::to_string).collect()
        };
        let message = if left.is_empty() {
            let names = services.join(", ");
            format!("{node} is no primary any more; the new primary of {names} does not serve yet")
        } else {
            let because = why_left(&agreed, &left);
            let names = services.join(", ");
            format!("{node} will not become primary, and still is of {names}: {because}")
        };
        Ok(Outcome::accepted(message).field("node", node.as_str()).field("services", services))
    }

    /// A node without primaries, once its copies have ended as well.
    async fn emptied(&self, node: NodeId) -> Outcome {
        let message = format!("{node} is no primary, and will not become one");
        let left = self.until_no_copy(&node).await;
        if left.is_empty() {
            return Outcome::done(message).field("node", node.as_str());
        }
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        let because = "no other copy serves in its place yet, or clients are still there";
        let message = format!("{message}; it still has a copy of {}: {because}", left.join(", "));
        Outcome::accepted(message).field("node", node.as_str()).field("services", left)
    }

    async fn undrain(&self, node: NodeId) -> Result<Outcome, Refused> {
        let what = format!("cannot use {node} again");
        self.mark_draining(&node, false, &what).await?;
        let is_seen = |agreed: &Agreed| !agreed.state.draining.contains(&node);
        let _ = self.wait(SEEN, is_seen).await;
        let message = format!("{node} may be primary again");
        Ok(Outcome::done(message).field("node", node.as_str()))
    }
}
