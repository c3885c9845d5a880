//! Talks to the same module on other nodes, on behalf of an operator of this one.
//! In: `PeerVerb` as JSON inside `wire::Request::Operate`. Out: an answer as JSON, or a refusal.
//! A verb that another version does not know is refused there, and counts as no answer here (H46).
//! Tested by: below.

use super::super::before::trial::Trial;
use super::{NodeOperations, explain};
use crate::api::explain::{Finding, Planned};
use crate::api::status::ScheduledSwitchover;
use crate::driver::wire::{Request, Response, decode, encode};
use crate::peers::Channel;
use crate::runtime::clock;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::time::Timestamp;

/// What nodes ask each other for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PeerVerb {
    /// Forget a switchover that waits for its time.
    CancelScheduled(ServiceId),
    /// Examine yourself.
    Examine,
    /// Tell what your machine lacks for the commands of this configuration.
    Lacks(String),
    /// A switchover waits for its time here.
    Scheduled(ServiceId, ScheduledSwitchover),
    /// Tell the plans that you made for a service.
    Plans(ServiceId),
    /// Ask your PostgreSQL whether it takes these settings.
    TrySettings(Vec<Trial>),
    /// Tell what of the agreed configuration is not in force with you.
    Waits,
}

/// What a node found out about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Examined {
    pub version: String,
    /// Its wall clock.
    pub unix_ms: u64,
    pub findings: Vec<Finding>,
}

/// A peer's answer, and how long it took.
#[derive(Debug)]
pub(super) struct Answered<T> {
    pub node: NodeId,
    pub answer: Result<T, String>,
    pub sent_unix_ms: u64,
    pub took: Duration,
}

const CANCEL: Duration = Duration::from_secs(1);
/// An operator waits for the slowest node, and would rather not wait for a dead one.
const PLANS: Duration = Duration::from_millis(700);
/// Of each node's copy of divided work, among those of all of it.
const SEAT_PLANS_MAX: usize = 2;

impl NodeOperations {
    /// Asks every other node, all at once.
    pub(super) async fn ask_peers<T: DeserializeOwned>(
        &self,
        verb: &PeerVerb,
        deadline: Duration,
    ) -> Vec<Answered<T>> {
        let ground = self.ground();
        let verb = serde_json::to_string(verb).unwrap_or_default();
        let body = encode(&Request::Operate { verb, from: ground.me.clone() });
        let nodes = self.seen().config.nodes.keys().cloned().collect::<Vec<_>>();
        let asked = nodes.into_iter().filter(|node| *node != ground.me).map(|node| {
            let body = body.clone();
            async move {
                let (sent, sent_unix_ms) = (clock::now(), clock::unix_ms());
                let answer = ground.mesh.request(&node, Channel::Operate, body, deadline).await;
                let answer = answer.map_err(|error| error.to_string());
                let answer = answer.and_then(|body| read(&body));
                Answered { node, answer, sent_unix_ms, took: since(sent) }
            }
        });
        futures::future::join_all(asked).await
    }

    /// Whether a switchover was scheduled on any other node, and no longer is.
    pub(super) async fn cancelled_on_peers(&self, service: &ServiceId) -> bool {
        let verb = PeerVerb::CancelScheduled(service.clone());
        let answers = self.ask_peers::<bool>(&verb, CANCEL).await;
        answers.into_iter().any(|answered| answered.answer == Ok(true))
    }

    /// The plans of every node, newest first: the leader's controller among them, and each
    /// instance's own. Of nodes that do not answer in time there are none.
    pub(super) async fn plans_everywhere(&self, service: &ServiceId) -> Vec<Planned> {
        let verb = PeerVerb::Plans(service.clone());
        let answers = self.ask_peers::<Vec<Planned>>(&verb, PLANS).await;
        let others = answers.into_iter().filter_map(|answered| answered.answer.ok()).flatten();
        let mut plans: Vec<Planned> = self.plans_here(service).into_iter().chain(others).collect();
        plans.sort_by_key(|plan| std::cmp::Reverse(plan.unix_ms));
        plans
    }

    fn plans_here(&self, service: &ServiceId) -> Vec<Planned> {
        let ground = self.ground();
        let own = ground.explanations.of(service).into_iter().rev();
        let own = own.map(|plan| explain::planned(&ground.me, plan));
        let agreed = ground.consensus.state().borrow().state.clone();
        // A seat is a part of the service whose work is divided.
        let seats = agreed.spec.services.iter();
        let seats = seats.filter_map(|(id, spec)| Some((id, spec.seat.as_ref()?)));
        let of_seats = seats.filter(|(_, seat)| seat.of == *service).flat_map(|(id, seat)| {
            let plans = ground.explanations.of(id).into_iter().rev().take(SEAT_PLANS_MAX);
            plans.map(|plan| explain::planned_for(&ground.me, &seat.node, plan))
        });
        own.chain(of_seats).collect()
    }

    /// Another node asks on behalf of its operator.
    pub(super) async fn asked_by_peer(&self, verb: &str) -> Response {
        let answer = match serde_json::from_str::<PeerVerb>(verb) {
            Ok(PeerVerb::CancelScheduled(service)) => {
                serde_json::to_string(&self.cancel_scheduled(&service))
            }
            Ok(PeerVerb::Scheduled(service, scheduled)) => {
                serde_json::to_string(&self.note_scheduled(service, scheduled))
            }
            Ok(PeerVerb::Plans(service)) => serde_json::to_string(&self.plans_here(&service)),
            Ok(PeerVerb::TrySettings(trials)) => {
                serde_json::to_string(&self.judge_here(&trials).await)
            }
            Ok(PeerVerb::Lacks(text)) => serde_json::to_string(&self.lacks_here(&text).await),
            Ok(PeerVerb::Waits) => {
                let waits = self.ground().applied.borrow().waits.clone();
                serde_json::to_string(&waits)
            }
            Ok(PeerVerb::Examine) => serde_json::to_string(&self.examine_here().await),
            Err(error) => Err(error),
        };
        match answer {
            Ok(text) => Response::Outcome(text),
            Err(error) => Response::Refused(format!("not understood: {error}")),
        }
    }
}

fn since(sent: Timestamp) -> Duration {
    clock::now().since(sent)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    match decode::<Response>(body)? {
        Response::Outcome(text) => serde_json::from_str(&text).map_err(|error| error.to_string()),
        Response::Refused(why) => Err(why),
        Response::Taken => Err("an answer of another kind".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_have_stable_words() {
        let verb = PeerVerb::CancelScheduled("orders".into());
        assert_eq!(serde_json::to_string(&verb).unwrap(), r#"{"cancel_scheduled":"orders"}"#);
        assert_eq!(serde_json::to_string(&PeerVerb::Examine).unwrap(), r#""examine""#);
        let verb = PeerVerb::Plans("orders".into());
        assert_eq!(serde_json::to_string(&verb).unwrap(), r#"{"plans":"orders"}"#);
    }

    #[test]
    fn an_answer_is_read_or_refused_in_words() {
        let answer = encode(&Response::Outcome("true".into()));
        assert_eq!(read::<bool>(&answer), Ok(true));
        assert_eq!(read::<bool>(&encode(&Response::Refused("no".into()))), Err("no".into()));
        assert!(read::<bool>(&encode(&Response::Outcome("5".into()))).is_err());
    }
}
