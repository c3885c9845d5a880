//! Talks to operators and programs over HTTP: status, events, verbs, role checks and metrics.
//! In: requests, and an `Operations` that answers them. Out: JSON, server-sent events, Prometheus
//! text. Not here: who may do what and how it is done (the implementor of `Operations`).
//! Keeps: H41, a role check answers from the lease of this moment, never from what was once so.
//! Tested by: `tests/`, against a made-up node, over real sockets.

pub mod balanced;
pub mod events;
pub mod explain;
pub mod metrics;
pub mod operations;
pub mod partitions;
pub mod problem;
pub mod request;
pub mod role;
pub mod server;
pub mod status;
pub mod verbs;

#[cfg(test)]
pub(crate) mod tests;

use crate::api::operations::{Operations, PartitionOf};
use crate::api::problem::Answer;
use crate::api::request::{Parameters, Path, bad};
use crate::runtime::supervisor::Supervisor;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use axum::extract::{OriginalUri, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use std::sync::Arc;
use tandem_core::ids::{PartitionId, ServiceId};
use tokio::sync::Semaphore;

/// What every request may use.
#[derive(Clone)]
pub(crate) struct Shared {
    operations: Arc<dyn Operations>,
    supervisor: Supervisor,
    /// Verbs at work at once; a further one is refused.
    verbs: Arc<Semaphore>,
    /// Event streams open at once; a further one is refused.
    streams: Arc<Semaphore>,
    limits: server::Limits,
}

pub(crate) fn router(
    operations: Arc<dyn Operations>,
    supervisor: Supervisor,
    limits: server::Limits,
) -> Router {
    let shared = Shared {
        operations,
        supervisor,
        verbs: Arc::new(Semaphore::new(limits.verbs_max)),
        streams: Arc::new(Semaphore::new(limits.streams_max)),
        limits,
    };
    Router::new()
        .route("/v1/status", get(show_status))
        .route("/v1/events", get(events::show))
        .route("/v1/explain/{service}", get(explain_service))
        .route("/v1/doctor", get(run_doctor))
        .route("/v1/config", get(show_config).put(verbs::apply_config))
        .route("/v1/tokens", post(verbs::mint_token))
        .route("/v1/nodes", post(verbs::add_node))
        .route("/v1/nodes/{name}", delete(verbs::remove_node))
        .route("/v1/nodes/{name}/drain", post(verbs::drain))
        .route("/v1/nodes/{name}/undrain", post(verbs::undrain))
        .route("/v1/services/{name}", get(show_service))
        .route(
            "/v1/services/{name}/switchover",
            post(verbs::switchover).delete(verbs::cancel_switchover),
        )
        .route("/v1/services/{name}/failover", post(verbs::failover))
        .route("/v1/services/{name}/pause", post(verbs::pause))
        .route("/v1/services/{name}/resume", post(verbs::resume))
        .route("/v1/services/{name}/restart", post(verbs::restart))
        .route("/v1/services/{name}/reload", post(verbs::reload))
        .route("/v1/services/{name}/reinit", post(verbs::reinit))
        .route("/v1/services/{name}/partitions", get(partitions::show))
        .route("/v1/services/{name}/partitions/{id}/release", post(partitions::release))
        .route("/v1/services/{name}/upstreams/{address}/drain", post(verbs::drain_upstream))
        .route("/v1/services/{name}/upstreams/{address}/undrain", post(verbs::undrain_upstream))
        .route("/metrics", get(show_metrics))
        .merge(role::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(request::refuse_foreign_pages))
        .with_state(shared)
}

async fn show_status(State(shared): State<Shared>) -> Json<status::Status> {
    Json(shared.operations.status())
}

async fn show_service(
    State(shared): State<Shared>,
    Path(name): Path<ServiceId>,
) -> Answer<Json<balanced::AnyService>> {
    let status = shared.operations.status();
    let run = status.services.into_iter().find(|it| it.name == name);
    let other = status.balanced.into_iter().find(|it| it.name == name);
    let found = match (run, other) {
        (Some(run), other) => {
            let door = other.map(Box::new);
            Some(balanced::AnyService::Run(Box::new(status::ServiceStatus { door, ..run })))
        }
        (None, other) => other.map(|it| balanced::AnyService::Balanced(Box::new(it))),
    };
    found.map(Json).ok_or_else(|| problem::no_such_service(&name).into())
}

/// What of a service to explain; without either, all of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct What {
    partition: Option<PartitionId>,
    key: Option<String>,
}

async fn explain_service(
    State(shared): State<Shared>,
    Path(service): Path<ServiceId>,
    Parameters(What { partition, key }): Parameters<What>,
) -> Answer<Response> {
    let of = match (partition, key) {
        (None, None) => {
            let explanation = shared.operations.explain(&service).await;
            let explanation = explanation.ok_or_else(|| problem::no_such_service(&service))?;
            return Ok(Json(explanation).into_response());
        }
        (Some(partition), None) => PartitionOf::Number(partition),
        (None, Some(key)) => PartitionOf::Key(key),
        (Some(_), Some(_)) => {
            let because = "it has both partition and key";
            return Err(bad("cannot tell which partition is meant", because, "ask for one").into());
        }
    };
    Ok(Json(shared.operations.partition(&service, of).await?).into_response())
}

async fn run_doctor(State(shared): State<Shared>) -> Json<Vec<explain::Finding>> {
    Json(shared.operations.doctor().await)
}

async fn show_config(State(shared): State<Shared>) -> Json<operations::RunningConfig> {
    Json(shared.operations.config())
}

async fn show_metrics(State(shared): State<Shared>) -> Response {
    let text = metrics::text(&shared.operations.metrics());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn no_such_path(OriginalUri(uri): OriginalUri) -> problem::Rejection {
    Problem::new(
        codes::NO_SUCH_PATH,
        format!("cannot answer {}", uri.path()),
        "there is nothing at that path",
        "GET /v1/status; docs/operating/api.md lists every path",
    )
    .into()
}

async fn method_not_allowed(OriginalUri(uri): OriginalUri) -> problem::Rejection {
    Problem::new(
        codes::METHOD_NOT_ALLOWED,
        format!("cannot do that at {}", uri.path()),
        "the path does not take that method",
        "GET to look, POST to act; docs/operating/api.md lists every path",
    )
    .into()
}
