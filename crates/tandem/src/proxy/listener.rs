//! Talks to the sockets of a door: binds them all, accepts, counts, closes.
//! In: `DoorConfig`, routes, a supervisor. Out: `Door`.
//! States: Open → (close) Closing: held clients are told, sessions may end → Closed.
//! Full: beyond `sessions_max` a session is told 53300; beyond that and `startups_max`, a
//! connection is closed as it comes. Out of file descriptors: a pause, then on.
//! Keeps: INV-7 as far as `Shared::view` is the only way to the routes.
//! Not here: what a client wants (`session.rs`).
//! Tested by: `tests/`.

use super::balancer::EndpointSnapshot;
use super::registry::{Cut, Registry};
use super::routes::{Routes, View};
use super::{DoorConfig, DoorCounters, Error, Limits, Mode, reaper, session};
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::ids::Term;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How many connections the system keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept: descriptors come back when sessions end, not sooner.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The open front door of one service in one mode. Dropped, it closes at once.
#[derive(Debug)]
pub struct Door {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    _stop: DropGuard,
}

impl Door {
    /// Binds every address, then starts to serve.
    pub async fn open(
        config: DoorConfig,
        routes: watch::Receiver<Arc<Routes>>,
        supervisor: Supervisor,
    ) -> Result<Self, Error> {
        Self::open_with(config, Limits::default(), routes, supervisor)
    }

    pub(super) fn open_with(
        config: DoorConfig,
        limits: Limits,
        routes: watch::Receiver<Arc<Routes>>,
        supervisor: Supervisor,
    ) -> Result<Self, Error> {
        let service = &config.service;
        if config.listen.is_empty() {
            return Err(Error::NoAddress { service: service.clone() });
        }
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in config.listen.iter().copied() {
            let bound = bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
            let (local, listener) = bound.map_err(|source| Error::Listen {
                service: service.clone(),
                address,
                source,
            })?;
            addresses.push(local);
            listeners.push(listener);
        }
        let stop = supervisor.stopping().child_token();
        let shared = Arc::new(Shared {
            connects: Semaphore::new(limits.connects_max),
            cancels: Semaphore::new(limits.cancels_max),
            registry: Arc::new(Registry::new(config.read_policy)),
            config,
            limits,
            routes,
            term_seen: AtomicU64::new(0),
            tally: Tally::default(),
            closing: stop.child_token(),
            stop: stop.clone(),
            connections: TaskTracker::new(),
        });
        supervisor.spawn("door reaper", TaskKind::Session, reaper::run(Arc::clone(&shared)));
        for listener in listeners {
            let accepting = accept(Arc::clone(&shared), listener, supervisor.clone());
            supervisor.spawn("door accept", TaskKind::Session, accepting);
        }
        Ok(Self { shared, addresses, _stop: stop.drop_guard() })
    }

    #[cfg(test)]
    pub(super) fn shared_for_tests(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Where it listens, ports filled in.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it has done and is doing.
    pub fn counters(&self) -> DoorCounters {
        let tally = &self.shared.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DoorCounters {
            sessions: read(&tally.sessions),
            held: read(&tally.held),
            waited: read(&tally.waited),
            accepted: read(&tally.accepted),
            routed: read(&tally.routed),
            retried: read(&tally.retried),
            refused: read(&tally.refused),
            expired: read(&tally.expired),
            cut: read(&tally.cut),
            local_commits: read(&tally.local_commits),
            cancels: read(&tally.cancels),
        }
    }

    /// Sessions that read are spread so from now on.
    pub fn spread_by(&self, policy: Policy) {
        self.shared.registry.readers().spread_by(policy);
    }

    /// The replicas as this door sees them; none of them for a door that is for writes.
    pub fn readers(&self) -> Vec<EndpointSnapshot> {
        let (registry, now) = (&self.shared.registry, clock::now());
        let routes = Arc::clone(&self.shared.routes.borrow());
        let loads = registry.loads();
        let mut readers = registry.readers();
        if self.shared.config.mode == Mode::Read {
            // Nobody may have been led since they changed.
            readers.follow(&routes.replicas, now);
        }
        readers.snapshots(&loads, now)
    }

    /// Accepts nobody more, tells those that are held, gives sessions `grace` to end by
    /// themselves, then cuts them. False if some were cut.
    pub async fn close(&self, grace: Duration) -> bool {
        self.shared.closing.cancel();
        self.shared.connections.close();
        let drained = timeout(grace, self.shared.connections.wait()).await.is_ok();
        self.shared.stop.cancel();
        if !drained {
            self.shared.cut_all();
            // What is left after this takes no bytes; it ends with the process.
            let last = self.shared.limits.farewell * 2;
            let _ = timeout(last, self.shared.connections.wait()).await;
        }
        drained
    }
}

/// What all tasks of a door share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: DoorConfig,
    pub(super) limits: Limits,
    pub(super) routes: watch::Receiver<Arc<Routes>>,
    term_seen: AtomicU64,
    pub(super) registry: Arc<Registry>,
    pub(super) connects: Semaphore,
    pub(super) cancels: Semaphore,
    pub(super) tally: Tally,
    /// No new sessions.
    pub(super) closing: CancellationToken,
    /// No sessions.
    pub(super) stop: CancellationToken,
    connections: TaskTracker,
}

impl Shared {
    /// The routes as of now; remembers the highest term (H41).
    pub(super) fn view<'a>(&self, routes: &'a Routes) -> View<'a> {
        let before = self.term_seen.fetch_max(routes.term.0, Ordering::AcqRel);
        let term_seen = Term(before).max(routes.term);
        View { routes, now: clock::now(), term_seen }
    }

    pub(super) fn cut_all(&self) {
        self.closing.cancel();
        self.registry.for_each(|entry| {
            entry.cut(Cut::Closing);
        });
    }
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sessions: Arc<AtomicU64>,
    pub(super) held: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) routed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) local_commits: AtomicU64,
    pub(super) cancels: AtomicU64,
    connections: Arc<AtomicU64>,
}

/// One of a bounded number, until dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<AtomicU64>);

impl Slot {
    pub(super) fn take(taken: &Arc<AtomicU64>, max: usize) -> Option<Self> {
        let more = |count: u64| (count < max as u64).then_some(count + 1);
        let took = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        took.ok().map(|_| Self(Arc::clone(taken)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a restarted node does not wait for old connections to time out. Never SO_REUSEPORT:
    // two doors on one port would be an error that nobody sees.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, supervisor: Supervisor) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => admit(&shared, client, &supervisor),
            Err(error) if is_one_connection(&error) => {}
            Err(error) => {
                let service = &shared.config.service;
                tracing::warn!(%service, %error, "cannot accept connections; pausing");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, client: TcpStream, supervisor: &Supervisor) {
    let max = shared.config.sessions_max.saturating_add(shared.limits.startups_max);
    let Some(slot) = Slot::take(&shared.tally.connections, max) else {
        shared.tally.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    shared.tally.accepted.fetch_add(1, Ordering::Relaxed);
    let alive = shared.connections.token();
    let session = session::serve(Arc::clone(shared), client);
    supervisor.spawn("door session", TaskKind::Session, async move {
        let _until_the_end = (slot, alive);
        session.await;
    });
}

/// The connection that was to be accepted is gone; the listener is fine.
pub(super) fn is_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
