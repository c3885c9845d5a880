//! Keeps how far what came from an endpoint is on its way to a client: of what a copy had said that
//! is gone, nothing is thrown away which its client takes.
//! In: each turn of whoever copies. Out: that nothing is on its way; that a
//! connection was not over at once.
//! States: on its way ⇄ quiet; either → (the endpoint ended what it said) whole, for good.
//! Costs: what copies looks at its clock anyway; two stores for each turn.
//! Not here: what the system keeps for a client that is slow, which nobody is told of.
//! Tested by: below, `tests/drain.rs`, `http/tests/ends.rs`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// A client that has taken nothing for so long has nothing to take, if nothing is kept for it here.
const QUIET: Duration = Duration::from_secs(1);

/// The way from one endpoint to one client.
#[derive(Debug)]
pub(in crate::proxy) struct Progress {
    begun: Instant,
    /// In microseconds after it began; 0: never.
    moved: AtomicU64,
    /// Something is kept here that the client did not take yet.
    holds: AtomicBool,
    /// The endpoint said that this is all.
    is_whole: AtomicBool,
    /// Of a connection in clear: there is reason to guard it.
    has_lasted: AtomicBool,
}

impl Progress {
    pub(in crate::proxy) fn new(begun: Instant) -> Self {
        Self {
            begun,
            moved: AtomicU64::new(0),
            holds: AtomicBool::new(false),
            is_whole: AtomicBool::new(false),
            has_lasted: AtomicBool::new(false),
        }
    }

    /// What one turn came to: when the client took something, and whether something is left.
    pub(in crate::proxy) fn note(&self, moved: Option<Instant>, holds: bool) {
        if let Some(at) = moved {
            let after = at.saturating_duration_since(self.begun).as_micros();
            self.moved.store(u64::try_from(after).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        }
        self.holds.store(holds, Ordering::Relaxed);
    }

    /// A connection was not over at once, as most are.
    pub(in crate::proxy) fn lasts(&self) {
        self.has_lasted.store(true, Ordering::Relaxed);
    }

    pub(in crate::proxy) fn has_lasted(&self) -> bool {
        self.has_lasted.load(Ordering::Relaxed)
    }

    /// The endpoint has said all that it will, and the client gets it.
    pub(in crate::proxy) fn is_whole(&self) {
        self.is_whole.store(true, Ordering::Relaxed);
    }

    /// Ready once nothing is on its way that the endpoint did not say to its end.
    pub(in crate::proxy) async fn quiet(&self) {
        loop {
            if self.is_whole.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let moved = self.moved.load(Ordering::Relaxed);
            let until = self.begun + Duration::from_micros(moved) + QUIET;
            match self.holds.load(Ordering::Relaxed) {
                true => sleep(QUIET).await,
                false if moved > 0 && until > Instant::now() => sleep_until(until).await,
                false => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    async fn is_quiet(progress: &Progress, within: Duration) -> bool {
        timeout(within, progress.quiet()).await.is_ok()
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_not_quiet() {
        let (at_once, soon) = (Duration::ZERO, QUIET + QUIET / 2);
        let progress = Progress::new(Instant::now());
        assert!(is_quiet(&progress, at_once).await, "it never said anything");
        progress.note(Some(Instant::now()), false);
        assert!(!is_quiet(&progress, QUIET / 2).await, "just now");
        assert!(is_quiet(&progress, QUIET * 20).await);
        assert!(is_quiet(&progress, at_once).await);
        progress.note(None, true);
        assert!(!is_quiet(&progress, soon).await, "it is kept here");
        progress.note(None, false);
        assert!(is_quiet(&progress, at_once).await);
        progress.is_whole();
        assert!(!is_quiet(&progress, soon).await, "its end was said");
    }
}
