//! Talks to PostgreSQL as an application would: one session, ended at once when dropped.
//! In: an address, a password. Out: a client whose connection dies with it, so that a session in
//! trouble never outlives the attempt that used it.
//! Tested by: `workload.rs`, `canary.rs`.

use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{Client, Config, NoTls, config::SslMode};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Past this a client tries the next address: what multi-host clients commonly use.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How to log in; the same everywhere.
#[derive(Clone)]
pub struct Login {
    password: Arc<str>,
    tasks: Supervisor,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl Login {
    /// Role and database `app`; connections run as tasks of `tasks`.
    pub fn new(password: &str, tasks: Supervisor) -> Self {
        Self { password: password.into(), tasks }
    }

    /// Opens a session; none when that did not work in time.
    pub async fn connect(&self, address: SocketAddr) -> Option<Session> {
        let mut config = Config::new();
        config
            .host(address.ip().to_string())
            .port(address.port())
            .user("app")
            .password(self.password.as_bytes())
            .dbname("app")
            .application_name("tandem-drill")
            .ssl_mode(SslMode::Disable);
        let (client, connection) =
            tokio::time::timeout(CONNECT_MAX, config.connect(NoTls)).await.ok()?.ok()?;
        let ended = CancellationToken::new();
        let (stop, watched) = (self.tasks.stopping(), ended.clone());
        self.tasks.spawn("drill session", TaskKind::Session, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watched.cancelled() => {}
                _ = connection => {}
            }
        });
        Some(Session { client, _ended: ended.drop_guard() })
    }

    /// A session through the first address that lets one in.
    pub async fn connect_any(&self, addresses: &[SocketAddr]) -> Option<Session> {
        for address in addresses {
            if let Some(session) = self.connect(*address).await {
                return Some(session);
            }
        }
        None
    }
}

/// One session.
pub struct Session {
    client: Client,
    _ended: DropGuard,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// The client.
    pub const fn client(&self) -> &Client {
        &self.client
    }
}
