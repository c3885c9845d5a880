//! Talks to nobody but the clock and the routes while a new client waits for its server.
//! In: a client's StartupMessage. Out: `Routed`, or `Unrouted` with the client's last message.
//! States: (a route, a free place) Routed; else Held → Routed, Expired, Gone.
//! Keeps: first come, first served, `connects_max` at a time, so that a release is no stampede;
//! the bounds `held_max` and `hold_max`; H43, only connects that executed nothing are repeated.
//! Full: the next client gets 53300 at once. A client that leaves frees its place at once.
//! Not here: where to (`routes.rs`), the connect itself (`connect.rs`).
//! Tested by: `tests/hold.rs`.

use super::connect;
use super::listener::Shared;
use super::registry::{Lease, Load};
use super::routes::{Claim, Routes, Verdict, Why};
use super::sqlstate::{Fatal, SqlState};
use crate::runtime::clock;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Draw;
use tandem_core::clustering::load_balanced::rendezvous;
use tandem_core::ids::NodeId;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What a client may send ahead of its authentication and still be watched for leaving.
const EARLY_MAX: usize = 8 * 1024;

/// A session that has its server.
pub(super) struct Routed {
    pub(super) server: TcpStream,
    pub(super) lease: Lease,
    /// What the server said first; not passed on yet.
    pub(super) first: Vec<u8>,
}

/// Why a client gets no server.
#[derive(Debug)]
pub(super) enum Unrouted {
    /// It left.
    Gone,
    /// It is told this.
    Refused(Fatal),
}

/// Finds a server for a client; `early` takes what the client sends meanwhile.
pub(super) async fn route(
    shared: &Arc<Shared>,
    client: &mut TcpStream,
    packet: &[u8],
    early: &mut Vec<u8>,
) -> Result<Routed, Unrouted> {
    let mut hold = Hold {
        shared,
        routes: shared.routes.clone(),
        since: Instant::now(),
        why: Why::Queue,
        avoid: None,
        key: client.peer_addr().ok().map(|peer| machine(peer.ip())),
        place: None,
    };
    let deadline = hold.since + shared.config.hold_max;
    let end = tokio::select! {
        biased;
        () = shared.closing.cancelled() => Err(End::Closing),
        () = hung_up(client, early) => Err(End::Gone),
        routed = hold.attempt(packet) => routed,
        () = sleep_until(deadline) => Err(End::Expired),
    };
    end.map_err(|end| hold.unrouted(end))
}

fn machine(ip: IpAddr) -> u64 {
    rendezvous::hash_of(ip.to_canonical())
}

enum End {
    Gone,
    Closing,
    Expired,
    Full,
}

struct Hold<'a> {
    shared: &'a Arc<Shared>,
    routes: watch::Receiver<Arc<Routes>>,
    since: Instant,
    why: Why,
    avoid: Option<NodeId>,
    /// What it belongs to, where sessions are spread by hash: its machine.
    key: Option<u64>,
    place: Option<Place<'a>>,
}

