//! Decides whether what happened may happen: one file per invariant, each looked at as soon as it
//! could be broken.

pub mod fed_rightly;
pub mod fresh;
pub mod idempotent;
pub mod lease;
pub mod liveness;
pub mod monotonic;
pub mod no_loss;
pub mod one_primary;
pub mod promises;
pub mod quorums_meet;
pub mod routes;

use crate::event::Micros;
use crate::node::{Clock, Node, StateFile};
use crate::postgres::server::Waiter;
use crate::postgres::wal::Kind;
use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::cluster::state::{Appointed, Cause};
use tandem_core::ids::{NodeId, Term};
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;

/// What invariants remember.
#[derive(Debug, Default)]
pub struct Record {
    /// Acknowledged commits that must never vanish.
    pub acknowledged: Vec<Acknowledged>,
    /// The greatest term that acknowledged.
    pub term: Term,
    /// When each term first acknowledged, in true time.
    pub began: BTreeMap<Term, Micros>,
    /// `Async`: how far a controller that elects knows that the old primary had come.
    pub heard: usize,
    /// The same: of when the last word of the old primary is, in true time.
    pub heard_at: Micros,
    /// The clock of each run of each daemon: a machine that starts again has another.
    pub clocks: BTreeMap<(usize, u64), Clock>,
    /// The greatest bounds, if `Async` was ever configured.
    pub async_bound: Option<(u64, Duration)>,
    /// An operator accepted that commits are lost.
    pub accepted: bool,
    /// Who acknowledged in each term.
    pub by_term: BTreeMap<Term, usize>,
    /// Whose barrier of each term a commit quorum has on its disks.
    pub barriers: BTreeMap<Term, usize>,
    /// Whom each term was agreed for.
    pub appointed: BTreeMap<Term, NodeId>,
    /// The greatest durable state of each node.
    pub states: Vec<StateFile>,
    /// What each had applied.
    pub applied: Vec<usize>,
    /// Commits acknowledged after healing.
    pub since_healing: usize,
}

/// One acknowledged commit.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Which record.
    pub id: u64,
    /// Its position.
    pub position: usize,
    /// In which term it was acknowledged.
    pub term: Term,
    /// When it was acknowledged, in true time.
    pub at: Micros,
}

impl Record {
    /// Nothing yet.
    pub fn new(nodes: usize) -> Self {
        Self {
            states: vec![StateFile::default(); nodes],
            applied: vec![0; nodes],
            ..Self::default()
        }
    }
}

impl World {
    /// Something that may never happen did.
    pub fn violate(&mut self, what: String) {
        self.trace.note(self.now, || format!("VIOLATED {what}"));
        self.violation.get_or_insert(what);
    }

    /// Checks a condition.
    pub fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violate(what());
        }
    }

    /// After every step.
    pub fn check_step(&mut self) {
        monotonic::check(self);
        if std::mem::take(&mut self.rules_changed) {
            quorums_meet::check(self);
        }
    }

    /// A server told a client that its commit is safe.
    pub fn check_acknowledged(&mut self, n: usize, waiter: Waiter) {
        if self.is_given_up(n) {
            return;
        }
        one_primary::check(self, n);
        self.record.began.entry(self.record.term).or_insert(self.now);
        lease::check(self, n);
        let (id, term) = (waiter.record.id, self.nodes[n].disk.state.promoted);
        let commit = Acknowledged { id, position: waiter.position, term, at: self.now };
        self.record.acknowledged.push(commit);
        if self.healed {
            self.record.since_healing += 1;
        }
    }

    /// A driver takes the row of its term, at this position, for confirmed.
    pub fn check_barrier(&mut self, n: usize, term: Term, rule: &CommitRule, position: usize) {
        let row = self.nodes[n].disk.data.as_ref().and_then(|data| data.wal.get(position - 1));
        let Some(row) = row.copied() else { return };
        let has = |node: &&Node| {
            let data = node.disk.data.as_ref();
            data.is_some_and(|data| data.flushed >= position && data.holds(row.id, position))
        };
        let holders = self.nodes.iter().filter(has).map(|node| node.id.clone()).collect();
        if row.kind == Kind::Term(term) && rule.acknowledges(&holders) {
            self.record.barriers.insert(term, n);
        }
    }

    /// Whether an operator accepted, with a later term, that what this primary still acknowledges
    /// is lost: who asks for that must make sure that it is off (docs/operating/failover.md).
    pub fn is_given_up(&self, n: usize) -> bool {
        let term = self.nodes[n].disk.state.promoted;
        let state = self.raft.last().services.get(&self.service);
        let history = state.map_or(&[][..], |state| &state.history);
        let forced = |line: &Appointed| line.term > term && line.cause == Cause::Forced;
        self.record.accepted && history.iter().any(forced)
    }

    /// A server left recovery.
    pub fn check_promoted(&mut self, n: usize) {
        no_loss::check(self, n);
    }

    /// A standby begins to be fed.
    pub fn check_fed(&mut self, n: usize, up: usize) {
        fed_rightly::check(self, n, up);
    }

    /// Something new is agreed.
    pub fn check_agreed(&mut self) {
        monotonic::check_agreed(self);
    }

    /// Writing the state twice equals once.
    pub fn check_same(&mut self, n: usize, same: bool) {
        idempotent::check_state(self, n, same);
    }
}
