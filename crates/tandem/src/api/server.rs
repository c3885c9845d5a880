//! Talks to connections of the API: accepts them, bounds them, ends them.
//! In: an address. Out: answers of the router.
//! Limits: connections, the time for a request's head (idle connections too) and body, the size of
//! both, the time a reader may leave our bytes unread. Full: a connection gets 503 and is closed.
//! Not here: which address (the configuration; loopback by default).
//! Tested by: `tests/limits.rs`.

use crate::api::operations::Operations;
use crate::api::router;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// What the API may use of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once: a few load balancers, a monitor and operators.
    pub connections_max: usize,
    /// Event streams at once; fewer than connections, so that they leave room for role checks.
    pub streams_max: usize,
    /// Verbs at work at once.
    pub verbs_max: usize,
    /// For the head of a request, and between two requests of a connection.
    pub head_read: Duration,
    /// For the body of a request.
    pub body_read: Duration,
    /// Our bytes may stay unacknowledged for so long.
    pub unread: Duration,
    /// Between two signs of life on a quiet event stream.
    pub keep_alive: Duration,
    /// Until an asker is told that the outcome of a verb is not known.
    pub verb: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            streams_max: 64,
            verbs_max: 8,
            head_read: Duration::from_secs(30),
            body_read: Duration::from_secs(10),
            unread: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            verb: Duration::from_secs(90),
        }
    }
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for the API")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let Error::Listen { address, source } = &error;
        let what = format!("cannot listen on {address} for the API");
        Self::caused_by(codes::CANNOT_LISTEN, what, source, "set the node's API address")
    }
}

/// Serves the API until the supervisor stops; the address it listens on.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    operations: Arc<dyn Operations>,
    supervisor: Supervisor,
) -> Result<SocketAddr, Error> {
    serve_within(Limits::default(), address, operations, supervisor).await
}

/// As `serve`, with other limits.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve_within(
    limits: Limits,
    address: SocketAddr,
    operations: Arc<dyn Operations>,
    supervisor: Supervisor,
) -> Result<SocketAddr, Error> {
    let refused = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let router = router(operations, supervisor.clone(), limits);
    let door = Door { limits, router, supervisor: supervisor.clone() };
    supervisor.spawn("api listener", TaskKind::Essential, door.accept(listener));
    Ok(bound)
}

struct Door {
    limits: Limits,
    router: Router,
    supervisor: Supervisor,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let stopping = self.supervisor.stopping();
        let places = Arc::new(Semaphore::new(self.limits.connections_max));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => self.start(stream, place),
                    Err(_) => turn_away(&stream),
                },
                Err(error) => {
                    // Out of file descriptors, or the client is gone: the listener itself lives.
                    tracing::warn!(%error, "the API cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, place: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.unread));
        let (router, limits) = (self.router.clone(), self.limits);
        let stopping = self.supervisor.stopping();
        self.supervisor.spawn("api connection", TaskKind::Session, async move {
            converse(stream, router, limits, stopping).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, router: Router, limits: Limits, stopping: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an API connection broke off");
    }
}

/// Says why in one packet and closes, without waiting for the other side.
fn turn_away(stream: &TcpStream) {
    const BODY: &str = "{\"code\":\"TDM0708\",\"what\":\"cannot take more connections\",\
        \"because\":\"as many are open as are allowed\",\
        \"try\":\"try again shortly or close some\"}";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
         content-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let _ = stream.try_write(answer.as_bytes());
}
