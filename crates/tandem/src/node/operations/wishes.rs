//! Talks to instances for operators: restart, reload, copy again; on whatever node they are.
//! In: a service, a node. Out: `Outcome`, once the instance is back or the time is over.
//! Keeps: a primary is never stopped without a successor; INV-11 a copy is thrown away only once no
//! acknowledged commit rests on it, and never two at once.
//! Not here: what the instance does (`driver/instance/wishes.rs`).
//! Tested by: `tests/failover/main.rs`, against three nodes.

use super::seen::{Seen, ServiceSeen};
use super::{NodeOperations, refusals};
use crate::api::operations::{Outcome, Refused};
use crate::api::status::InstanceState;
use crate::config::Command;
use crate::consensus::Agreed;
use crate::driver::instance::wishes::{Asked, CHECKPOINT};
use crate::driver::wire::{Request, Response, Wish, decode, encode};
use crate::peers::Channel;
use crate::runtime::clock;
use crate::telemetry::codes;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use crate::telemetry::problem::{Problem, chain};
use std::time::Duration;
use tandem_core::cluster::state::ServiceState;
use tandem_core::facts::Data;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec::{Durability, NodeRole};
use tokio::sync::oneshot;

/// Every stage of a stop, and some more.
const STOP: Duration = Duration::from_secs(15);
/// For a restarted instance to be fed again.
const BACK: Duration = Duration::from_secs(45);
/// For a new copy; a large one goes on, and is followed by events.
const COPIED: Duration = Duration::from_secs(60);
/// For the rule without a copy that is to go.
const UNCOUNTED: Duration = Duration::from_secs(10);
/// One start may fail for what has passed at the next.
const STARTS_MAX: u32 = 2;
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Names the nodes on which settings were not loaded again, if any: those go on with the old ones.
pub(super) fn not_reloaded(
    what: &str,
    done: &[String],
    answers: &[(&NodeId, Result<(), Problem>)],
) -> Result<(), Problem> {
    let failed: Vec<String> = answers
        .iter()
        .filter_map(|(node, answer)| {
            let because = &answer.as_ref().err()?.because;
            let named = because.starts_with(&format!("{node}:"));
            Some(if named { because.clone() } else { format!("{node}: {because}") })
        })
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let done = if done.is_empty() { "no node".to_owned() } else { done.join(", ") };
    let because = format!("{}; loaded again on {done}", failed.join("; "));
    let advice = "tandem status; then repeat it: loading settings twice does no harm";
    Err(Problem::new(codes::OPERATION_FAILED, what, because, advice))
}

