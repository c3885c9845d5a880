//! Decides what a data directory holds: a log of records, a flushed part, timelines.
//! A record's id is unique in a run, so the last id of a log names the whole log.

use std::collections::BTreeSet;
use tandem_core::facts::Fork;
use tandem_core::ids::{Term, TimelineId};
use tandem_core::lsn::Lsn;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Written by a client.
    Write,
    /// The row of a term in `tandem.history`.
    Term(Term),
    /// The first record of a timeline.
    EndOfRecovery,
    /// Anything else: checkpoints, barriers.
    Other,
}

/// One record of the log; its position is its index, plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Unique in a run.
    pub id: u64,
    /// The timeline that it was written on.
    pub timeline: u32,
    /// What it is.
    pub kind: Kind,
}

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    /// Identity of the database cluster.
    pub system: u64,
    /// The log, with what is not flushed yet.
    pub wal: Vec<Record>,
    /// This much survives a crash of the machine.
    pub flushed: usize,
    /// Timelines whose history files are here.
    pub known: BTreeSet<u32>,
    /// The last checkpoint or restartpoint.
    pub checkpoint: usize,
    /// The timeline in pg_control.
    pub checkpoint_timeline: u32,
    /// Shut down with a checkpoint.
    pub clean: bool,
    /// Last run as a standby.
    pub in_recovery: bool,
}

impl DataDir {
    /// A new database cluster.
    pub fn new(system: u64, id: u64) -> Self {
        Self {
            system,
            wal: vec![Record { id, timeline: 1, kind: Kind::Other }],
            flushed: 1,
            known: BTreeSet::new(),
            checkpoint: 1,
            checkpoint_timeline: 1,
            clean: true,
            in_recovery: false,
        }
    }

    /// The timeline of the last record.
    pub fn timeline(&self) -> u32 {
        self.wal.last().map_or(1, |record| record.timeline)
    }

    /// Where each ancestor of the timeline ended.
    pub fn forks(&self) -> Vec<Fork> {
        let mut forks = Vec::new();
        for (index, pair) in self.wal.windows(2).enumerate() {
            if pair[0].timeline != pair[1].timeline {
                let timeline = TimelineId(pair[0].timeline);
                forks.push(Fork { timeline, end: Lsn(index as u64 + 1) });
            }
        }
        forks
    }

    /// As PostgreSQL chooses: the next number above all whose history it happens to have (H6).
    pub fn next_timeline(&self) -> u32 {
        let mut newest = self.timeline();
        while self.known.contains(&(newest + 1)) {
            newest += 1;
        }
        newest + 1
    }

    /// The greatest term whose row is in the first `upto` records.
    pub fn term(&self, upto: usize) -> Term {
        let rows = self.wal[..upto.min(self.wal.len())].iter().rev();
        rows.filter_map(|record| if let Kind::Term(term) = record.kind { Some(term) } else { None })
            .max()
            .unwrap_or_default()
    }

    /// Whether this log is the beginning of the other.
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        let len = self.wal.len();
        len == 0 || other.wal.get(len - 1).is_some_and(|record| record.id == self.wal[len - 1].id)
    }

    /// Whether a record is held at its position.
    pub fn holds(&self, id: u64, position: usize) -> bool {
        self.wal.get(position - 1).is_some_and(|record| record.id == id)
    }

    /// What PostgreSQL checks before it feeds a standby: timelines and positions only, so two
    /// timelines of one number pass for the same (H6, H22).
    pub fn may_feed(&self, standby: &Self) -> bool {
        let (timeline, position) = (standby.timeline(), standby.wal.len());
        if timeline == self.timeline() {
            return position <= self.flushed;
        }
        let fork = self.forks().into_iter().find(|fork| fork.timeline.0 == timeline);
        fork.is_some_and(|fork| position as u64 <= fork.end.0)
    }

    /// What pg_rewind finds, by the numbers and beginnings of timelines and pg_control alone, so
    /// two that began at one place under one number are the same to it (H6, H18).
    pub fn rewind_is_needed(&self, source: &Self) -> bool {
        if source.checkpoint_timeline == self.timeline() && source.forks() == self.forks() {
            return false;
        }
        let (own, other) = (self.forks(), source.forks());
        let common = own.iter().zip(&other).take_while(|(a, b)| a == b).count();
        let here = own.get(common).map_or(self.timeline(), |fork| fork.timeline.0);
        let there = other.get(common).map_or(source.timeline(), |fork| fork.timeline.0);
        let end = other.get(common).map_or(u64::MAX, |fork| fork.end.0);
        common < own.len() || here != there || self.wal.len() as u64 > end
    }

    /// Becomes a copy of what `source` has flushed.
    pub fn copy_of(source: &Self) -> Self {
        let mut copy = source.clone();
        copy.wal.truncate(source.flushed);
        copy.flushed = copy.wal.len();
        copy.known.insert(copy.timeline());
        copy.checkpoint = copy.checkpoint.min(copy.flushed);
        copy.clean = false;
        copy.in_recovery = true;
        copy
    }
}
