//! What a node knows of itself and tells the others, many times a second.
//! In: observations of the shell. Out: `NodeFacts`, carried by heartbeats to every voter.
//! Facts are not agreed: each receiver stamps them with its own clock (`Observed`).
//! Keeps: INV-8, ages travel as durations, never as moments of another clock.

mod differs;
mod door;
mod ended;
mod link;
mod seat;
mod told;
pub mod withdrawal;

pub use differs::{differs, door_differs, instance_differs, seat_differs};
pub use door::DoorUse;
pub use ended::Ended;
pub use link::Link;
pub use seat::SeatFacts;
pub use told::Told;

use crate::ids::{ConfigVersion, NodeId, Revision, ServiceId, SystemId, Term, TimelineId};
use crate::lsn::Lsn;
use crate::replication::primary_replica::sync_quorum::CommitRule;
use crate::time::Timestamp;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// One node, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Who says so.
    pub node: NodeId,
    /// Which of all that it said.
    pub told: Told,
    /// The agreed configuration it has applied.
    pub config_version: ConfigVersion,
    /// How it sees each peer: the visibility matrix, one row (H33).
    pub links: BTreeMap<NodeId, Link>,
    /// Its instances.
    pub instances: BTreeMap<ServiceId, InstanceFacts>,
    /// Whether it takes no new work, by an operator's wish.
    pub draining: bool,
    /// What its doors still have at copies that are to be stopped, by service and node; a service
    /// without a door here is missing.
    pub doors: BTreeMap<ServiceId, BTreeMap<NodeId, DoorUse>>,
    /// Of which services that are taken out nothing is left here.
    pub ended: Ended,
}

/// One instance of PostgreSQL, as its node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceFacts {
    /// The agreed revision of the service that it last planned on.
    pub revision: Revision,
    /// The term whose primary's lease it would wait out before it votes (`lease::outlives`).
    pub outlives: Option<Term>,
    /// Its service is taken out, as this node knows: nothing is started here of it any more, and
    /// what still runs ends (`cluster::memory`).
    pub is_leaving: bool,
    /// What is in the data directory.
    pub data: Data,
    /// What the server process does.
    pub process: Process,
    /// Identity of the database cluster; none while there is no data.
    pub system: Option<SystemId>,
    /// The timeline of the data.
    pub timeline: TimelineId,
    /// Where each ancestor of that timeline ended, oldest first.
    pub forks: Vec<Fork>,
    /// End of what is flushed here: of the own log for a primary, of the received for a standby,
    /// of the shutdown checkpoint for an instance that was stopped cleanly.
    pub flushed: Lsn,
    /// When that was read, by its node's clock: a duration to another such moment of one run of the
    /// daemon is known, and nothing else.
    pub flushed_at: Timestamp,
    /// End of what was replayed; equals `flushed` on a primary.
    pub replayed: Lsn,
    /// A standby: for how long it has had something whole that it has not replayed; else zero.
    pub replay_delay: Duration,
    /// Greatest term recorded in the data itself (H6, H30).
    pub data_term: Term,
    /// Durable: follows no primary of a smaller term (INV-2).
    pub promised: Term,
    /// Durable: the last term for which a promotion was begun; never begun twice for one term.
    pub promoted: Term,
    /// Durable: the term in whose promotion its timeline began, if it began it itself. Tells two
    /// timelines of one number apart (H6).
    pub timeline_term: Term,
    /// Durable: the last term whose primary it was set up to follow, or copied from: all of its
    /// data was a part of that primary's.
    pub followed: Term,
    /// Durable: the timeline that the primary of `followed` made; 0 where that is not known. Data
    /// of a greater one came from a later promotion of that node, which fed it unasked (H6).
    pub followed_timeline: TimelineId,
    /// Set once the WAL receiver stopped for `promised`, until it follows again.
    pub ballot: Option<Ballot>,
    /// Whom it is set up to follow, as appointed in which term.
    pub upstream: Option<(NodeId, Term)>,
    /// The WAL receiver's state.
    pub stream: Stream,
    /// A primary: the term whose barrier was acknowledged; clients are let in for it.
    pub serving: Option<Term>,
    /// A primary: the rule by which alone commits are acknowledged: every WAL sender obeys it,
    /// proven by a barrier (H9), or still releases nothing after a promotion (H7).
    pub rule: Option<CommitRule>,
    /// A primary: its standbys as `pg_stat_replication` shows them, by node.
    pub replicas: BTreeMap<NodeId, Replica>,
    /// A primary: a checkpoint ended since its promotion, so pg_rewind sees its timeline (H18).
    pub checkpointed: bool,
    /// Durable: the data was last written as a primary; following anyone may need a rewind.
    pub was_primary: bool,
    /// Stopped by a shutdown that wrote its checkpoint.
    pub stopped_cleanly: bool,
    /// How long it has followed without streaming, or been primary without its barrier; else zero.
    pub stalled: Duration,
    /// Rungs of the rejoin ladder that failed since it last streamed.
    pub rejoin_failures: u32,
    /// What is wrong with it, if anything.
    pub health: Health,
    /// The user's settings need a restart to take effect.
    pub pending_restart: bool,
    /// Starts in a row that ended before the server answered once.
    pub starts_failed: u32,
    /// Of a copy whose work is divided: what it ended its work on, how long it has not been well.
    pub seat: SeatFacts,
    /// Of a copy whose work is divided: what is run when its partitions change failed last time.
    pub hook_failed: bool,
    /// Of copies that run side by side: since when doors shall send nothing new here, by its own
    /// clock. It tells this withdrawal from an earlier one.
    pub withdrawn: Option<Timestamp>,
    /// How far each node that it heard as primary said to have come (H1).
    pub ends: BTreeMap<NodeId, ToldEnd>,
}

