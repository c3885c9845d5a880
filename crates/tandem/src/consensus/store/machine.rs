//! Talks to openraft as its state machine: folds agreed commands into the cluster's state.
//! In: committed entries, snapshots. Out: `Agreed`, published before anyone who proposed hears.
//! The state lives in memory; a restart takes the last snapshot and the log after it.
//! Keeps: INV-5, the applied index never goes back while the node runs.
//! Not here: what a command does (`tandem_core::cluster::state`).

use super::Store;
use super::disk::Op;
use crate::consensus::Agreed;
use crate::consensus::origin::Origins;
use crate::consensus::types::{LogId, Membership, Snapshot, SnapshotMeta, TypeConfig};
use crate::consensus::wire;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{LogIdOptionExt, OptionalSend};
use std::io;
use std::sync::{Arc, PoisonError};
use tandem_core::cluster::state::{Applied, ClusterState};
use tokio::sync::watch;

/// The agreed state and how far it has come.
#[derive(Debug)]
pub struct Machine {
    pub store: Arc<Store>,
    pub origins: Arc<Origins>,
    pub agreed: watch::Sender<Agreed>,
    pub state: Arc<ClusterState>,
    pub applied: Option<LogId>,
    pub membership: Membership,
}

impl Machine {
    fn publish(&self) {
        let index = self.applied.index().unwrap_or(0);
        self.agreed.send_replace(Agreed { state: Arc::clone(&self.state), index });
    }

    fn take_membership(&mut self, membership: Membership) {
        self.origins.note_members(membership.nodes().map(|(node, _)| node.clone()).collect());
        self.membership = membership;
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        Ok((self.applied.clone(), self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = match entry.payload {
                EntryPayload::Blank => Applied::Changed,
                EntryPayload::Normal(proposal) => Arc::make_mut(&mut self.state).apply(&proposal.0),
                EntryPayload::Membership(membership) => {
                    let since = Some(entry.log_id.clone());
                    self.take_membership(Membership::new(since, membership));
                    Applied::Changed
                }
            };
            self.applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, applied)));
        }
        // Published first: who is told that a command took effect finds it in the state.
        self.publish();
        for (responder, applied) in answers {
            responder.send(applied);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            store: Arc::clone(&self.store),
            state: Arc::clone(&self.state),
            meta: SnapshotMeta {
                last_log_id: self.applied.clone(),
                last_membership: self.membership.clone(),
            },
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let state: ClusterState = wire::decode(&data).map_err(io::Error::other)?;
        self.store.keep(Snapshot { meta: meta.clone(), snapshot: data }).await?;
        self.state = Arc::new(state);
        self.applied = meta.last_log_id.clone();
        self.take_membership(meta.last_membership.clone());
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.store.snapshot())
    }
}

/// A view of the state that later entries do not change.
#[derive(Debug)]
pub struct Builder {
    store: Arc<Store>,
    state: Arc<ClusterState>,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let bytes = wire::encode(&*self.state).map_err(io::Error::other)?;
        let snapshot = Snapshot { meta: self.meta.clone(), snapshot: Bytes::from(bytes) };
        self.store.keep(snapshot).await
    }
}

impl Store {
    /// The snapshot that is on disk.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a snapshot durable and returns the newest: the leader's may arrive while one is built.
    async fn keep(&self, snapshot: Snapshot) -> io::Result<Snapshot> {
        let op = Op::snapshot(&snapshot)?;
        let _one_at_a_time = self.keeping.acquire().await.map_err(io::Error::other)?;
        let newer =
            self.snapshot().filter(|kept| kept.meta.last_log_id >= snapshot.meta.last_log_id);
        if let Some(newer) = newer {
            return Ok(newer);
        }
        self.write_durably(vec![op]).await?;
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        Ok(snapshot)
    }
}
