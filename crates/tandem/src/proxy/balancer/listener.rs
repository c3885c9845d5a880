//! Talks to the socket of a balancer: binds, accepts, counts, closes.
//! In: `BalancerConfig`, a supervisor. Out: `Balancer`.
//! States: Open → (close) Closing: held clients are let go, connections may end → Closed.
//! Not here: what a client gets (`session.rs`).
//! Tested by: `tests.rs`.

use super::group::{Group, Snapshot};
use super::resolve::Names;
use super::session::{self, Shared};
use super::{BalancerConfig, check, resolve};
use crate::proxy::Error;
use crate::proxy::http::Http;
use crate::proxy::listener::{ACCEPT_PAUSE, Slot, bind, is_one_connection};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Event;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

/// How often idle connections to endpoints are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// What a balancer has done and is doing.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Tally {
    pub(in crate::proxy) sessions: Arc<AtomicU64>,
    pub(in crate::proxy) held: AtomicU64,
    pub(in crate::proxy) accepted: AtomicU64,
    pub(in crate::proxy) refused: AtomicU64,
    pub(in crate::proxy) expired: AtomicU64,
    pub(in crate::proxy) retried: AtomicU64,
}

/// An open balancer. Dropped, it closes at once.
#[derive(Debug)]
pub struct Balancer {
    shared: Arc<Shared>,
    address: SocketAddr,
    connections: TaskTracker,
    _stop: DropGuard,
}

impl Balancer {
    /// Binds its address, then starts to serve.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(config: BalancerConfig, supervisor: &Supervisor) -> Result<Self, Error> {
        let bound = bind(config.listen).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, listener) = bound.map_err(|source| Error::Listen {
            service: config.service.clone(),
            address: config.listen,
            source,
        })?;
        let stop = supervisor.stopping().child_token();
        let group = Arc::new(Group::new(&config));
        let names = Names::new(&config);
        names.tell(&group);
        if let Some(check) = config.check {
            let run = check::run(Arc::clone(&group), check, stop.clone());
            supervisor.spawn("balancer checks", TaskKind::Session, run);
        }
        let run = resolve::run(Arc::clone(&group), names, stop.clone());
        supervisor.spawn("balancer names", TaskKind::Session, run);
        let http = config.http.clone().map(Http::new);
        let shared = Arc::new(Shared {
            config,
            http,
            group,
            tally: Tally::default(),
            closing: stop.child_token(),
            stop: stop.clone(),
        });
        if shared.http.is_some() {
            let run = sweep(Arc::clone(&shared));
            supervisor.spawn("balancer pool", TaskKind::Session, run);
        }
        let connections = TaskTracker::new();
        let accepting = Accepting {
            shared: Arc::clone(&shared),
            connections: connections.clone(),
            supervisor: supervisor.clone(),
        };
        supervisor.spawn("balancer accept", TaskKind::Session, accepting.run(listener));
        Ok(Self { shared, address, connections, _stop: stop.drop_guard() })
    }

    /// Where it listens, the port filled in.
    pub const fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// What it is and has done.
    pub fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { config, group, tally, http, .. } = &*self.shared;
        Snapshot {
            service: config.service.clone(),
            policy: config.policy.word(),
            sessions: read(&tally.sessions),
            held: read(&tally.held),
            accepted: read(&tally.accepted),
            refused: read(&tally.refused),
            expired: read(&tally.expired),
            retried: read(&tally.retried),
            endpoints: group.snapshot(),
            http: http.as_ref().map(Http::snapshot),
        }
    }

    /// Gives an endpoint no new connections, or gives it some again. False if there is none at
    /// that address.
    pub fn drain(&self, address: SocketAddr, draining: bool) -> bool {
        let group = &self.shared.group;
        let member = group.members().into_iter().find(|member| member.address == address);
        let event = if draining { Event::Drained } else { Event::Undrained };
        member.inspect(|member| group.note(member, event)).is_some()
    }

    /// Accepts nobody more, gives connections `grace` to end by themselves, then cuts them. False
    /// if some were cut.
    pub async fn close(&self, grace: Duration) -> bool {
        self.shared.closing.cancel();
        self.connections.close();
        let drained = timeout(grace, self.connections.wait()).await.is_ok();
        self.shared.stop.cancel();
        drained
    }
}

/// Closes connections to endpoints that nobody uses.
async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(SWEEP) => {}
        }
        let members = shared.group.members();
        let addresses: Vec<SocketAddr> = members.iter().map(|member| member.address).collect();
        if let Some(http) = &shared.http {
            http.sweep(&addresses);
        }
    }
}

struct Accepting {
    shared: Arc<Shared>,
    connections: TaskTracker,
    supervisor: Supervisor,
}

impl Accepting {
    async fn run(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((client, from)) => self.admit(client, from),
                Err(error) if is_one_connection(&error) => {}
                Err(error) => {
                    let service = &self.shared.config.service;
                    tracing::warn!(%service, %error, "cannot accept connections; pausing");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, client: TcpStream, from: SocketAddr) {
        let tally = &self.shared.tally;
        let Some(slot) = Slot::take(&tally.sessions, self.shared.config.sessions_max) else {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        tally.accepted.fetch_add(1, Ordering::Relaxed);
        let (shared, alive) = (Arc::clone(&self.shared), self.connections.token());
        self.supervisor.spawn("balancer session", TaskKind::Session, async move {
            let _until_the_end = (slot, alive);
            session::serve(&shared, client, from).await;
        });
    }
}
