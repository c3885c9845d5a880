//! Spawns every task of the process: each has a name, a kind and an end.
//! In: a future. Out: its outcome, logged where it is handled; a stop that waits and names what
//! is still running. Places for questions to the system's resolver, which block threads that all
//! parts of the process need.
//! States: Running → (leave) Leaving, parts may end in their order → (stop) Stopping → Ended.

use futures::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the end of a task means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// Must run as long as the node: its end or panic stops the process, and leases plus keepers
    /// cover what it did.
    Essential,
    /// One client, peer or request: its panic or error ends only itself.
    Session,
}

/// So many names are looked up at once: a resolver that does not answer holds a thread for each, of
/// the few hundred that also make durable what is promised and end what must end.
const LOOKUPS_MAX: usize = 32;

/// Owns the tasks of a part of the process. Clones share them.
#[derive(Clone, Debug)]
pub struct Supervisor {
    tasks: TaskTracker,
    leaving: CancellationToken,
    stop: CancellationToken,
    broken: CancellationToken,
    lookups: Arc<Semaphore>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> Self {
        Self {
            tasks: TaskTracker::new(),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            broken: CancellationToken::new(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Starts a task. It should end soon after `stopping()` is cancelled.
    #[allow(clippy::disallowed_methods, reason = "the one place that may spawn")]
    pub fn spawn<F>(&self, name: &'static str, kind: TaskKind, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let essential = (kind == TaskKind::Essential).then(|| self.clone());
        // One task that catches its own panic, not one that waits for another: a door has
        // thousands, and each task costs memory and a place in the queues.
        let task = AssertUnwindSafe(task).catch_unwind().map(move |outcome| {
            if outcome.is_err() {
                tracing::error!(task = name, "task panicked");
            }
            if let Some(all) = essential
                && !all.leaving.is_cancelled()
            {
                tracing::error!(task = name, "an essential task ended; the node stops");
                all.broken.cancel();
            }
        });
        tokio::spawn(self.tasks.track_future(task));
    }

    /// Places for questions to the system's resolver: one for each thread that waits for it.
    pub fn lookups(&self) -> Arc<Semaphore> {
        Arc::clone(&self.lookups)
    }

    /// Cancelled when the tasks shall end.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when an essential task ended before it should.
    pub fn broken(&self) -> CancellationToken {
        self.broken.clone()
    }

    /// From now on the end of an essential task is no break: the parts are being stopped in order.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Asks every task to end and waits at most `grace`; false if some were still running.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.leave();
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}