impl Hold<'_> {
    async fn attempt(&mut self, packet: &[u8]) -> Result<Routed, End> {
        let shared = self.shared;
        // The semaphore is fair: its queue is the order in which clients came. Those that hold a
        // permit are its head, and keep their place while they wait for a route.
        let _permit = match shared.connects.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                self.wait_begins()?;
                shared.connects.acquire().await.map_err(|_| End::Closing)?
            }
        };
        loop {
            match self.choose() {
                Ok((claim, load)) => {
                    if let Some(routed) = self.connect(claim, load, packet).await {
                        return Ok(routed);
                    }
                }
                Err(why) => self.why = why,
            }
            self.wait_begins()?;
            self.news().await;
        }
    }

    /// Chooses and counts under one lock, so that clients which come together spread.
    fn choose(&mut self) -> Result<(Claim, Load), Why> {
        let routes = Arc::clone(&self.routes.borrow_and_update());
        let registry = &self.shared.registry;
        let mut loads = registry.loads();
        let view = self.shared.view(&routes);
        let mode = self.shared.config.mode;
        let draw = Draw { random: rand::random(), key: self.key };
        let mut readers = registry.readers();
        let claim = view.choose(mode, (&mut readers, &loads), self.avoid.as_ref(), draw)?;
        let load = Load::begin(registry, &mut loads, &claim.target.node);
        Ok((claim, load))
    }

    async fn connect(&mut self, claim: Claim, load: Load, packet: &[u8]) -> Option<Routed> {
        let shared = self.shared;
        let began = clock::now();
        let opened = tokio::select! {
            opened = connect::open(claim.target.address, packet, &shared.limits) => opened,
            () = moved(shared, &claim) => return None,
        };
        match opened {
            Ok((server, first)) => {
                let now = clock::now();
                shared.registry.readers().began(&claim.target.node, now.since(began), now);
                let lease = shared.registry.enter(claim, load);
                // Entered first, looked at second: a change of routes is seen here or by the
                // reaper.
                let routes = Arc::clone(&shared.routes.borrow());
                let verdict = shared.view(&routes).judge(shared.config.mode, &lease.entry.claim);
                (verdict == Verdict::Stay).then_some(Routed { server, lease, first })
            }
            Err(error) => {
                shared.tally.retried.fetch_add(1, Ordering::Relaxed);
                let node = claim.target.node;
                shared.registry.readers().failed(&node, error.to_string(), clock::now());
                self.avoid = Some(node.clone());
                self.why = Why::Server { node, error: error.to_string() };
                None
            }
        }
    }

    /// Takes one of the `held_max` places.
    fn wait_begins(&mut self) -> Result<(), End> {
        if self.place.is_none() {
            self.place = Some(Place::take(self.shared).ok_or(End::Full)?);
        }
        Ok(())
    }

    /// Returns when trying again makes sense.
    async fn news(&mut self) {
        let retry = self.shared.limits.retry;
        if let Ok(Err(_)) = timeout(retry, self.routes.changed()).await {
            // Nobody sends routes any more; those that are there may still serve until they expire.
            sleep(retry).await;
        }
    }

    fn unrouted(&self, end: End) -> Unrouted {
        let service = &self.shared.config.service;
        let tally = &self.shared.tally;
        let waited = Waited(self.since.elapsed());
        let why = &self.why;
        Unrouted::Refused(match end {
            End::Gone => return Unrouted::Gone,
            End::Closing => Fatal {
                state: SqlState::CannotConnectNow,
                message: format!("the door of service {service} is closing"),
                detail: "This node stops or no longer serves the service.".into(),
                hint: "Connect to another node.".into(),
            },
            End::Full => {
                tally.refused.fetch_add(1, Ordering::Relaxed);
                let held = self.shared.config.held_max;
                Fatal {
                    state: SqlState::TooManyConnections,
                    message: format!("too many clients are waiting for service {service}"),
                    detail: format!("{held} clients are held already, because {why}."),
                    hint: "Try again in a few seconds.".into(),
                }
            }
            End::Expired => {
                tally.expired.fetch_add(1, Ordering::Relaxed);
                Fatal {
                    state: SqlState::CannotConnectNow,
                    message: format!("service {service} cannot take connections now"),
                    detail: format!("Waited {waited}, because {why}. Nothing was executed."),
                    hint: "Try again; `tandem explain` tells why the service is as it is.".into(),
                }
            }
        })
    }
}

struct Waited(Duration);

impl std::fmt::Display for Waited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// One of the places for held clients.
struct Place<'a>(&'a Shared);

impl<'a> Place<'a> {
    fn take(shared: &'a Shared) -> Option<Self> {
        let max = shared.config.held_max as u64;
        let more = |held: u64| (held < max).then_some(held + 1);
        let held = &shared.tally.held;
        held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        shared.tally.waited.fetch_add(1, Ordering::Relaxed);
        Some(Self(shared))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.tally.held.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Completes when the routes no longer support a claim: a server that hangs must not keep a client
/// from the next primary.
async fn moved(shared: &Shared, claim: &Claim) {
    let mut routes = shared.routes.clone();
    loop {
        let now = Arc::clone(&routes.borrow_and_update());
        if shared.view(&now).judge(shared.config.mode, claim) != Verdict::Stay {
            return;
        }
        if routes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Completes when the client leaves. What it sends ahead is kept; beyond the bound it is left in
/// the socket, and the client's leaving is seen only later.
async fn hung_up(client: &mut TcpStream, early: &mut Vec<u8>) {
    while early.len() < EARLY_MAX {
        match client.read_buf(early).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}