impl NodeOperations {
    /// Hands a wish to one of this node's own instances.
    pub(super) async fn wish_here(&self, service: &ServiceId, wish: Wish) -> Response {
        let refused = |why: &str| Response::Refused(why.to_owned());
        let ground = self.ground();
        let instance = ground.instances.get(service).map(|instance| instance.wishes.clone());
        let command = || ground.driven.wishes(service);
        let wishes = instance.or_else(command).or_else(|| ground.copies.wishes(service));
        let Some(wishes) = wishes else {
            return refused("this node has no instance of it");
        };
        let (answer, answered) = oneshot::channel();
        if wishes.try_send(Asked { wish, answer }).is_err() {
            return refused("other operations on it are under way");
        }
        match tokio::time::timeout(patience(wish), answered).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => refused("the node stops"),
            Err(_) => refused("it did not answer in time"),
        }
    }

    /// Hands a wish to an instance, wherever it is.
    pub(super) async fn wish(
        &self,
        service: &ServiceId,
        node: &NodeId,
        wish: Wish,
        what: &str,
    ) -> Result<(), Problem> {
        let response = if *node == self.ground().me {
            self.wish_here(service, wish).await
        } else {
            let body = encode(&Request::Local { service: service.clone(), wish });
            let asked =
                self.ground().mesh.request(node, Channel::Operate, body, patience(wish)).await;
            let failed = |because: String| {
                let advice = "tandem doctor shows which nodes cannot be reached";
                Problem::new(codes::OPERATION_FAILED, what, because, advice)
            };
            let body = asked.map_err(|error| failed(chain(&error)))?;
            decode::<Response>(&body).map_err(failed)?
        };
        match response {
            Response::Taken | Response::Outcome(_) => Ok(()),
            Response::Refused(because) => {
                let because = format!("{node}: {because}");
                Err(Problem::new(codes::OPERATION_FAILED, what, because, "tandem status"))
            }
        }
    }

    pub(super) async fn restart(
        &self,
        service: ServiceId,
        node: Option<NodeId>,
    ) -> Result<Outcome, Refused> {
        let command = self.command_of(&service);
        let Some(node) = node.or_else(|| self.only_copy(&service, command.as_ref())) else {
            let what = format!("cannot restart {service}");
            let Some(command) = command.filter(|command| command.copies.is_some()) else {
                self.service_state(&service)?;
                let because = "which of its instances is meant was not said";
                let advice = "name its node: tandem restart NAME --node NODE";
                return Err(Problem::new(codes::ARGUMENT, what, because, advice));
            };
            return self.restart_copies((service, command), &what).await;
        };
        let what = format!("cannot restart {service} on {node}");
        if let Some(command) = command.as_ref().filter(|command| command.copies.is_some()) {
            return self.restart_copy((service, command.clone()), node, &what).await;
        }
        if let Some(command) = self.command_of(&service) {
            return self.restart_command((service, command), node, &what).await;
        }
        let began = clock::now();
        let (is_primary, is_suspect) = {
            let seen = self.seen();
            let of = data_node(&seen, &service, &node, &what)?;
            let own = of.instance(&node);
            let is_suspect = own.is_some_and(|own| matches!(own.data, Data::Suspect { .. }));
            (of.appointment().is_some_and(|it| it.primary == node), is_suspect)
        };
        if is_suspect {
            // Whoever asks for it by name looked at the disk (H26).
            self.wish(&service, &node, Wish::Restart, &what).await?;
            let message = format!("{service} on {node} may start again: its disk is trusted");
            let outcome = Outcome::accepted(message).field("service", service.as_str());
            return Ok(outcome.field("node", node.as_str()));
        }
        if is_primary {
            // A planned move stops and starts it, and clients are held meanwhile.
            self.switch_over_now(&service, None).await.map_err(|problem| Problem {
                what: format!("{what}, the primary, without a successor"),
                ..problem
            })?;
        } else {
            self.wish(&service, &node, Wish::Restart, &what).await?;
        }
        let is_back = tokio::select! {
            back = self.until(&service, &node, InstanceState::Streaming, BACK) => back,
            () = self.does_not_start(&service, &node) => {
                let because = format!("{service} on {node} was stopped, and does not start");
                let advice = "tandem doctor says why, as postgres.log on that node does";
                return Err(Problem::new(codes::OPERATION_FAILED, what, because, advice));
            }
        };
        let message = match (is_back, is_primary) {
            (true, false) => format!("{service} on {node} was restarted"),
            (true, true) => {
                format!("{service} on {node} was restarted; another node is primary now")
            }
            (false, _) => format!("{service} on {node} was stopped, and is on its way back"),
        };
        let took_ms = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        let outcome = if is_back { Outcome::done(message) } else { Outcome::accepted(message) };
        Ok(outcome
            .field("service", service.as_str())
            .field("node", node.as_str())
            .field("switched_over", is_primary)
            .field("took_ms", took_ms))
    }

    /// Where the one copy of a command runs.
    fn only_copy(&self, service: &ServiceId, command: Option<&Command>) -> Option<NodeId> {
        command.filter(|command| command.copies.is_none())?;
        let seen = self.seen();
        seen.service(service)?.appointment().map(|it| it.primary.clone())
    }

    pub(super) async fn reload(&self, service: ServiceId) -> Result<Outcome, Refused> {
        let what = format!("cannot reload {service}");
        self.service_state(&service)?;
        let nodes: Vec<NodeId> = self.seen().agreed.spec.data_nodes().cloned().collect();
        let wishes = nodes.iter().map(|node| self.wish(&service, node, Wish::Reload, &what));
        let answers = futures::future::join_all(wishes).await;
        let answers: Vec<(&NodeId, Result<(), Problem>)> = nodes.iter().zip(answers).collect();
        let done: Vec<String> =
            answers.iter().filter(|(_, it)| it.is_ok()).map(|(node, _)| node.to_string()).collect();
        if !done.is_empty() {
            let words = format!("reloaded on {}", done.join(", "));
            let event = Draft::new(EventKind::ServiceReloaded, words).service(&service);
            self.ground().events.record(event.field("nodes", done.clone()));
        }
        not_reloaded(&what, &done, &answers)?;
        let message = format!("the settings of {service} were loaded again on every node");
        Ok(Outcome::done(message).field("nodes", done))
    }

    pub(super) async fn reinit(
        &self,
        service: ServiceId,
        node: NodeId,
    ) -> Result<Outcome, Refused> {
        let what = format!("cannot copy {service} on {node} again");
        let began = clock::now();
        {
            let seen = self.seen();
            spare(data_node(&seen, &service, &node, &what)?, &node, &what)?;
            // Its copy counts for nothing meanwhile because the node is drained, all of it.
            let leads = |state: &ServiceState| {
                state.appointment.as_ref().is_some_and(|appointment| appointment.primary == node)
            };
            let led = seen.services().find(|of| leads(of.state)).map(|of| of.name);
            if let Some(other) = led {
                let because = format!("{node} is the primary of {other}, which would move");
                let advice = format!("tandem drain {node} first, then this, then undrain it");
                return Err(Problem::new(codes::PRIMARY_NOT_TOUCHED, what, because, advice));
            }
        }
        let was_draining = self.seen().agreed.draining.contains(&node);
        if !was_draining {
            self.mark_draining(&node, true, &what).await?;
        }
        let asked = self.throw_away(&service, &node, &what).await;
        if !was_draining {
            // Its copy counts again once it streams anew. What came of the copy is the answer, so
            // that this failed is for the log: status shows it, and `tandem undrain` ends it.
            if let Err(problem) = self.mark_draining(&node, false, &what).await {
                tracing::warn!(%node, because = problem.because, "it may still be draining");
            }
        }
        asked?;
        let is_back = self.until(&service, &node, InstanceState::Streaming, COPIED).await;
        let took_ms = u64::try_from(clock::now().since(began).as_millis()).unwrap_or(u64::MAX);
        let outcome = if is_back {
            Outcome::done(format!("{service} on {node} has a new copy, and streams"))
        } else {
            Outcome::accepted(format!("{service} on {node} is being copied"))
        };
        Ok(outcome
            .field("service", service.as_str())
            .field("node", node.as_str())
            .field("took_ms", took_ms))
    }

    /// Throws a copy away once no commit rests on it alone: others confirm each commit without it,
    /// by a rule that is agreed and proven, and nobody else's copy goes at the same time.
    async fn throw_away(
        &self,
        service: &ServiceId,
        node: &NodeId,
        what: &str,
    ) -> Result<(), Problem> {
        let must_wait = {
            let seen = self.seen();
            let of = data_node(&seen, service, node, what)?;
            spare(of, node, what)?;
            match of.spec.durability {
                Durability::Quorum { .. } => true,
                // With fewer its owner accepts that commits rest on one copy less.
                Durability::Preferred { acks } => others_streaming(of, node) >= acks,
                Durability::Async { .. } => false,
            }
        };
        let without = |agreed: &Agreed| {
            let state = agreed.state.services.get(service);
            let appointment = state.and_then(|state| state.appointment.as_ref());
            appointment.is_some_and(|it| it.rules.iter().all(|rule| !rule.standbys.contains(node)))
        };
        if must_wait && self.wait(UNCOUNTED, without).await.is_none() {
            let because = format!("commits still wait for {node}");
            let advice = "tandem explain says why; bring the other standbys back first";
            return Err(Problem::new(codes::WOULD_LOSE_QUORUM, what, because, advice));
        }
        self.wish(service, node, Wish::Reinit, what).await
    }

    /// Waits until a node says that its server ended more than once before it answered.
    async fn does_not_start(&self, service: &ServiceId, node: &NodeId) {
        let starts_failed = || {
            let seen = self.seen();
            let own = seen.service(service).and_then(|of| of.instance(node));
            own.map_or(0, |own| own.starts_failed)
        };
        while starts_failed() < STARTS_MAX {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until a node's instance is in a state, which it left before this was called.
    pub(super) async fn until(
        &self,
        service: &ServiceId,
        node: &NodeId,
        state: InstanceState,
        limit: Duration,
    ) -> bool {
        let mut changed = self.ground().hub.changed();
        // Until its facts say so, it is shown as it was before.
        let mut left = false;
        let reached = async {
            loop {
                let now = {
                    let seen = self.seen();
                    let of = seen.service(service);
                    of.map(|of| super::status::instance_state(of, node))
                };
                left |= now != Some(state);
                if left && now == Some(state) {
                    return;
                }
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        };
        tokio::time::timeout(limit, reached).await.is_ok()
    }
}

const fn patience(wish: Wish) -> Duration {
    match wish {
        Wish::Restart | Wish::Reload | Wish::Reinit | Wish::Leave => STOP,
        Wish::Checkpoint => CHECKPOINT,
    }
}

/// The service, if the node holds a copy of it.
fn data_node<'a>(
    seen: &'a Seen,
    service: &ServiceId,
    node: &NodeId,
    what: &str,
) -> Result<ServiceSeen<'a>, Problem> {
    let of = seen.service(service).ok_or_else(|| refusals::no_such_service(service))?;
    let spec = seen.agreed.spec.nodes.get(node).ok_or_else(|| refusals::no_such_node(node))?;
    match spec.role {
        NodeRole::Data => Ok(of),
        NodeRole::Witness => Err(refusals::witness(node, what)),
    }
}

