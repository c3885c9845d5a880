//! Talks to the clients of a PostgreSQL service: the front door, in session mode.
//! In: `DoorConfig`, and `Routes` by a watch channel. Out: sessions at the right instance,
//! `DoorCounters`.
//! States of a client: Startup → (no primary, switchover, server not ready) Held → Routed → Ended.
//! Keeps: INV-7 no new session to a node that is not known to be primary now; H2 sessions of an
//! older term are cut; H11 a commit without its standbys is never shown as success; H13 no session
//! asks for less durability, at its start or later; H41 routes expire by this node's own clock, and
//! the highest term wins; H43 only what was provably not begun is tried again.
//! Not here: who is primary (the agreed state), TLS (an encryption request is answered 'N'),
//! pooling. What a client sends is copied; statements that name two settings are read.
//! Tested by: the modules below and `tests/`.
//!
//! What it costs, and how to measure: per round trip two reads, two writes and at most two waits
//! (`strace -f -c` on the process while `pgbench -S -c 8` runs); no memory for buffers while a
//! session is idle. To compare: PostgreSQL on loopback, `pgbench -S -M prepared -c 1, 8, 64 -T 30`
//! against the door and against HAProxy 2.6 in TCP mode, alternating, five runs each, release
//! build; report medians of transactions per second and CPU time of the proxy per transaction.
//! Bulk: `COPY (SELECT … 10 million rows) TO STDOUT`. Connects: `pgbench -S -C`. The ignored test
//! `round_trips` gives a first number without a server.

pub mod balancer;
mod cancel;
mod connect;
mod flow;
#[cfg(test)]
mod fuzz;
mod hold;
mod http;
mod listener;
mod pgwire;
mod reaper;
mod registry;
mod relay;
mod routes;
mod session;
mod spare;
mod sqlstate;
#[cfg(test)]
mod tests;

pub use balancer::{
    Balancer, BalancerConfig, Check, EndpointSnapshot, Owned, OwnersSnapshot, ProxyVersion,
    Snapshot, Upstream, UpstreamTls,
};
pub use http::{
    Certificate, CertificateEnd, HttpCheck, HttpConfig, HttpSnapshot, Network, Protocol,
};
pub use listener::Door;
pub use routes::{Replica, Routes, Target};

use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::ids::ServiceId;

/// What a door serves, and its bounds.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// Whose door it is; named in messages.
    pub service: ServiceId,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// What its sessions are for.
    pub mode: Mode,
    /// How long a new session waits for a server.
    pub hold_max: Duration,
    /// How many new sessions may wait.
    pub held_max: usize,
    /// How many sessions there may be, waiting ones included.
    pub sessions_max: usize,
    /// How a replica is chosen for a session that reads.
    pub read_policy: Policy,
    /// Refuse sessions that lower `synchronous_commit` or hide warnings (H13, H11).
    pub refuse_lower_durability: bool,
}

impl DoorConfig {
    /// The defaults: holding for 15 s covers every failover but a manual one, and stays below the
    /// connect timeouts of most drivers; a held client costs about 4 kB.
    pub fn new(service: ServiceId, listen: Vec<SocketAddr>, mode: Mode) -> Self {
        Self {
            service,
            listen,
            mode,
            hold_max: Duration::from_secs(15),
            held_max: 1000,
            sessions_max: 10_000,
            read_policy: Policy::LeastConnections,
            refuse_lower_durability: true,
        }
    }
}

/// What the sessions of a door are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every session goes to the primary.
    Write,
    /// Sessions are spread over the replicas, and go to the primary where there is none.
    Read,
}

/// What a door has done and is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorCounters {
    /// Open sessions, held ones included.
    pub sessions: u64,
    /// Sessions that wait for a server.
    pub held: u64,
    /// Sessions that had to wait for a server so far.
    pub waited: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Sessions that reached a server so far.
    pub routed: u64,
    /// Connects to a server that led nowhere and were tried again.
    pub retried: u64,
    /// Clients turned away: bounds, protocol, durability.
    pub refused: u64,
    /// Sessions that waited for `hold_max` in vain.
    pub expired: u64,
    /// Sessions cut because their server was no longer the right one.
    pub cut: u64,
    /// Commits that no standby confirmed, and that were not shown as success (H11).
    pub local_commits: u64,
    /// Cancel requests sent on.
    pub cancels: u64,
}

/// Why a door does not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be had.
    #[error(
        "service {service}: cannot listen on {address}: {source}; \
         try another address in `listen`, or stop what uses this one"
    )]
    Listen {
        /// Whose door.
        service: ServiceId,
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate cannot be used.
    #[error(
        "service {service}: a certificate cannot be used: {why}; mend the file on this node, or \
         name another one in `certificates`"
    )]
    Certificate {
        /// Whose door.
        service: ServiceId,
        /// Which file, and what is wrong with it.
        why: String,
    },
    /// The configuration names no address.
    #[error("service {service}: there is no address to listen on; set `listen`")]
    NoAddress {
        /// Whose door.
        service: ServiceId,
    },
}

/// How long and how many, fixed for every door; tests shorten them.
#[derive(Clone, Debug)]
struct Limits {
    /// For a client to say what it wants.
    startup: Duration,
    /// For a TCP connection to a server.
    connect: Duration,
    /// Between two attempts to reach a server, unless the routes change before.
    retry: Duration,
    /// How long a replica may be missing from the routes before its sessions are cut.
    replica_missing: Duration,
    /// For a cancel request to be delivered.
    cancel: Duration,
    /// For a client to take its last message.
    farewell: Duration,
    /// For a server to finish after its client left or was refused.
    linger: Duration,
    /// Between two looks at the clock: bounds how late an expiry is seen after a suspend (H4).
    tick: Duration,
    /// Connects in progress; the others queue, first come, first served.
    connects_max: usize,
    /// Cancel requests in progress.
    cancels_max: usize,
    /// Connections beyond `sessions_max` that may still be in their startup.
    startups_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            startup: Duration::from_secs(10),
            connect: Duration::from_secs(1),
            retry: Duration::from_millis(50),
            replica_missing: Duration::from_secs(5),
            cancel: Duration::from_secs(2),
            farewell: Duration::from_secs(1),
            linger: Duration::from_secs(30),
            tick: Duration::from_millis(50),
            connects_max: 64,
            cancels_max: 32,
            startups_max: 1024,
        }
    }
}
