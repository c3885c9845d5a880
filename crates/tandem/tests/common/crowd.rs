//! Clients that ask without a pause, until the test has seen enough, and what they were told.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a crowd shares: `T` is what their answers add up to.
#[derive(Debug, Default)]
pub struct Shared<T> {
    stop: AtomicBool,
    done: AtomicU64,
    told: Mutex<Told<T>>,
}

#[derive(Debug, Default)]
pub struct Told<T> {
    pub all: T,
    pub answered: u64,
    pub wrong: Vec<String>,
}

impl<T> Shared<T> {
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// What came of one request: what to do with its answer, or what was wrong.
    pub fn note(&self, came: Result<impl FnOnce(&mut T), String>) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap();
        match came {
            Ok(add) => {
                told.answered += 1;
                add(&mut told.all);
            }
            Err(why) => told.wrong.push(why),
        }
    }
}

/// Those clients.
pub struct Crowd<T> {
    shared: Arc<Shared<T>>,
    tasks: Vec<JoinHandle<()>>,
}

impl<T: Debug + Default + Send + 'static> Crowd<T> {
    /// Each client asks, and notes what came of it, as long as it goes on.
    #[allow(clippy::disallowed_methods, reason = "a test has no supervisor")]
    pub fn start<C, F>(clients: impl IntoIterator<Item = C>) -> Self
    where
        C: FnOnce(Arc<Shared<T>>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = Arc::<Shared<T>>::default();
        let start = |client: C| tokio::spawn(client(Arc::clone(&shared)));
        let tasks = clients.into_iter().map(start).collect();
        Self { shared, tasks }
    }

    /// Goes on until so many more were answered, one way or the other.
    pub async fn more(&self, count: u64) {
        let until = self.shared.done.load(Ordering::Relaxed) + count;
        self.wait(|| self.shared.done.load(Ordering::Relaxed) >= until).await;
    }

    /// Goes on until this is true of what the answers add up to.
    pub async fn until(&self, is_so: impl Fn(&T) -> bool) {
        self.wait(|| is_so(&self.shared.told.lock().unwrap().all)).await;
    }

    async fn wait(&self, is_so: impl Fn() -> bool) {
        let limit = Instant::now() + LIMIT;
        while !is_so() {
            assert!(Instant::now() < limit, "{:?}", self.shared.told.lock().unwrap());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends it, a little later.
    pub async fn end(self, what: &str) -> Told<T> {
        self.more(100).await;
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let told = std::mem::take(&mut *self.shared.told.lock().unwrap());
        println!("{what}: {} answered, {} failed", told.answered, told.wrong.len());
        told
    }
}
