//! Talks to the file that holds a node's Raft log, vote and snapshot, through one thread.
//! In: log entries, votes, snapshots. Out: the same after a restart; `Error` for a file that is
//! corrupted, not writable, or another node's.
//! A dedicated thread writes, so that a slow disk never stalls the runtime; what queued up while it
//! waited for the disk is committed with one flush. The log is also kept in memory, where readers
//! find an entry as soon as it was appended; snapshots bound its length.
//! Full: whoever writes waits, which is Raft itself. A failed write is final: nothing is written
//! after it until the node restarts, and Raft stops on this node.
//! Keeps: INV-2, votes and entries are durable before they are answered. H30, H35.
//! Tested by: `tests/`, here and one folder up.

pub mod disk;
pub mod log;
pub mod machine;
pub mod recover;
mod writer;

#[cfg(test)]
mod tests;

use super::origin::Run;
use super::types::{Snapshot, Vote};
use disk::{Identity, Loaded, Op};
use log::Cache;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tandem_core::ids::{ClusterId, NodeId};
use tokio::sync::{Semaphore, mpsc, oneshot};
use writer::{Done, Job};

/// How many writes may wait for the disk.
const JOBS_MAX: usize = 1024;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, read or written.
    #[error("{}: the Raft store cannot be opened, read or written", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// The daemon has it open.
    #[error("{}: the Raft store is in use: the daemon of this node runs", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Something in the file cannot be decoded.
    #[error("{}: the Raft store is corrupted: its {what} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: super::wire::Garbage,
    },
    /// The log has a hole, or an entry in the wrong place.
    #[error(
        "{}: the Raft store is corrupted: its log has entry {found} where {expected} should be",
        path.display()
    )]
    Hole {
        /// The file.
        path: PathBuf,
        /// The index that should follow.
        expected: u64,
        /// The index that does.
        found: u64,
    },
    /// The database code gave up.
    #[error(
        "{}: the Raft store is corrupted: reading it failed inside the database",
        path.display()
    )]
    Panicked {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another node (H35).
    #[error("{}: the Raft store belongs to node {found}, not to {expected}", path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// This node.
        expected: NodeId,
        /// Whose it is.
        found: NodeId,
    },
    /// The file is of another cluster (H35).
    #[error("{}: the Raft store belongs to cluster {found}, not to {expected}", path.display())]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// This node's cluster.
        expected: ClusterId,
        /// Whose it is.
        found: ClusterId,
    },
    /// There is no store to work on.
    #[error("{}: there is no Raft store of a founded cluster", path.display())]
    Nothing {
        /// The file.
        path: PathBuf,
    },
    /// The thread could not be started.
    #[error("the thread of the Raft store cannot be started")]
    Thread(#[source] io::Error),
    /// The store was closed.
    #[error("the Raft store is closed")]
    Closed,
}

/// What a restart finds.
pub struct Opened {
    /// The handle for all further work.
    pub store: Arc<Store>,
    /// Whose store it is.
    pub identity: Identity,
    /// Which stores the peers last came with.
    pub peers: BTreeMap<NodeId, Run>,
}

/// The open file, and what of it is kept in memory.
pub struct Store {
    jobs: mpsc::Sender<Job>,
    cache: RwLock<Cache>,
    identity: Mutex<Identity>,
    snapshot: Mutex<Option<Snapshot>>,
    keeping: Semaphore,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or makes the file, checks whose it is, and counts this start.
    ///
    /// # Errors
    /// A file that is corrupted, in use, not writable, or of another node or cluster.
    pub async fn open(path: &Path, cluster: &ClusterId, node: &NodeId) -> Result<Opened, Error> {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let (ready, opened) = oneshot::channel();
        let (file, cluster, node) = (path.to_owned(), cluster.clone(), node.clone());
        let work = move || match disk::open(&file, &cluster, &node) {
            Ok((database, loaded)) => {
                if ready.send(Ok(loaded)).is_ok() {
                    writer::run(database, &file, queue);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        std::thread::Builder::new().name("raft-store".into()).spawn(work).map_err(Error::Thread)?;
        // The answer is lost only if the thread panicked over what it read.
        let loaded: Loaded =
            opened.await.map_err(|_| Error::Panicked { path: path.to_owned() })??;
        let store = Store {
            jobs,
            cache: RwLock::new(loaded.cache),
            identity: Mutex::new(loaded.identity.clone()),
            snapshot: Mutex::new(loaded.snapshot),
            keeping: Semaphore::new(1),
        };
        Ok(Opened { store: Arc::new(store), identity: loaded.identity, peers: loaded.peers })
    }

    /// Whether this store never took part in anything: no log, no vote, no snapshot.
    pub fn is_pristine(&self) -> bool {
        let cache = self.cache();
        cache.last().is_none() && cache.vote.as_ref().is_none_or(|vote| vote.leader_id.term == 0)
    }

    /// Whether a cluster exists for this node: it has a log.
    pub fn is_founded(&self) -> bool {
        self.cache().last().is_some()
    }

    /// The vote that is on disk.
    pub fn vote(&self) -> Option<Vote> {
        self.cache().vote.clone()
    }

    /// The line of history that this store belongs to (`recover`).
    pub fn lineage(&self) -> u64 {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).lineage
    }

    /// Joins a line of history, durably.
    ///
    /// # Errors
    /// The write failed.
    pub async fn adopt(&self, lineage: u64) -> io::Result<()> {
        let identity = {
            let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
            identity.lineage = lineage;
            identity.clone()
        };
        self.write_durably(vec![Op::identity(&identity)?]).await
    }

    /// Ends the thread and waits until the file is closed.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).await.is_ok() {
            // An error says that the thread is gone already: just as closed.
            let _ = closed.await;
        }
    }

    fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache_mut(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and waits until it is on disk.
    async fn write_durably(&self, ops: Vec<Op>) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.queue(Job::Write { ops, done: Done::Answer(done) }).await?;
        written.await.map_err(|_| io::Error::other(Error::Closed))?
    }

    /// Writes in order with everything else; on disk with the next durable write. A crash before
    /// that takes back the newest of these writes, never one in the middle.
    pub(super) async fn write_lazily(&self, ops: Vec<Op>) -> io::Result<()> {
        self.queue(Job::Write { ops, done: Done::Nobody }).await
    }

    async fn queue(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).await.map_err(|_| io::Error::other(Error::Closed))
    }
}
