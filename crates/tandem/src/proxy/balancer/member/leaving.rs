//! Keeps the work of an endpoint that gets no more of it, and cuts what has not ended in time; and
//! what waits there for a copy that is gone.
//! In: that it is drained or listed no more, `drain_max`; that who was there is gone. Out: `Cut`s,
//! what is cut.
//! States: Taking → (drained, or listed no more) Leaving → (`drain_max`) what is left is cut;
//! Leaving → (used again) Taking.
//! Keeps: INV-15 a cut ends all that had its place before, whether or not anybody waits for its end
//! just then, and nothing that got one after. A cut is no failure of its endpoint.
//! Queues: nobody takes the `Cut`s: the oldest goes.
//! Not here: who gets no more work (`group.rs`).
//! Tested by: below, `tests/drain.rs`, `http/tests/ends.rs`, `http/tests/owners/gone.rs`.

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
pub(in crate::proxy) enum Over {
    /// Its endpoint gets no more, and had time enough.
    Late,
    /// Nobody is there any more who had it.
    Gone,
}

/// What of an endpoint's work is to end.
#[derive(Debug, Default)]
pub(in crate::proxy::balancer) struct Leaving {
    since: Mutex<Option<Timestamp>>,
    /// So often was cut what was there: work that came before is over.
    cuts: AtomicU64,
    /// So often when that was last because nobody is there who had it.
    gone: AtomicU64,
    /// And when that was last because it had time enough.
    late: AtomicU64,
    /// Tells all that is there.
    end: Notify,
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

    /// By which work that comes now is told from what comes after a cut.
    pub(in crate::proxy::balancer) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Cuts what is there, and not what comes. Its group is locked: one at a time.
    pub(in crate::proxy::balancer) fn cut(&self, why: Over) {
        let cuts = self.cuts() + 1;
        let last = match why {
            Over::Gone => &self.gone,
            Over::Late => &self.late,
        };
        last.store(cuts, Ordering::Release);
        self.cuts.store(cuts, Ordering::Release);
        self.end.notify_waiters();
    }

    /// Ready once work is cut that came after so many cuts.
    pub(in crate::proxy::balancer) async fn over(&self, came: u64) -> Over {
        loop {
            // It is told what happens from here on; what happened before is looked at.
            let told = self.end.notified();
            if self.cuts() > came {
                let is_gone = self.gone.load(Ordering::Acquire) > came;
                return if is_gone { Over::Gone } else { Over::Late };
            }
            told.await;
        }
    }

    /// Ready once work is cut that came after so many cuts and had time enough.
    pub(in crate::proxy::balancer) async fn late(&self, came: u64) {
        loop {
            let told = self.end.notified();
            if self.late.load(Ordering::Acquire) > came {
                return;
            }
            told.await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// Whether work is over now that came after so many cuts.
    async fn over(leaving: &Leaving, came: u64) -> Option<Over> {
        timeout(Duration::ZERO, leaving.over(came)).await.ok()
    }

    #[tokio::test]
    async fn a_cut_ends_what_came_before_it_whoever_waits_for_that_and_nothing_after() {
        let leaving = Leaving::default();
        let first = leaving.cuts();
        assert_eq!(over(&leaving, first).await, None);
        // Nobody waits for it just then.
        leaving.cut(Over::Late);
        let second = leaving.cuts();
        assert_eq!(
            [over(&leaving, first).await, over(&leaving, second).await],
            [Some(Over::Late), None]
        );
        let cut = async { leaving.cut(Over::Gone) };
        let (told, ()) = tokio::join!(leaving.over(second), cut);
        assert_eq!(told, Over::Gone);
        assert_eq!(over(&leaving, leaving.cuts()).await, None);
        leaving.cut(Over::Late);
        assert_eq!(over(&leaving, second).await, Some(Over::Gone), "that came first");
    }
}
