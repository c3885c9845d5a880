//! Talks to endpoints over connections that were used before: keeps those that may be used again.
//! In: connections between two requests. Out: one of them, if it still lives.
//! Keeps: at most `max` idle ones per endpoint, whosever they are, none for longer than
//! `idle_timeout`; one on which anything came while nobody asked is closed, for it would be the
//! answer to somebody else's. The one used last is used first: the others grow old and are closed.
//! Where endpoints are told who a client is, its connections are nobody else's, and go with it.
//! Costs: one that is a client's is looked for among those of its endpoint, `max` at most.
//! Not here: new connections (`reach.rs`).
//! Tested by: `tests/`.

use super::session::Ends;
use super::stream::Stream;
use crate::proxy::balancer::session::Shared;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
struct Idle {
    /// Of this client alone.
    of: Option<Ends>,
    stream: Stream,
    since: Instant,
}

/// Where a connection leads, and the client that it belongs to, where endpoints are told of it.
pub(super) type Whose = (SocketAddr, Option<Ends>);

/// The idle connections of one balancer.
#[derive(Debug)]
pub(super) struct Pool(Mutex<State>);

#[derive(Debug)]
struct State {
    generation: u64,
    max: usize,
    idle_timeout: Duration,
    /// Those of each endpoint, the one that was used last at the end.
    idle: BTreeMap<SocketAddr, Vec<Idle>>,
}

impl Pool {
    pub(super) const fn new(max: usize, idle_timeout: Duration) -> Self {
        Self(Mutex::new(State { generation: 0, max, idle_timeout, idle: BTreeMap::new() }))
    }

    /// Goes on with other bounds; what is too many or too old by them goes as it is found.
    pub(super) fn configure(&self, max: usize, idle_timeout: Duration) {
        let mut pool = self.lock();
        (pool.max, pool.idle_timeout) = (max, idle_timeout);
    }

    /// A connection that has been idle for less than `age_max` and lives, as far as is known here.
    pub(super) fn take(&self, (to, of): Whose, age_max: Duration) -> Option<Stream> {
        loop {
            let mut pool = self.lock();
            let age_max = age_max.min(pool.idle_timeout);
            let idles = pool.idle.get_mut(&to)?;
            let at = idles.iter().rposition(|idle| idle.of == of)?;
            let idle = (idles[at].since.elapsed() < age_max).then(|| idles.remove(at))?;
            drop(pool);
            if is_silent(&idle.stream) {
                return Some(idle.stream);
            }
        }
    }

    /// Of the connections that are made now.
    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Keeps a connection that is between two requests, if others like it are still made.
    pub(super) fn put(
        &self,
        (to, of): Whose,
        (stream, generation): (Stream, u64),
        shared: &Shared,
    ) {
        let stream = match stream {
            // It was one request on a connection that others use.
            Stream::H2Endpoint(own) => return own.ends_by_itself(&shared.supervisor),
            own => own,
        };
        let idle = Idle { of, stream, since: Instant::now() };
        let mut pool = self.lock();
        if pool.generation != generation {
            return;
        }
        let max = pool.max;
        let idles = pool.idle.entry(to).or_default();
        // The oldest one is the most likely to be closed at the other end.
        let oldest = (idles.len() >= max && !idles.is_empty()).then(|| idles.remove(0));
        if max > 0 {
            idles.push(idle);
        }
        drop(pool);
        drop(oldest);
    }

    /// Closes all of them, those that carry a request now when it is over.
    pub(super) fn clear(&self) {
        let mut pool = self.lock();
        pool.generation += 1;
        let idle = std::mem::take(&mut pool.idle);
        drop(pool);
        drop(idle);
    }

    /// Closes what was for a client that has gone.
    pub(super) fn forget(&self, client: Ends) {
        let mut closed = Vec::new();
        let mut pool = self.lock();
        for idles in pool.idle.values_mut() {
            closed.extend(idles.extract_if(.., |idle| idle.of == Some(client)));
        }
        drop(pool);
        drop(closed);
    }

    /// Closes what is too old, was closed, or belongs to nobody of `addresses`.
    pub(super) fn sweep(&self, addresses: &[SocketAddr]) {
        let mut closed = Vec::new();
        let mut pool = self.lock();
        let State { max, idle_timeout, idle, .. } = &mut *pool;
        for (address, idles) in idle.iter_mut() {
            let known = addresses.contains(address);
            let keeps = |idle: &Idle| {
                known && idle.since.elapsed() < *idle_timeout && is_silent(&idle.stream)
            };
            let too_many = idles.len().saturating_sub(*max);
            closed.extend(idles.drain(..too_many));
            closed.extend(idles.extract_if(.., |idle| !keeps(idle)));
        }
        idle.retain(|_, idles| !idles.is_empty());
        drop(pool);
        drop(closed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here leaves a value half changed when it panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Neither bytes nor an end have come. Costs no call of the system where nothing has.
fn is_silent(stream: &Stream) -> bool {
    if stream.has_unread() {
        return false;
    }
    let read = stream.socket().map(|socket| socket.try_read(&mut [0]));
    read.is_some_and(|read| read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock))
}
