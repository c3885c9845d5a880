//! Decides what happens next: everything that is going to happen, ordered by time, then by the
//! order in which it was planned.

use crate::faults::Fault;
use crate::postgres::server::Seen;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;
use tandem_core::facts::NodeFacts;
use tandem_core::ids::Term;
use tandem_core::time::Timestamp;

/// True time in microseconds; no node sees it.
pub type Micros = u64;

/// One thing that happens. `n` is a node, `inc` the daemon's incarnation, `pg` the server's.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variants are the documentation")]
pub enum Event {
    Tick { n: usize, inc: u32 },
    BeatTick { n: usize, inc: u32 },
    BeatNow { n: usize, inc: u32 },
    BeatRequest { to: usize, from: usize, inc: u32, sent: Timestamp, facts: Rc<NodeFacts> },
    BeatAnswer { to: usize, from: usize, inc: u32, sent: Timestamp, facts: Rc<NodeFacts> },
    Refused { n: usize, inc: u32, peer: usize, refused: bool },
    Look { n: usize, inc: u32, nudged: bool },
    Looked { n: usize, inc: u32, pg: u32, began: Timestamp, seen: Option<Box<Seen>> },
    KeeperExited { n: usize, inc: u32, pg: u32, clean: bool },
    KeeperStatus { n: usize, inc: u32 },
    Step { n: usize, inc: u32, id: u64 },
    Asked { n: usize, inc: u32, term: Term },
    Applied { n: usize, upto: usize },
    RaftTick,
    Elect { round: u64 },
    Depose { n: usize, inc: u32 },
    Commit { id: u64 },
    ProposalEnded { n: usize, inc: u32, id: u64 },
    LeaseEnds { n: usize, pg: u32 },
    Ready { n: usize, pg: u32 },
    Reload { n: usize, pg: u32, conn: u64 },
    Flushed { n: usize, pg: u32, upto: usize },
    Promoted { n: usize, pg: u32 },
    Stop { n: usize, pg: u32, end: usize },
    Connect { n: usize, pg: u32 },
    Receive { n: usize, pg: u32, conn: u64 },
    Confirm { n: usize, pg: u32, from: usize, conn: u64, flushed: usize },
    SenderGone { n: usize, pg: u32, from: usize, conn: u64 },
    ReceiverGone { n: usize, pg: u32, conn: u64 },
    Ping { n: usize, pg: u32, conn: u64 },
    Client,
    Fault(Fault),
    Boot { n: usize },
    StartDaemon { n: usize },
    Thaw { n: usize },
    ThawDaemon { n: usize },
    Heal,
    Judge,
}

impl Event {
    /// Whose processes take part: a frozen node's events wait for its thaw, a dead one's are lost.
    pub const fn node(&self) -> Option<usize> {
        match self {
            Self::Tick { n, .. }
            | Self::BeatTick { n, .. }
            | Self::BeatNow { n, .. }
            | Self::BeatRequest { to: n, .. }
            | Self::BeatAnswer { to: n, .. }
            | Self::Refused { n, .. }
            | Self::Look { n, .. }
            | Self::Looked { n, .. }
            | Self::KeeperExited { n, .. }
            | Self::KeeperStatus { n, .. }
            | Self::Step { n, .. }
            | Self::Asked { n, .. }
            | Self::Applied { n, .. }
            | Self::Depose { n, .. }
            | Self::ProposalEnded { n, .. }
            | Self::LeaseEnds { n, .. }
            | Self::Ready { n, .. }
            | Self::Reload { n, .. }
            | Self::Flushed { n, .. }
            | Self::Promoted { n, .. }
            | Self::Stop { n, .. }
            | Self::Connect { n, .. }
            | Self::Receive { n, .. }
            | Self::Confirm { n, .. }
            | Self::SenderGone { n, .. }
            | Self::ReceiverGone { n, .. }
            | Self::Ping { n, .. }
            | Self::StartDaemon { n } => Some(*n),
            Self::RaftTick
            | Self::Elect { .. }
            | Self::Commit { .. }
            | Self::Client
            | Self::Fault(_)
            | Self::Boot { .. }
            | Self::Thaw { .. }
            | Self::ThawDaemon { .. }
            | Self::Heal
            | Self::Judge => None,
        }
    }
}

impl Event {
    /// Whether the daemon takes part in it: waits while the daemon alone is frozen.
    pub const fn is_for_daemon(&self) -> bool {
        matches!(
            self,
            Self::Tick { .. }
                | Self::BeatTick { .. }
                | Self::BeatNow { .. }
                | Self::BeatRequest { .. }
                | Self::BeatAnswer { .. }
                | Self::Refused { .. }
                | Self::Look { .. }
                | Self::Looked { .. }
                | Self::KeeperExited { .. }
                | Self::KeeperStatus { .. }
                | Self::Step { .. }
                | Self::Asked { .. }
                | Self::Applied { .. }
                | Self::Depose { .. }
                | Self::ProposalEnded { .. }
                | Self::StartDaemon { .. }
        )
    }
}

#[derive(Debug)]
struct Planned {
    at: Micros,
    order: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// What is going to happen.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Planned>,
    order: u64,
}

impl Queue {
    /// `event` happens at `at`.
    pub fn push(&mut self, at: Micros, event: Event) {
        self.order += 1;
        self.heap.push(Planned { at, order: self.order, event });
    }

    /// The next thing and its time.
    pub fn pop(&mut self) -> Option<(Micros, Event)> {
        self.heap.pop().map(|planned| (planned.at, planned.event))
    }
}
