//! Talks to the disk, alone: the thread that commits what the others queued.
//! In: jobs, in order. Out: their callbacks, after the flush that covers them.
//! Keeps: INV-2. Not here: what is written (`disk.rs`).

use super::Error;
use super::disk::{self, Durable, Op};
use crate::consensus::types::TypeConfig;
use openraft::storage::IOFlushed;
use redb::Database;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// How many jobs share one flush.
const BATCH_MAX: usize = 256;

pub enum Job {
    Write { ops: Vec<Op>, done: Done },
    Close(oneshot::Sender<()>),
}

/// Who waits for a write to be on disk.
pub enum Done {
    Nobody,
    Answer(oneshot::Sender<io::Result<()>>),
    Flushed(Flushed),
}

/// openraft's callback, which is called in any case: it would wait for ever for a lost one.
pub struct Flushed(Option<IOFlushed<TypeConfig>>);

impl Flushed {
    pub fn new(callback: IOFlushed<TypeConfig>) -> Self {
        Self(Some(callback))
    }

    fn complete(mut self, result: io::Result<()>) {
        if let Some(callback) = self.0.take() {
            callback.io_completed(result);
        }
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback.io_completed(Err(io::Error::other(Error::Closed)));
        }
    }
}

/// A write that failed, told to everyone who comes after it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("writing the Raft store failed")]
struct Failed(#[source] Arc<Error>);

/// Commits jobs until the store is closed.
pub fn run(database: Database, path: &Path, mut queue: mpsc::Receiver<Job>) {
    let mut failed: Option<Failed> = None;
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < BATCH_MAX
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let mut writes = Vec::with_capacity(jobs.len());
        let mut close = None;
        for job in jobs {
            match job {
                Job::Write { ops, done } => writes.push((ops, done)),
                Job::Close(done) => close = Some(done),
            }
        }
        if failed.is_none()
            && let Err(error) = commit(&database, path, &writes)
        {
            tracing::error!(error = %error, cause = ?error, "the Raft store failed");
            failed = Some(Failed(Arc::new(error)));
        }
        for (_, done) in writes {
            let result = failed.clone().map_or(Ok(()), |failed| Err(io::Error::other(failed)));
            match done {
                Done::Nobody => {}
                Done::Answer(answer) => drop(answer.send(result)),
                Done::Flushed(flushed) => flushed.complete(result),
            }
        }
        if let Some(done) = close {
            // Whoever hears that the store is closed may open the file again.
            drop(database);
            // Nobody has to wait for it.
            let _ = done.send(());
            return;
        }
    }
}

fn commit(database: &Database, path: &Path, writes: &[(Vec<Op>, Done)]) -> Result<(), Error> {
    let somebody_waits = writes.iter().any(|(_, done)| !matches!(done, Done::Nobody));
    let durable = if somebody_waits { Durable::Now } else { Durable::Later };
    disk::write(database, writes.iter().flat_map(|(ops, _)| ops), durable)
        .map_err(|source| Error::Database { path: path.to_owned(), source: Box::new(source) })
}
