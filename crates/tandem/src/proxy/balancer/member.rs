//! Keeps what a balancer knows of one endpoint: what it has, what it did, how long it took.
//! In: what became of work. Out: numbers for choices and for operators.
//! Costs: a sample takes one lock that only this endpoint's work takes.
//! Not here: whether it may have work (`group.rs`).
//! Tested by: `tests.rs`.

pub(in crate::proxy) mod leaving;
pub(in crate::proxy) mod progress;

use super::BalancerConfig;
use super::owners::Routed;
use super::snapshot::EndpointSnapshot;
use super::waiting::Freed;
use crate::runtime::clock;
use leaving::{Leaving, Over};
use progress::Progress;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Load;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::clustering::load_balanced::latency::{Latency, Round};
use tandem_core::clustering::load_balanced::pace::{Pace, Recent};
use tandem_core::clustering::load_balanced::quantiles::Times;
use tandem_core::clustering::load_balanced::rendezvous;
use tandem_core::clustering::load_balanced::retry::{Budget, Limits};
use tandem_core::time::Timestamp;

/// One endpoint, for as long as somebody uses it.
#[derive(Debug)]
pub(in crate::proxy) struct Member {
    pub(in crate::proxy) address: SocketAddr,
    /// What all nodes call it, by which they give it the same keys and cookies.
    pub(super) agreed: Arc<str>,
    pub(super) weight: AtomicU32,
    pub(super) far: AtomicBool,
    name: u64,
    /// As its owner wrote it.
    upstream: Mutex<Arc<str>>,
    /// What a client's cookie says.
    token: AtomicU64,
    pub(super) in_flight: AtomicU32,
    /// Told when work ends.
    freed: Arc<Freed>,
    took: Mutex<Took>,
    served: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    pub(super) ejected: AtomicU64,
    pub(super) leaving: Leaving,
    /// What went wrong last.
    failure: Mutex<Option<String>>,
    /// That is no failure: it takes too long.
    is_slow: AtomicBool,
    /// What pays for connects that are tried again.
    again: Mutex<Budget>,
}

/// Connects that are tried again: so many per second, and two for each that went well.
const AGAIN: Limits = Limits { percent: 0, floor_per_second: 10 };

/// What each endpoint of a group may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// At once; 0 is no bound.
    pub(super) in_flight_max: u32,
    /// For what is drained, or listed no more.
    pub(super) drain_max: Option<Duration>,
}

impl Bounds {
    pub(super) fn of(config: &BalancerConfig) -> Self {
        let requests = config.http.as_ref().map(|http| http.in_flight_max);
        let in_flight_max = requests.unwrap_or(config.connections_max);
        Self { in_flight_max, drain_max: config.drain_max }
    }
}

#[derive(Debug, Default)]
struct Took {
    latency: Latency,
    times: Times,
    recent: Recent,
}

impl Took {
    /// For operators, and for who is slower than the others.
    fn seen(&mut self, took: Duration, now: Timestamp) {
        self.times.sample(took, now);
        self.recent.sample(took, now);
    }
}

impl Member {
    pub(super) fn new(address: SocketAddr, agreed: &Arc<str>, freed: &Arc<Freed>) -> Self {
        Self {
            address,
            agreed: Arc::clone(agreed),
            weight: AtomicU32::new(1),
            far: AtomicBool::new(false),
            name: rendezvous::hash(agreed.as_bytes()),
            upstream: Mutex::new(Arc::from("")),
            token: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            freed: Arc::clone(freed),
            took: Mutex::default(),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            ejected: AtomicU64::new(0),
            leaving: Leaving::default(),
            failure: Mutex::default(),
            is_slow: AtomicBool::new(false),
            again: Mutex::new(Budget::new(AGAIN, clock::now())),
        }
    }

    /// Whether a connect may be tried again; if so, it is paid for.
    pub(in crate::proxy) fn pays_again(&self) -> bool {
        lock(&self.again).retry(clock::now())
    }

    /// One that was tried again went well.
    pub(in crate::proxy) fn worked_again(&self) {
        lock(&self.again).worked();
    }

