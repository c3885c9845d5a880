//! Talks to endpoints over connections that were used before: keeps those that may be used again.
//! In: connections between two requests. Out: one of them, if it still lives.
//! Keeps: at most `max` idle ones per endpoint, none for longer than `idle_timeout`; one on which
//! anything came while nobody asked is closed, for it would be the answer to somebody else's.
//! The one used last is used first: the others grow old and are closed.
//! Not here: new connections (`reach.rs`).
//! Tested by: `tests/`.

use super::stream::Stream;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: Instant,
}

/// The idle connections of one balancer.
#[derive(Debug)]
pub(super) struct Pool {
    max: usize,
    idle_timeout: Duration,
    idle: Mutex<BTreeMap<SocketAddr, Vec<Idle>>>,
}

impl Pool {
    pub(super) const fn new(max: usize, idle_timeout: Duration) -> Self {
        Self { max, idle_timeout, idle: Mutex::new(BTreeMap::new()) }
    }

    /// A connection that has been idle for less than `age_max` and lives, as far as is known here.
    pub(super) fn take(&self, address: SocketAddr, age_max: Duration) -> Option<Stream> {
        let age_max = age_max.min(self.idle_timeout);
        loop {
            let mut pool = self.lock();
            let idle = pool.get_mut(&address)?.pop_if(|idle| idle.since.elapsed() < age_max)?;
            drop(pool);
            if is_silent(idle.stream.socket()) {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a connection that is between two requests.
    pub(super) fn put(&self, address: SocketAddr, stream: Stream) {
        let idle = Idle { stream, since: Instant::now() };
        let mut pool = self.lock();
        let idles = pool.entry(address).or_default();
        // The oldest one is the most likely to be closed at the other end.
        let oldest = (idles.len() >= self.max && !idles.is_empty()).then(|| idles.remove(0));
        if self.max > 0 {
            idles.push(idle);
        }
        drop(pool);
        drop(oldest);
    }

    /// Closes what is too old, was closed, or belongs to nobody of `addresses`.
    pub(super) fn sweep(&self, addresses: &[SocketAddr]) {
        let mut closed = Vec::new();
        let mut pool = self.lock();
        for (address, idles) in pool.iter_mut() {
            let known = addresses.contains(address);
            let keeps = |idle: &Idle| {
                known && idle.since.elapsed() < self.idle_timeout && is_silent(idle.stream.socket())
            };
            closed.extend(idles.extract_if(.., |idle| !keeps(idle)));
        }
        pool.retain(|_, idles| !idles.is_empty());
        drop(pool);
        drop(closed);
    }

    /// How many there are for an endpoint.
    pub(super) fn count(&self, address: SocketAddr) -> usize {
        self.lock().get(&address).map_or(0, Vec::len)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Vec<Idle>>> {
        // Nothing here leaves a value half changed when it panics.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Neither bytes nor an end have come. Costs no call of the system where nothing has.
fn is_silent(socket: &TcpStream) -> bool {
    let read = socket.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