impl InstanceFacts {
    /// Once no process is left, and before its files were read: whether it ended cleanly only they
    /// prove, and `flushed` is what it said last.
    #[must_use]
    pub fn after_end(self) -> Self {
        Self {
            process: Process::Stopped,
            ballot: None,
            upstream: None,
            stream: Stream::None,
            serving: None,
            rule: None,
            replicas: BTreeMap::new(),
            checkpointed: false,
            stopped_cleanly: false,
            ..self
        }
    }

    /// How far behind its primary a standby is at most, in time: when it last got anything, or how
    /// old what it replays is, and the age of these facts. None where it is not fed. Zero where it
    /// lacks nothing of what is there: an idle primary sends nothing.
    pub fn lag(&self, lag_bytes: Option<u64>, age: Duration) -> Option<Duration> {
        match (lag_bytes, self.stream) {
            (_, Stream::None) => None,
            (Some(0), Stream::Connected(_)) => Some(Duration::ZERO),
            (_, Stream::Connected(silence)) => {
                Some(silence.max(self.replay_delay).saturating_add(age))
            }
        }
    }

    /// A daemon that was restarted found it running. A primary goes on serving where its term's
    /// barrier is done: the row is there, and commits are acknowledged at all, for which the row
    /// was confirmed first (H7). The row alone proves nothing: it is seen before anybody has it.
    pub fn found_running(&mut self, commits: Commits) {
        let is_done = self.promoted > Term(0) && self.data_term == self.promoted;
        if self.process == Process::Primary && is_done && commits == Commits::Acknowledged {
            self.serving = Some(self.promoted);
        }
    }
}

/// What becomes of commits on a server, by the names that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// They wait: nobody may confirm them.
    Held,
    /// They are acknowledged by some rule.
    Acknowledged,
}

impl InstanceFacts {
    /// Whose lease this node tells a peer, which asks with those facts of its own, that it would
    /// wait out. Of a service that is taken out none, but to a peer that knows that as well: one
    /// that was away would start what nobody wants any more.
    pub fn outlives_for(&self, asker: Option<&Self>) -> Option<Term> {
        let knows = asker.is_some_and(|asker| asker.is_leaving);
        self.outlives.filter(|_| knows || !self.is_leaving)
    }
}

impl Default for InstanceFacts {
    fn default() -> Self {
        Self {
            revision: Revision(0),
            outlives: None,
            is_leaving: false,
            data: Data::Empty,
            process: Process::Stopped,
            system: None,
            timeline: TimelineId(0),
            forks: Vec::new(),
            flushed: Lsn::ZERO,
            flushed_at: Timestamp(0),
            replayed: Lsn::ZERO,
            replay_delay: Duration::ZERO,
            data_term: Term(0),
            promised: Term(0),
            promoted: Term(0),
            timeline_term: Term(0),
            followed: Term(0),
            followed_timeline: TimelineId(0),
            ballot: None,
            upstream: None,
            stream: Stream::None,
            serving: None,
            rule: None,
            replicas: BTreeMap::new(),
            checkpointed: false,
            was_primary: false,
            stopped_cleanly: false,
            stalled: Duration::ZERO,
            rejoin_failures: 0,
            health: Health::Good,
            pending_restart: false,
            starts_failed: 0,
            seat: SeatFacts::default(),
            hook_failed: false,
            withdrawn: None,
            ends: BTreeMap::new(),
        }
    }
}

/// What is in the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// Nothing: can be cloned into.
    Empty,
    /// A usable database cluster.
    Present,
    /// A clone or rewind is running; percent where known.
    Copying {
        /// 0 to 100.
        percent: Option<u8>,
    },
    /// A clone or rewind was interrupted (H19): must be cloned again.
    Mixed,
    /// A database cluster that somebody else made, where the owner said that there may be one. It
    /// is adopted by the founder; elsewhere it is not touched.
    Foreign,
    /// Not to be touched without a human.
    Quarantined {
        /// Why.
        reason: String,
    },
    /// A write may be lost: it ended because its disk failed one, and is not started again before
    /// a human looked (H26).
    Suspect {
        /// What the server said.
        reason: String,
    },
    /// This node holds no data for the service.
    Witness,
}