    /// It has one more connection, after so long.
    pub(in crate::proxy) fn connected_in(&self, took: Duration) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.took(took);
    }

    /// It has one more response: one that it owed, after so long, or before it had all of what it
    /// was asked.
    pub(in crate::proxy) fn answered(&self, owed: Option<(Owed<'_>, Duration)>) {
        self.served.fetch_add(1, Ordering::Relaxed);
        let (mut of, now) = (lock(&self.took), clock::now());
        match owed {
            Some((owed, took)) => {
                of.latency.answered(owed.came(), took, now);
                of.seen(took, now);
            }
            None => of.latency.spoke(now),
        }
    }

    /// How long something took there.
    pub(in crate::proxy) fn took(&self, took: Duration) {
        let (mut of, now) = (lock(&self.took), clock::now());
        of.latency.sample(took, now);
        of.seen(took, now);
    }

    /// It has all of a request, and owes an answer.
    pub(in crate::proxy) fn asked(&self) -> Owed<'_> {
        Owed(self, lock(&self.took).latency.asked(clock::now()))
    }

    /// How long work takes here of late; asked once in a while.
    pub(super) fn pace(&self, now: Timestamp, window: Duration) -> Option<Pace> {
        let pace = lock(&self.took).recent.pace(now, window)?;
        Some(Pace { far: self.far.load(Ordering::Relaxed), ..pace })
    }

    /// Work failed here.
    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        lock(&self.took).latency.failed(clock::now());
    }

    /// What failed here is tried once more.
    pub(in crate::proxy) fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// What a client's cookie says that belongs here.
    pub(in crate::proxy) fn token(&self) -> u64 {
        self.token.load(Ordering::Relaxed)
    }

    pub(super) fn hide(&self, secret: &[u8; 32]) {
        let hash = blake3::keyed_hash(secret, self.agreed.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        self.token.store(u64::from_be_bytes([a, b, c, d, e, f, g, h]), Ordering::Relaxed);
    }

    /// As its owner wrote it.
    pub(super) fn upstream(&self) -> String {
        lock(&self.upstream).to_string()
    }

    /// Something there is not over.
    pub(super) fn has_work(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// What its owner calls it.
    pub(super) fn call(&self, upstream: &Arc<str>) {
        *lock(&self.upstream) = Arc::clone(upstream);
    }

    /// Something went wrong, for operators.
    pub(in crate::proxy) fn failed_because(&self, why: impl Into<String>) {
        self.says((Some(why.into()), false));
    }

    /// It takes too long, for operators.
    pub(super) fn is_slow_because(&self, why: String) {
        self.says((Some(why), true));
    }

    fn says(&self, (why, is_slow): (Option<String>, bool)) {
        let mut failure = lock(&self.failure);
        *failure = why;
        // Read under the same lock.
        self.is_slow.store(is_slow, Ordering::Relaxed);
    }

    /// Whether it gets no more work.
    pub(in crate::proxy) fn is_leaving(&self) -> bool {
        self.leaving.has_begun()
    }

    /// Some of its work was cut.
    pub(in crate::proxy) fn was_cut(&self) {
        self.leaving.was_cut();
    }

    /// It has as much as it may; 0 is no bound.
    pub(super) fn is_full(&self, in_flight_max: u32) -> bool {
        in_flight_max > 0 && self.in_flight.load(Ordering::SeqCst) >= in_flight_max
    }

    /// As a choice sees it, with this share of the work.
    pub(super) fn load(&self, share: u32, in_flight_max: u32, now: Timestamp) -> Load {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let is_full = self.is_full(in_flight_max);
        let latency = lock(&self.took).latency;
        Load {
            share: if is_full { 0 } else { share },
            in_flight: in_flight.saturating_add(latency.failing(now)),
            latency_us: latency.mean_us(now),
            is_silent: latency.is_silent(now),
            far: self.far.load(Ordering::Relaxed),
            name: self.name,
        }
    }

    /// As an operator sees it; without a condition it is listed no more.
    pub(super) fn snapshot(
        &self,
        condition: Option<Condition>,
        share: u32,
        (bounds, now): (Bounds, Timestamp),
    ) -> EndpointSnapshot {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ejected_for = match condition {
            Some(Condition::Ejected(until)) => Some(until.since(now)),
            _ => None,
        };
        let (failure, is_slow) = {
            let failure = lock(&self.failure);
            (failure.clone(), self.is_slow.load(Ordering::Relaxed))
        };
        let took = lock(&self.took);
        EndpointSnapshot {
            address: self.address,
            upstream: lock(&self.upstream).to_string(),
            condition,
            ejected_for,
            weight: self.weight.load(Ordering::Relaxed),
            far: self.far.load(Ordering::Relaxed),
            share_percent: share / self.weight.load(Ordering::Relaxed).max(1),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency_us: took.latency.mean_us(now),
            quantiles: took.times.quantiles(now),
            rate_milli: took.times.rate_milli(now),
            histogram: took.times.histogram(),
            served: count(&self.served),
            failed: count(&self.failed),
            retried: count(&self.retried),
            ejected: count(&self.ejected),
            failure,
            is_slow,
            cut: self.leaving.count(),
            is_full: self.is_full(bounds.in_flight_max),
            cut_in: self.leaving.left(bounds.drain_max, now),
        }
    }
}

/// An answer that an endpoint owes; dropped when nobody waits for it any more.
#[derive(Debug)]
pub(in crate::proxy) struct Owed<'a>(&'a Member, Round);

impl Owed<'_> {
    fn came(self) -> Round {
        let round = self.1;
        std::mem::forget(self);
        round
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        lock(&self.0.took).latency.left(self.1);
    }
}

/// A place at an endpoint, until dropped; as what it has it, where work has owners; and after how
/// many cuts there.
#[derive(Debug)]
pub(in crate::proxy) struct Claim(
    pub(in crate::proxy) Arc<Member>,
    pub(in crate::proxy) Option<Routed>,
    u64,
);

impl Claim {
    /// Made, as cuts are, while the group is locked: so one is before the other.
    pub(super) fn new(member: &Arc<Member>, routed: Option<Routed>) -> Self {
        member.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(member), routed, member.leaving.cuts())
    }

    /// Ready when what has this place must end, before anything came from there.
    pub(in crate::proxy) async fn cut(&self) -> Over {
        self.0.leaving.over(self.2).await
    }

    /// Ready when what has this place must end. It says so with `was_cut`. What came from a copy
    /// that is gone may get to its client, within the time that there is.
    pub(in crate::proxy) async fn over(&self, progress: &Progress) -> Over {
        let why = self.cut().await;
        if why == Over::Gone {
            tokio::select! {
                biased;
                () = self.0.leaving.late(self.2) => {}
                () = progress.quiet() => {}
            }
        }
        why
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.0.freed.tell();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves a value half changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
