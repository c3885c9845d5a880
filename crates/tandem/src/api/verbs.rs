//! Talks to operators who want something done: one handler per verb, one way to carry it out.
//! In: a request. Out: 200 done, 202 accepted, or a `Problem` with its own status.
//! A verb runs in its own task: an asker who goes away does not leave it half done. At most
//! `Limits::verbs_max` run at once, a further one is refused; after `Limits::verb` the asker is
//! told that the outcome is not known, and the verb goes on.
//! Tested by: `tests/verbs.rs`.

use crate::api::Shared;
use crate::api::operations::{Outcome, Progress, Verb};
use crate::api::problem::{Answer, Rejection};
use crate::api::request::{JsonBody, Path};
use crate::runtime::supervisor::TaskKind;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId};
use tokio::sync::oneshot;

type Done = Answer<(StatusCode, Json<Outcome>)>;

/// Body of a switchover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchoverRequest {
    /// The next primary.
    #[serde(default)]
    pub to: Option<NodeId>,
    /// Not before this moment, milliseconds since 1970.
    #[serde(default)]
    pub at_unix_ms: Option<u64>,
}

/// Body of a failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverRequest {
    /// The next primary.
    #[serde(default)]
    pub to: Option<NodeId>,
    /// Go on although acknowledged commits may be lost.
    #[serde(default)]
    pub accept_loss: bool,
}

/// Body of a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartRequest {
    /// Whose instance; without it, every copy of a command, one at a time.
    #[serde(default)]
    pub node: Option<NodeId>,
}

/// Body of what is done to one node: reinit, a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRequest {
    /// Which.
    pub node: NodeId,
}

/// Body of a new configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigRequest {
    /// The file's text.
    pub text: String,
    /// The version it was made from; without it, whatever is there is replaced.
    #[serde(default)]
    pub expected: Option<ConfigVersion>,
}

/// Body of a new member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// Its name.
    pub node: NodeId,
    /// Where its peers reach it.
    pub address: String,
    /// It votes but holds no data.
    #[serde(default)]
    pub witness: bool,
    /// Where it stands.
    #[serde(default)]
    pub zone: Option<String>,
}

/// Body of what needs nothing more; a field that is not known is refused all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NothingMore {}

pub(crate) async fn switchover(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    JsonBody(SwitchoverRequest { to, at_unix_ms }): JsonBody<SwitchoverRequest>,
) -> Done {
    operate(&shared, Verb::Switchover { service, to, at_unix_ms }).await
}

pub(crate) async fn cancel_switchover(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
) -> Done {
    operate(&shared, Verb::CancelSwitchover { service }).await
}

pub(crate) async fn failover(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    JsonBody(FailoverRequest { to, accept_loss }): JsonBody<FailoverRequest>,
) -> Done {
    operate(&shared, Verb::Failover { service, to, accept_loss }).await
}

pub(crate) async fn pause(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    JsonBody(NothingMore {}): JsonBody<NothingMore>,
) -> Done {
    operate(&shared, Verb::Pause { service }).await
}

pub(crate) async fn resume(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    JsonBody(NothingMore {}): JsonBody<NothingMore>,
) -> Done {
    operate(&shared, Verb::Resume { service }).await
}

pub(crate) async fn reload(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    JsonBody(NothingMore {}): JsonBody<NothingMore>,
) -> Done {
    operate(&shared, Verb::Reload { service }).await
}

pub(crate) async fn restart(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    JsonBody(RestartRequest { node }): JsonBody<RestartRequest>,
) -> Done {
    operate(&shared, Verb::Restart { service, node }).await
}

pub(crate) async fn reinit(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    JsonBody(NodeRequest { node }): JsonBody<NodeRequest>,
) -> Done {
    operate(&shared, Verb::Reinit { service, node }).await
}

pub(crate) async fn drain(
    State(shared): State<Shared>,
    Path(node): Path<NodeId>,
    JsonBody(NothingMore {}): JsonBody<NothingMore>,
) -> Done {
    operate(&shared, Verb::Drain { node }).await
}

pub(crate) async fn undrain(
    State(shared): State<Shared>,
    Path(node): Path<NodeId>,
    JsonBody(NothingMore {}): JsonBody<NothingMore>,
) -> Done {
    operate(&shared, Verb::Undrain { node }).await
}

pub(crate) async fn drain_upstream(
    State(shared): State<Shared>,
    Path((service, upstream)): Path<(ServiceId, String)>,
    JsonBody(NothingMore {}): JsonBody<NothingMore>,
) -> Done {
    operate(&shared, Verb::DrainUpstream { service, upstream }).await
}

pub(crate) async fn undrain_upstream(
    State(shared): State<Shared>,
    Path((service, upstream)): Path<(ServiceId, String)>,
    JsonBody(NothingMore {}): JsonBody<NothingMore>,
) -> Done {
    operate(&shared, Verb::UndrainUpstream { service, upstream }).await
}

pub(crate) async fn add_node(
    State(shared): State<Shared>,
    JsonBody(MemberRequest { node, address, witness, zone }): JsonBody<MemberRequest>,
) -> Done {
    operate(&shared, Verb::AddNode { node, address, witness, zone }).await
}

pub(crate) async fn remove_node(State(shared): State<Shared>, Path(node): Path<NodeId>) -> Done {
    operate(&shared, Verb::RemoveNode { node }).await
}

pub(crate) async fn apply_config(
    State(shared): State<Shared>,
    JsonBody(ConfigRequest { text, expected }): JsonBody<ConfigRequest>,
) -> Done {
    operate(&shared, Verb::ApplyConfig { text, expected }).await
}

pub(crate) async fn mint_token(
    State(shared): State<Shared>,
    JsonBody(NodeRequest { node }): JsonBody<NodeRequest>,
) -> Done {
    operate(&shared, Verb::MintToken { node }).await
}

async fn operate(shared: &Shared, verb: Verb) -> Done {
    let Ok(place) = Arc::clone(&shared.verbs).try_acquire_owned() else {
        return Err(Rejection(full("operations", shared.limits.verbs_max)));
    };
    let work = shared.operations.operate(verb);
    let (answer, answered) = oneshot::channel();
    shared.supervisor.spawn("operator's verb", TaskKind::Session, async move {
        let outcome = work.await;
        drop(place);
        // The asker may be gone; the daemon recorded the outcome as an event.
        let _ = answer.send(outcome);
    });
    match tokio::time::timeout(shared.limits.verb, answered).await {
        Ok(Ok(Ok(outcome))) => Ok((status_of(&outcome), Json(outcome))),
        Ok(Ok(Err(refused))) => Err(Rejection(refused)),
        Ok(Err(_)) => Err(Rejection(unknown("it broke off; the node's log says more"))),
        Err(_) => Err(Rejection(unknown("it did not end in time, and goes on"))),
    }
}

const fn status_of(outcome: &Outcome) -> StatusCode {
    match outcome.progress {
        Progress::Done => StatusCode::OK,
        Progress::Accepted => StatusCode::ACCEPTED,
    }
}

fn unknown(because: &str) -> Problem {
    Problem::new(
        codes::OUTCOME_UNKNOWN,
        "cannot say what came of it",
        because,
        "look at tandem status and tandem events before you repeat it",
    )
}

/// As many are served as may be.
pub(crate) fn full(what: &str, at_most: usize) -> Problem {
    Problem::new(
        codes::API_FULL,
        format!("cannot take more {what}"),
        format!("{at_most} are under way, as many as are allowed"),
        "try again shortly, or close what is not needed",
    )
}
