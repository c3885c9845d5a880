//! Keeps the work of an endpoint that gets no more of it, and cuts what has not ended in time.
//! In: that it is drained or listed no more, `drain_max`. Out: `Cut`s, what is cut.
//! States: Taking → (drained, or listed no more) Leaving → (`drain_max`) what is left is cut;
//! Leaving → (used again) Taking.
//! Keeps: a cut is no failure of its endpoint.
//! Queues: nobody takes the `Cut`s: the oldest goes.
//! Not here: who gets no more work (`group.rs`).
//! Tested by: `tests/drain.rs`, `http/tests/ends.rs`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::time::Timestamp;
use tokio::sync::Notify;

/// So many are remembered for whoever tells of them.
const CUTS_MAX: usize = 100;

/// Work that was cut at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where.
    pub address: SocketAddr,
    /// As its owner wrote it.
    pub upstream: String,
    /// How much.
    pub count: u64,
}

/// Why work is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::balancer) enum Over {
    /// Its endpoint gets no more, and had time enough.
    Late,
    /// Nobody is there any more who had it.
    Gone,
}

/// What of an endpoint's work is to end.
#[derive(Debug, Default)]
pub(in crate::proxy::balancer) struct Leaving {
    since: Mutex<Option<Timestamp>>,
    /// Tells all that is there.
    end: Notify,
    gone: Notify,
    cut: AtomicU64,
    told: AtomicU64,
}

impl Leaving {
    /// It gets no more work; if so already, since then.
    pub(in crate::proxy::balancer) fn begin(&self, now: Timestamp) {
        lock(&self.since).get_or_insert(now);
    }

    /// It gets work again.
    pub(in crate::proxy::balancer) fn stay(&self) {
        *lock(&self.since) = None;
    }

    /// Whether it gets no more work.
    pub(in crate::proxy::balancer) fn has_begun(&self) -> bool {
        lock(&self.since).is_some()
    }

    /// How long what it has may still last; none: for as long as it likes.
    pub(in crate::proxy::balancer) fn left(
        &self,
        max: Option<Duration>,
        now: Timestamp,
    ) -> Option<Duration> {
        let until = lock(&self.since).as_ref()?.plus(max?);
        Some(until.since(now))
    }

    /// Cuts what is there, and not what comes: so it is called until nothing is left.
    pub(in crate::proxy::balancer) fn cut(&self, why: Over) {
        match why {
            Over::Late => self.end.notify_waiters(),
            Over::Gone => self.gone.notify_waiters(),
        }
    }

    /// Ready when work that is there must end.
    pub(in crate::proxy::balancer) async fn over(&self) -> Over {
        tokio::select! {
            biased;
            () = self.end.notified() => Over::Late,
            () = self.gone.notified() => Over::Gone,
        }
    }

    /// Ready when work that is there has lasted for long enough.
    pub(in crate::proxy::balancer) async fn late(&self) {
        self.end.notified().await;
    }

    pub(in crate::proxy::balancer) fn was_cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// How much was cut so far.
    pub(in crate::proxy::balancer) fn count(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Whether some of it was not told yet.
    pub(in crate::proxy::balancer) fn has_news(&self) -> bool {
        self.count() > self.told.load(Ordering::Relaxed)
    }

    /// How much was cut since this was asked last.
    pub(in crate::proxy::balancer) fn tell(&self) -> u64 {
        let count = self.count();
        count.saturating_sub(self.told.swap(count, Ordering::Relaxed))
    }
}

/// What was cut and not told.
#[derive(Debug, Default)]
pub(in crate::proxy::balancer) struct Cuts(Mutex<VecDeque<Cut>>);

impl Cuts {
    pub(in crate::proxy::balancer) fn push(&self, cut: Cut) {
        let mut cuts = lock(&self.0);
        if cuts.len() == CUTS_MAX {
            cuts.pop_front();
        }
        cuts.push_back(cut);
    }

    pub(in crate::proxy::balancer) fn take(&self) -> Vec<Cut> {
        lock(&self.0).drain(..).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves a value half changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