/// What the server process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Process {
    /// None runs: its keeper saw it end, or none was started.
    Stopped,
    /// Runs, does not answer yet.
    Starting,
    /// In recovery.
    Standby,
    /// Asked to promote, still in recovery.
    Promoting,
    /// Accepts writes.
    Primary,
    /// Asked to stop, still there.
    Stopping,
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no data yet"),
            Self::Present => f.write_str("data is there"),
            Self::Copying { percent: Some(percent) } => write!(f, "{percent} % copied"),
            Self::Copying { percent: None } => f.write_str("copying"),
            Self::Mixed => f.write_str("an interrupted copy"),
            Self::Foreign => f.write_str("data that was not made here"),
            Self::Quarantined { reason } => write!(f, "quarantined: {reason}"),
            Self::Suspect { reason } => write!(f, "its disk is suspect: {reason}"),
            Self::Witness => f.write_str("no data, as a witness"),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Promoting => "promoting",
            Self::Primary => "primary",
            Self::Stopping => "stopping",
        })
    }
}

/// The WAL receiver's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// There is no WAL receiver, or it is not connected.
    None,
    /// Connected; the last message arrived this long ago.
    Connected(Duration),
}

/// A standby as its primary sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// What it confirmed as flushed.
    pub flushed: Lsn,
    /// What it confirmed as replayed.
    pub replayed: Lsn,
    /// In state `streaming`, not catching up.
    pub streaming: bool,
}

/// Where a timeline ended and its successor began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The ancestor.
    pub timeline: TimelineId,
    /// Its end.
    pub end: Lsn,
}

/// What a node votes with: it promised a term, stopped receiving, and holds this much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The promised term.
    pub term: Term,
    /// What it holds; none for a witness.
    pub position: Option<Position>,
    /// It waited for no lease: it is the word of the holder of that term that its copy is gone.
    pub held: Option<Term>,
}

/// How far a copy has come: first by the term recorded in the data, then by position. A timeline's
/// number is no identity (H6), so it does not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Greatest term recorded in the data.
    pub data_term: Term,
    /// Flushed up to here.
    pub flushed: Lsn,
}

/// How far a primary told this node that it had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldEnd {
    /// The furthest.
    pub position: Position,
    /// Which run of its daemon said so (`Told::start`).
    pub run: u64,
    /// When it last was so, by its own clock.
    pub at: Timestamp,
}

/// What is wrong with an instance, each told apart from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Answers, and its disk does.
    Good,
    /// A new connection got no answer for this long, though the process is there (H29).
    Hung(Duration),
    /// All connections are in use: alive (H29).
    ConnectionsUsedUp,
    /// The disk did not answer a probe for this long (H28).
    DiskStuck(Duration),
    /// No space left where the data is (H27).
    DiskFull,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_is_supported_of_those_alone_who_know_it() {
        let facts = |is_leaving| InstanceFacts {
            outlives: Some(Term(3)),
            is_leaving,
            ..InstanceFacts::default()
        };
        let (there, leaving) = (facts(false), facts(true));
        for asker in [None, Some(&there), Some(&leaving)] {
            assert_eq!(there.outlives_for(asker), Some(Term(3)), "it is there, as far as is known");
        }
        assert_eq!(leaving.outlives_for(None), None);
        assert_eq!(leaving.outlives_for(Some(&there)), None, "it would start it");
        assert_eq!(leaving.outlives_for(Some(&leaving)), Some(Term(3)), "it ends it");
    }

    #[test]
    fn what_was_said_earlier_is_known_by_its_number() {
        let told = |start, number| Told { start, number };
        assert!(told(7, 1).is_before(&told(7, 2)));
        assert!(!told(7, 2).is_before(&told(7, 2)));
        assert!(!told(8, 1).is_before(&told(7, 2)), "a daemon that started again");
    }

    #[test]
    fn h7_a_row_that_is_only_seen_is_no_barrier() {
        let serves = |data_term, commits| {
            let mut own = InstanceFacts {
                process: Process::Primary,
                promoted: Term(4),
                data_term: Term(data_term),
                ..InstanceFacts::default()
            };
            own.found_running(commits);
            own.serving == Some(Term(4))
        };
        assert!(serves(4, Commits::Acknowledged));
        assert!(!serves(4, Commits::Held), "written, and confirmed by nobody");
        assert!(!serves(3, Commits::Acknowledged), "goes on under a new term without its row");
    }
}
