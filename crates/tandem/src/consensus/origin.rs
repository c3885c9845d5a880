//! Talks to nobody: checks who a message is from before Raft sees it.
//! In: `Origin`, in every message. Out: a refusal, or nothing.
//! Raft is safe only among nodes that keep what they promised. Three things break that without a
//! trace, and are refused here: a node of another cluster (H35); a voter that comes back with an
//! empty or an older store (H30), known by the store's random number and its count of starts; and,
//! after `recover`, the members that were given up, which could otherwise outvote the recovered
//! node: they belong to another line of history.
//! A peer's store is remembered while the peer is a member: remove it and add it again to accept
//! a new one.
//! Keeps: H30, H35. Tested by: `tests/refusals.rs`, `tests/recovery.rs`.

use super::store::Store;
use super::store::disk::{Identity, Op};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tandem_core::ids::{ClusterId, NodeId};

/// One start of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Random, made with the store.
    pub store: u64,
    /// Which start of it this is.
    pub start: u64,
    /// Random, made at the start: tells a copy apart that was started as often.
    pub nonce: u64,
}

impl Run {
    /// Of a store that is being made.
    pub fn first() -> Self {
        Self { store: rand::random(), start: 0, nonce: 0 }
    }

    /// The start after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self { start: self.start + 1, nonce: rand::random(), ..self }
    }
}

/// Who says something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub cluster: ClusterId,
    pub lineage: u64,
    pub run: Run,
}

/// Why a message is not listened to.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// H35.
    #[error(
        "{from} belongs to cluster {theirs}, this node to {ours}; two clusters share an address?"
    )]
    Cluster { from: NodeId, theirs: ClusterId, ours: ClusterId },
    /// The other side of a recovery.
    #[error(
        "{from} is on the other side of a recovery from a lost majority; \
         empty its node directory and join it again"
    )]
    Lineage { from: NodeId },
    /// H30.
    #[error(
        "{from} came back with another Raft store; remove it from the cluster and join it again"
    )]
    OtherStore { from: NodeId },
    /// H30.
    #[error(
        "{from} came back with an older copy of its Raft store; \
         remove it from the cluster, empty its node directory and join it again"
    )]
    OlderStore { from: NodeId },
    /// The own store failed.
    #[error("the Raft store of this node failed")]
    Store(#[source] io::Error),
}

/// Remembers the stores of the members.
#[derive(Debug)]
pub struct Origins {
    store: Arc<Store>,
    cluster: ClusterId,
    run: Run,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    members: BTreeSet<NodeId>,
    runs: BTreeMap<NodeId, Run>,
    /// Forgotten in memory, not yet in the file.
    forgotten: Vec<NodeId>,
}

impl Origins {
    /// Starts with what the store remembers.
    pub fn new(store: Arc<Store>, identity: Identity, runs: BTreeMap<NodeId, Run>) -> Self {
        let known = Mutex::new(Known { runs, ..Known::default() });
        Self { store, cluster: identity.cluster, run: identity.run, known }
    }

    /// Who this node is.
    pub fn own(&self) -> Origin {
        Origin { cluster: self.cluster.clone(), lineage: self.store.lineage(), run: self.run }
    }

    /// Tells who is a member, as agreed.
    pub fn note_members(&self, members: BTreeSet<NodeId>) {
        let mut known = self.known();
        let gone: Vec<NodeId> =
            known.runs.keys().filter(|node| !members.contains(*node)).cloned().collect();
        for node in gone {
            known.runs.remove(&node);
            known.forgotten.push(node);
        }
        known.members = members;
    }

    /// Listens to a request, or refuses it. A node that never took part in anything joins the
    /// line of history of the first who calls it.
    ///
    /// # Errors
    /// Why the sender is not listened to.
    pub async fn check_request(&self, from: &NodeId, origin: &Origin) -> Result<(), Refused> {
        self.check_cluster(from, origin)?;
        if origin.lineage != self.store.lineage() && self.store.is_pristine() {
            self.store.adopt(origin.lineage).await.map_err(Refused::Store)?;
        }
        self.check(from, origin).await
    }

    /// Believes an answer, or not.
    ///
    /// # Errors
    /// Why the sender is not believed.
    pub async fn check(&self, from: &NodeId, origin: &Origin) -> Result<(), Refused> {
        self.check_cluster(from, origin)?;
        if origin.lineage != self.store.lineage() {
            return Err(Refused::Lineage { from: from.clone() });
        }
        let ops = self.remember(from, origin.run)?;
        if ops.is_empty() {
            return Ok(());
        }
        self.store.write_lazily(ops).await.map_err(Refused::Store)
    }

    fn check_cluster(&self, from: &NodeId, origin: &Origin) -> Result<(), Refused> {
        if origin.cluster == self.cluster {
            return Ok(());
        }
        Err(Refused::Cluster {
            from: from.clone(),
            theirs: origin.cluster.clone(),
            ours: self.cluster.clone(),
        })
    }

    fn remember(&self, from: &NodeId, run: Run) -> Result<Vec<Op>, Refused> {
        let mut known = self.known();
        let mut ops: Vec<Op> = known.forgotten.drain(..).map(Op::Forget).collect();
        if !known.members.contains(from) {
            return Ok(ops);
        }
        match known.runs.get(from) {
            Some(last) if last.store != run.store => {
                return Err(Refused::OtherStore { from: from.clone() });
            }
            Some(last) if last.start > run.start => {
                return Err(Refused::OlderStore { from: from.clone() });
            }
            Some(last) if last.start == run.start => {
                let same = last.nonce == run.nonce;
                return if same {
                    Ok(ops)
                } else {
                    Err(Refused::OlderStore { from: from.clone() })
                };
            }
            Some(_) | None => {}
        }
        known.runs.insert(from.clone(), run);
        ops.push(Op::peer(from.clone(), &run).map_err(Refused::Store)?);
        Ok(ops)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
