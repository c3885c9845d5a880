//! Drives whole doors: against servers that misbehave on command, and against PostgreSQL.

mod cancel;
mod cut;
mod fake;
mod hold;
mod postgres;
mod read;
mod set;
mod startup;

use super::{Door, DoorConfig, Limits, Mode, Replica, Routes, Target};
use crate::runtime::supervisor::Supervisor;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::{ServiceId, Term};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Far more than anything here takes; only a failing test waits for it.
const LIMIT: Duration = Duration::from_secs(20);

/// A door, and the hand that moves its routes.
struct Stage {
    door: Door,
    routes: watch::Sender<Arc<Routes>>,
    supervisor: Supervisor,
}

fn config(mode: Mode) -> DoorConfig {
    DoorConfig::new(ServiceId::new("orders"), vec![([127, 0, 0, 1], 0).into()], mode)
}

fn limits() -> Limits {
    Limits {
        retry: Duration::from_millis(5),
        replica_missing: Duration::from_millis(100),
        tick: Duration::from_millis(5),
        ..Limits::default()
    }
}

impl Stage {
    fn open(config: DoorConfig, limits: Limits, routes: Routes) -> Self {
        let supervisor = Supervisor::new();
        let (sender, receiver) = watch::channel(Arc::new(routes));
        let door = Door::open_with(config, limits, receiver, supervisor.clone()).unwrap();
        Self { door, routes: sender, supervisor }
    }

    fn writing(routes: Routes) -> Self {
        Self::open(config(Mode::Write), limits(), routes)
    }

    fn set(&self, routes: Routes) {
        self.routes.send_replace(Arc::new(routes));
    }

    fn address(&self) -> SocketAddr {
        self.door.local_addresses()[0]
    }

    async fn client(&self) -> Client {
        Client(TcpStream::connect(self.address()).await.unwrap())
    }

    /// A client that asked for a session and has no answer yet.
    async fn asking(&self, user: &str) -> Client {
        let mut client = self.client().await;
        client.send(&startup(&[("user", user)])).await;
        client
    }

    async fn session(&self, user: &str) -> Client {
        let mut client = self.asking(user).await;
        client.until_ready().await.unwrap();
        client
    }

    async fn held(&self, count: u64) {
        until(|| self.door.counters().held == count).await;
    }
}

fn routed(term: u64, primary: SocketAddr, node: &str) -> Routes {
    Routes {
        term: Term(term),
        primary: Some(Target { node: node.into(), address: primary }),
        ..Routes::default()
    }
}

fn replica(node: &str, address: SocketAddr) -> Replica {
    let target = Target { node: node.into(), address };
    Replica { target, lag_bytes: 0, lag: Duration::ZERO, weight: 1, far: false, draining: false }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        sleep(Duration::from_millis(1)).await;
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(LIMIT, future).await.expect("took too long")
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(rest.len() + 8).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes(), rest].concat()
}

fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    packet(196_608, &body)
}

/// A client that sees every byte.
struct Client(TcpStream);

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next message; none once the connection is closed.
    async fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        within(async {
            let kind = self.0.read_u8().await.ok()?;
            let length = self.0.read_u32().await.ok()? as usize - 4;
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.ok()?;
            Some((kind, body))
        })
        .await
    }

    /// Kinds of the messages up to ReadyForQuery, or the SQLSTATE of what came instead (empty if
    /// the connection was just closed).
    async fn until_ready(&mut self) -> Result<Vec<u8>, String> {
        let mut kinds = Vec::new();
        while let Some((kind, body)) = self.message().await {
            kinds.push(kind);
            match kind {
                b'Z' => return Ok(kinds),
                b'E' => return Err(sqlstate(&body)),
                _ => {}
            }
        }
        Err(String::new())
    }

    async fn query(&mut self, text: &str) -> Result<Vec<u8>, String> {
        self.send(&query(text)).await;
        self.until_ready().await
    }

    /// The SQLSTATE that ends the connection; empty if it ends without one.
    async fn end(&mut self) -> String {
        let error = self.until_ready().await.expect_err("an end was expected");
        assert!(self.message().await.is_none(), "the connection is still open");
        error
    }
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

fn field(body: &[u8], tag: u8) -> String {
    let field = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&tag));
    field.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
}

fn sqlstate(body: &[u8]) -> String {
    field(body, b'C')
}