/// Whether the cluster can do without a node's copy for as long as it takes to make another.
/// Standbys that its primary feeds and that stay, without `node`.
fn others_streaming(of: ServiceSeen<'_>, node: &NodeId) -> usize {
    let draining = &of.seen.agreed.draining;
    let stays = |it: &NodeId| it != node && !draining.contains(it);
    of.serving_primary().map_or(0, |serving| {
        serving.replicas.iter().filter(|(it, copy)| stays(it) && copy.streaming).count()
    })
}

pub(super) fn spare(of: ServiceSeen<'_>, node: &NodeId, what: &str) -> Result<(), Problem> {
    let refuse =
        |code, because: String, advice: &str| Err(Problem::new(code, what, because, advice));
    let Some(appointment) = of.appointment() else {
        return Err(refusals::no_primary(of.name, what));
    };
    let primary = &appointment.primary;
    if primary == node {
        let because = format!("{node} is the primary of {}", of.name);
        return refuse(codes::PRIMARY_NOT_TOUCHED, because, "switch over first");
    }
    if of.serving_primary().is_none() {
        let because = format!("{primary} does not serve, so there is nobody to copy from");
        return refuse(codes::PRIMARY_NOT_TOUCHED, because, "wait until tandem status shows it");
    }
    let holds_data = of.instance(node).is_some_and(|own| own.data == Data::Present);
    if let Durability::Quorum { acks } = of.spec.durability
        && holds_data
    {
        let left = others_streaming(of, node);
        if left < acks {
            let because = format!(
                "{left} standbys would be left, and each commit needs {acks}: writes would wait"
            );
            return refuse(codes::WOULD_LOSE_QUORUM, because, "bring another standby back first");
        }
    }
    Ok(())
}
