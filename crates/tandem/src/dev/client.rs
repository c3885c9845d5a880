//! Talks HTTP to a node's API, in the few words that a drill needs.
//! In: an address. Out: `Status`, or what went wrong. Every answer has a time and a size limit.
//! Tested by: below, against a small server.

use super::Error;
use super::status::Status;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A status comes from memory; a node that takes longer is frozen or cut off.
const STATUS_MAX: Duration = Duration::from_millis(500);
/// A switchover waits for a checkpoint and for the target to catch up.
const SWITCHOVER_MAX: Duration = Duration::from_secs(60);
const BODY_BYTES_MAX: usize = 4 << 20;

/// What to ask of a switchover.
#[derive(Clone, Debug, Serialize)]
pub struct SwitchoverRequest {
    /// The next primary; none to let the cluster choose.
    pub to: Option<NodeId>,
}

/// Asks for the status.
///
/// # Errors
/// When there is no answer in time, or none that makes sense.
pub async fn status(address: SocketAddr) -> Result<Status, Error> {
    let body = ask(address, (Method::GET, "/v1/status", Bytes::new()), STATUS_MAX).await?;
    serde_json::from_slice(&body).map_err(|source| Error::ApiAnswer { address, source })
}

/// Asks for a switchover.
///
/// # Errors
/// When there is no answer in time, or it is refused.
pub async fn switchover(
    address: SocketAddr,
    service: &str,
    request: SwitchoverRequest,
) -> Result<(), Error> {
    let path = format!("/v1/services/{service}/switchover");
    let body =
        serde_json::to_vec(&request).map_err(|source| Error::ApiAnswer { address, source })?;
    ask(address, (Method::POST, &path, body.into()), SWITCHOVER_MAX).await.map(drop)
}

async fn ask(
    address: SocketAddr,
    request: (Method, &str, Bytes),
    limit: Duration,
) -> Result<Bytes, Error> {
    let (method, path, body) = request;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|source| Error::ApiRequest { path: path.into(), source })?;
    let (status, body) = timeout(limit, exchange(address, request))
        .await
        .map_err(|_| Error::ApiSilent { address, seconds: limit.as_secs() })??;
    if status.is_success() {
        return Ok(body);
    }
    let body = String::from_utf8_lossy(&body).trim().to_string();
    Err(Error::ApiRefused { address, status: status.as_u16(), body })
}

async fn exchange(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Error> {
    let talk = |source| Error::ApiTalk { address, source };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| Error::ApiConnect { address, source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(talk)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(talk)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(|source| Error::ApiBody { address, source })?;
        Ok((status, body.to_bytes()))
    };
    // The connection has to be driven, and ends with the answer.
    let driver = async {
        match connection.await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        error = driver => Err(talk(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::supervisor::{Supervisor, TaskKind};
    use axum::routing::{get, post};
    use std::sync::{Arc, Mutex};

    async fn server(tasks: &Supervisor, router: axum::Router) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = tasks.stopping();
        tasks.spawn("api", TaskKind::Session, async move {
            let _ =
                axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        });
        address
    }

    #[tokio::test]
    async fn asks_and_reads() {
        let tasks = Supervisor::new();
        let asked = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&asked);
        let router = axum::Router::new()
            .route("/v1/status", get(|| async { r#"{"cluster":"dev","leader":"c"}"# }))
            .route(
                "/v1/services/orders/switchover",
                post(move |body: String| async move {
                    let refused = body.contains("null");
                    *seen.lock().unwrap() = body;
                    match refused {
                        true => (StatusCode::CONFLICT, "nobody can take over"),
                        false => (StatusCode::OK, "{}"),
                    }
                }),
            );
        let address = server(&tasks, router).await;
        assert_eq!(status(address).await.unwrap().leader, Some(NodeId::new("c")));
        let to = Some(NodeId::new("b"));
        switchover(address, "orders", SwitchoverRequest { to }).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), r#"{"to":"b"}"#);
        let refused = switchover(address, "orders", SwitchoverRequest { to: None }).await;
        assert!(matches!(refused, Err(Error::ApiRefused { status: 409, .. })));
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn silence_and_refusal_are_told_apart() {
        // On an address of its own: no other test takes its port once it is free.
        let listener = tokio::net::TcpListener::bind("127.0.0.77:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(matches!(status(address).await, Err(Error::ApiSilent { .. })));
        drop(listener);
        assert!(matches!(status(address).await, Err(Error::ApiConnect { .. })));
    }
}
