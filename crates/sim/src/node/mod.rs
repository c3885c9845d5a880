//! Decides what a machine is: its clock, its disk, its keeper, its daemon, its server.

pub mod actions;
pub mod controller;
pub mod copies;
pub mod driver;
pub mod hub;
pub mod keeper;
pub mod observer;
pub mod steps;

use crate::event::{Event, Micros};
use crate::postgres::server::Server;
use crate::postgres::wal::DataDir;
use driver::Daemon;
use tandem_core::facts::Health;
use tandem_core::ids::{NodeId, Term, TimelineId};
use tandem_core::time::Timestamp;

/// One node's CLOCK_BOOTTIME and wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows at the run's beginning.
    pub offset: Micros,
    /// Parts per million that it is fast (or slow).
    pub drift_ppm: i64,
    /// Milliseconds that the wall clock is ahead (or behind).
    pub skew_ms: i64,
}

impl Clock {
    /// What it shows.
    pub fn at(&self, now: Micros) -> Timestamp {
        let drift = now as i64 * self.drift_ppm / 1_000_000;
        Timestamp(self.offset + now.saturating_add_signed(drift))
    }

    /// When it will show `at`.
    pub fn when(&self, at: Timestamp) -> Micros {
        let shown = at.0.saturating_sub(self.offset) as i64;
        let mut now = (shown * 1_000_000 / (1_000_000 + self.drift_ppm)).max(0) as u64;
        while self.at(now) < at {
            now += 1;
        }
        now
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(&self, now: Micros) -> u64 {
        (1_700_000_000_000 + now / 1000).saturating_add_signed(self.skew_ms)
    }
}

/// What is written before it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateFile {
    /// Follows no primary of a smaller term.
    pub promised: Term,
    /// The last term for which a promotion was begun.
    pub promoted: Term,
    /// The last term in which it was set up to follow.
    pub followed: Term,
    /// The timeline that the primary of `followed` made.
    pub followed_timeline: TimelineId,
    /// The term in whose promotion its timeline began.
    pub timeline_term: Term,
    /// The data was last written as a primary.
    pub was_primary: bool,
}

/// What survives everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The small file.
    pub state: StateFile,
    /// A copy was begun and has not ended (H19).
    pub sentinel: bool,
    /// The data directory.
    pub data: Option<DataDir>,
}

/// One machine.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Holds no data.
    pub witness: bool,
    /// Has power.
    pub powered: bool,
    /// Frozen as a whole, until when events wait.
    pub frozen: bool,
    /// As configured.
    pub priority: u32,
    /// As configured.
    pub zone: Option<&'static str>,
    /// When it last thawed.
    pub thawed: Micros,
    /// Its daemon alone is frozen.
    pub daemon_frozen: bool,
    /// What is wrong with its instance, as probes would find.
    pub health: Health,
    /// Since when.
    pub sick_since: Micros,
    /// Applies what is agreed only once that ends, though it votes.
    pub applies_late: bool,
    /// What waits.
    pub inbox: Vec<Event>,
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// Whether its keeper runs.
    pub keeper: bool,
    /// Until when its keeper lets the instance serve; none is unlimited.
    pub lease: Option<Timestamp>,
    /// The running server.
    pub server: Option<Server>,
    /// Servers so far.
    pub servers: u32,
    /// The running daemon.
    pub daemon: Option<Box<Daemon>>,
    /// Daemons so far.
    pub daemons: u32,
    /// The agreed state that it has applied, an index into the log.
    pub applied: usize,
}

impl Node {
    /// Whether its daemon runs and is not frozen.
    pub const fn awake(&self) -> bool {
        self.powered && !self.frozen && !self.daemon_frozen && self.daemon.is_some()
    }

    /// Whether its server, if there is one, can do anything.
    pub const fn moving(&self) -> bool {
        self.powered && !self.frozen
    }
}
