//! Talks to openraft as its log storage.
//! In: entries, votes, truncation. Out: the same, read from memory.
//! Keeps: INV-2, a vote is on disk before `save_vote` returns, an entry before its callback.
//! Tested by: `tests.rs`, which restarts it, and the module's own stories.

use super::Store;
use super::disk::Op;
use super::writer::{Done, Flushed, Job};
use crate::consensus::types::{Entry, LogId, TypeConfig, Vote};
use crate::consensus::wire;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{LogIdOptionExt, OptionalSend};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// A message with entries grows no larger than this, unless one entry alone is.
const READ_BYTES_MAX: usize = 1 << 20;

/// An entry and its size on disk.
#[derive(Clone, Debug)]
pub struct Stored {
    pub entry: Entry,
    pub bytes: usize,
}

/// What the file holds, in memory.
#[derive(Debug, Default)]
pub struct Cache {
    pub entries: BTreeMap<u64, Stored>,
    pub purged: Option<LogId>,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
}

impl Cache {
    pub fn last(&self) -> Option<LogId> {
        let last = self.entries.last_key_value().map(|(_, stored)| stored.entry.log_id.clone());
        last.or_else(|| self.purged.clone())
    }
}

/// Log storage and log reader of openraft. Clones share the store.
#[derive(Clone, Debug)]
pub struct Log(pub Arc<Store>);

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        // A range that ends before it starts would make the map panic.
        if is_empty(&range) {
            return Ok(Vec::new());
        }
        let cache = self.0.cache();
        Ok(cache.entries.range(range).map(|(_, stored)| stored.entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.vote())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        if start >= end {
            return Ok(entries);
        }
        let cache = self.0.cache();
        for (_, stored) in cache.entries.range(start..end) {
            bytes += stored.bytes;
            if bytes > READ_BYTES_MAX && !entries.is_empty() {
                break;
            }
            entries.push(stored.entry.clone());
        }
        Ok(entries)
    }
}

fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(end) => start > *end,
        Bound::Excluded(end) => start >= *end,
        Bound::Unbounded => false,
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let cache = self.0.cache();
        Ok(LogState { last_purged_log_id: cache.purged.clone(), last_log_id: cache.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.0.write_durably(vec![Op::vote(vote)?]).await?;
        self.0.cache_mut().vote = Some(vote.clone());
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let op = Op::committed(committed.as_ref())?;
        self.0.cache_mut().committed = committed;
        self.0.write_lazily(vec![op]).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.0.cache().committed.clone())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut ops = Vec::new();
        let mut appended = Vec::new();
        for entry in entries {
            let bytes = wire::encode(&entry).map_err(io::Error::other)?;
            let size = bytes.len();
            ops.push(Op::Log(entry.log_id.index, bytes));
            appended.push((entry.log_id.index, Stored { entry, bytes: size }));
        }
        self.0.cache_mut().entries.extend(appended);
        let done = Done::Flushed(Flushed::new(callback));
        self.0.queue(Job::Write { ops, done }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.next_index();
        self.0.cache_mut().entries.split_off(&from);
        self.0.write_lazily(vec![Op::Truncate(from)]).await
    }

    // Not durable by itself: the snapshot that makes it possible is.
    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let ops = vec![Op::Purge(upto.index), Op::purged(&upto)?];
        {
            let mut cache = self.0.cache_mut();
            cache.entries = cache.entries.split_off(&(upto.index + 1));
            cache.purged = Some(upto);
        }
        self.0.write_lazily(ops).await
    }
}
