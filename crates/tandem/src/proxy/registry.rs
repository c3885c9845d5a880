//! Talks to the open sessions of a door: who they are, how to stop one, which server knows a
//! cancel key.
//! In: claims and keys. Out: `Lease` per session, gone with it.
//! Keeps: keys leave with their session and are never shown.
//! Not here: when a session is stopped (`reaper.rs`).
//! Tested by: below, `tests/cut.rs`, `tests/cancel.rs`.

use super::pgwire::startup::CancelKey;
use super::routes::Claim;
use super::routes::readers::Readers;
use futures::task::AtomicWaker;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::ids::NodeId;

/// Enough that sessions which begin and end do not wait for each other.
const SHARDS: usize = 16;

/// Why a session is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Moved = 1,
    NotHeard = 2,
    ReplicaGone = 3,
    Closing = 4,
}

/// One session, as others see it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) claim: Claim,
    cut: AtomicU8,
    waker: AtomicWaker,
}

impl Entry {
    /// Asks the session to end; the first reason stands. True if it was the first.
    pub(super) fn cut(&self, cut: Cut) -> bool {
        let first =
            self.cut.compare_exchange(0, cut as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        self.waker.wake();
        first
    }

    /// Whether the session shall end; wakes the task when it shall. This is on every session's
    /// path for every byte: one store and one load, no lock that sessions share.
    pub(super) fn poll_cut(&self, context: &Context<'_>) -> Option<Cut> {
        self.waker.register(context.waker());
        match self.cut.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Cut::Moved),
            2 => Some(Cut::NotHeard),
            3 => Some(Cut::ReplicaGone),
            _ => Some(Cut::Closing),
        }
    }
}

/// The open sessions of a door.
#[derive(Debug)]
pub(super) struct Registry {
    next: AtomicU64,
    hasher: RandomState,
    sessions: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
    keys: [Mutex<HashMap<CancelKey, (u64, SocketAddr)>>; SHARDS],
    loads: Mutex<BTreeMap<NodeId, u64>>,
    readers: Mutex<Readers>,
}

impl Registry {
    /// Begins with nobody.
    pub(super) fn new(read_policy: Policy) -> Self {
        Self {
            next: AtomicU64::new(0),
            hasher: RandomState::default(),
            sessions: Default::default(),
            keys: Default::default(),
            loads: Mutex::default(),
            readers: Mutex::new(Readers::new(read_policy)),
        }
    }

    /// What is known of each replica. Taken after `loads` where both are.
    pub(super) fn readers(&self) -> MutexGuard<'_, Readers> {
        lock(&self.readers)
    }

    /// How many sessions each node has or is about to get.
    pub(super) fn loads(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        lock(&self.loads)
    }

    /// Enters a session.
    pub(super) fn enter(self: &Arc<Self>, claim: Claim, load: Load) -> Lease {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry { claim, cut: AtomicU8::new(0), waker: AtomicWaker::new() });
        lock(&self.sessions[shard(id)]).insert(id, Arc::clone(&entry));
        Lease { registry: Arc::clone(self), id, entry, key: None, _load: load }
    }

    /// Which server a cancel key belongs to.
    pub(super) fn find(&self, key: &CancelKey) -> Option<SocketAddr> {
        lock(self.keys_of(key)).get(key).map(|(_, address)| *address)
    }

    /// Looks at every session.
    pub(super) fn for_each(&self, mut look: impl FnMut(&Entry)) {
        for shard in &self.sessions {
            for entry in lock(shard).values() {
                look(entry);
            }
        }
    }

    fn keys_of(&self, key: &CancelKey) -> &Mutex<HashMap<CancelKey, (u64, SocketAddr)>> {
        &self.keys[shard(self.hasher.hash_one(key))]
    }
}

/// Counts as one session of a node, from its choice on, until dropped.
#[derive(Debug)]
pub(super) struct Load {
    registry: Arc<Registry>,
    node: NodeId,
}

impl Load {
    /// Counts under the lock that the choice was made under, so that a burst spreads.
    pub(super) fn begin(
        registry: &Arc<Registry>,
        loads: &mut BTreeMap<NodeId, u64>,
        node: &NodeId,
    ) -> Self {
        *loads.entry(node.clone()).or_default() += 1;
        Self { registry: Arc::clone(registry), node: node.clone() }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut loads = self.registry.loads();
        if let Some(count) = loads.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                loads.remove(&self.node);
            }
        }
    }
}

/// One session's place in the registry; leaving it forgets everything about the session.
#[derive(Debug)]
pub(super) struct Lease {
    registry: Arc<Registry>,
    id: u64,
    pub(super) entry: Arc<Entry>,
    key: Option<CancelKey>,
    _load: Load,
}

impl Lease {
    /// Remembers the session's cancel key.
    pub(super) fn remember(&mut self, key: CancelKey) {
        self.forget();
        let place = (self.id, self.entry.claim.target.address);
        lock(self.registry.keys_of(&key)).insert(key.clone(), place);
        self.key = Some(key);
    }

    fn forget(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut keys = lock(self.registry.keys_of(&key));
        if keys.get(&key).is_some_and(|(id, _)| *id == self.id) {
            keys.remove(&key);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.forget();
        lock(&self.registry.sessions[shard(self.id)]).remove(&self.id);
    }
}

fn shard(number: u64) -> usize {
    usize::try_from(number % SHARDS as u64).unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::routes::Target;
    use tandem_core::ids::Term;

    #[test]
    fn a_session_leaves_nothing_behind() {
        let registry = Arc::new(Registry::new(Policy::Random));
        let address = ([127, 0, 0, 1], 5).into();
        let target = Target { node: "a".into(), address };
        let key = CancelKey { process: 1, secret: [2; 32].into() };
        let load = Load::begin(&registry, &mut registry.loads(), &target.node);
        let mut lease = registry.enter(Claim { target, term: Term(1) }, load);
        lease.remember(key.clone());
        assert_eq!(registry.find(&key), Some(address));
        assert_eq!(registry.loads().get(&"a".into()), Some(&1));
        let mut seen = 0;
        registry.for_each(|entry| seen += usize::from(entry.cut(Cut::Moved)));
        assert_eq!(seen, 1);
        assert!(!lease.entry.cut(Cut::Closing), "the first reason stands");
        drop(lease);
        assert_eq!(registry.find(&key), None);
        assert!(registry.loads().is_empty());
        registry.for_each(|_| panic!("still there"));
    }
}
