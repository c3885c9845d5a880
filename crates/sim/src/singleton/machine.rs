//! Decides what a machine is: its clock, its disk, its keeper with the copy, its daemon.

use super::daemon::Daemon;
use super::divided::files::Files;
use super::{Event, Options, World, name};
use crate::event::Micros;
use crate::node::Clock;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use tandem_core::clustering::active_active::holder::Floor;
use tandem_core::ids::{Epoch, NodeId, PartitionId, Term};
use tandem_core::time::Timestamp;

/// From SIGKILL until the last process is gone.
const KILLED_WITHIN: (Micros, Micros) = (1_000, 60_000);

/// What is written before it is told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disk {
    pub promised: Term,
    pub begun: Term,
    /// How the copy is run that was begun last.
    pub recipe: u64,
}

/// A running copy, held by its keeper.
#[derive(Clone, Debug, Default)]
pub(super) struct Copy {
    /// What its process works on, and under which epoch.
    pub works: BTreeMap<PartitionId, Epoch>,
    /// What of that it begins something new on.
    pub begins: BTreeMap<PartitionId, Epoch>,
    /// What was sent under that epoch, or a smaller one, was of an earlier table.
    pub before: Epoch,
    /// The newest that it was shown.
    pub saw: u64,
    /// It reads the file, and never asks.
    pub reads_file: bool,
    pub life: u64,
    pub term: Term,
    pub lease: Timestamp,
    pub dying: bool,
    /// It answers from then on.
    pub ready_at: Micros,
    pub ending: Option<Ending>,
}

/// A copy was asked to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending {
    /// By a plan; else since it is not well.
    pub is_planned: bool,
    /// The doors that its node waited for.
    pub heard: BTreeSet<usize>,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub id: NodeId,
    pub witness: bool,
    pub priority: u32,
    pub clock: Clock,
    pub powered: bool,
    pub frozen: bool,
    pub daemon_frozen: bool,
    /// The command fails here, soon after each start.
    pub fails: bool,
    /// Its checks fail here.
    pub sick: bool,
    /// How it is run, by the node's file.
    pub recipe: u64,
    pub inbox: Vec<Event>,
    /// One per service.
    pub disks: Vec<Disk>,
    pub floor: Floor,
    pub files: Files,
    pub copy: Option<Copy>,
    pub daemon: Option<Box<Daemon>>,
    pub daemons: u32,
    pub applied: usize,
    /// A daemon that starts learns until then of nothing newer.
    pub behind_until: Micros,
}

impl Machine {
    pub fn new(id: NodeId, witness: bool, priority: u32, clock: Clock) -> Self {
        Self {
            id,
            witness,
            priority,
            clock,
            powered: true,
            frozen: false,
            daemon_frozen: false,
            fails: false,
            sick: false,
            recipe: 0,
            inbox: Vec::new(),
            disks: Vec::new(),
            floor: Floor::default(),
            files: Files::new(),
            copy: None,
            daemon: None,
            daemons: 0,
            applied: 0,
            behind_until: 0,
        }
    }

    /// Whether its daemon runs and is not frozen.
    pub const fn awake(&self) -> bool {
        self.powered && !self.frozen && !self.daemon_frozen && self.daemon.is_some()
    }
}

/// One with a clock of its own.
pub(super) fn machine(n: usize, witness: bool, options: Options, rng: &mut Rng) -> Machine {
    let clock = Clock {
        offset: rng.between(0, 3_600_000_000),
        drift_ppm: rng.between(0, 20_000) as i64 - 10_000,
        skew_ms: rng.below(200) as i64 - 100,
    };
    let priority = if options.calm { 100 } else { [100, 100, 100, 0, 50, 200][rng.below(6)] };
    Machine::new(name(n).into(), witness, priority, clock)
}

impl World {
    /// The keeper starts a copy, under a lease that holds.
    pub(super) fn keeper_starts(&mut self, n: usize, term: Term, lease: Timestamp) -> bool {
        let node = &mut self.nodes[n];
        if node.copy.is_some() || lease <= node.clock.at(self.now) {
            return false;
        }
        self.ids += 1;
        let life = self.ids;
        let reads_file = self.work.is_some() && self.rng.chance(50);
        let works = BTreeMap::new();
        self.nodes[n].copy = Some(Copy { life, term, lease, works, reads_file, ..Copy::default() });
        self.last_start = Some((self.now, n));
        self.note(n, || format!("STARTS a copy in term {term}"));
        self.watch_lease(n, life, lease);
        if self.work.is_some() {
            self.after(0, 30_000, Event::Look { n, life });
        }
        if self.nodes[n].fails {
            self.after(5_000, 300_000, Event::Dies { n, life });
        }
        true
    }

    /// The keeper's lease moves forward, never back.
    pub(super) fn keeper_renews(&mut self, n: usize, lease: Timestamp) {
        let now = self.nodes[n].clock.at(self.now);
        let Some(copy) = self.nodes[n].copy.as_mut() else { return };
        if copy.dying || copy.lease <= now || lease <= copy.lease {
            return;
        }
        copy.lease = lease;
        let life = copy.life;
        self.watch_lease(n, life, lease);
    }

    fn watch_lease(&mut self, n: usize, life: u64, lease: Timestamp) {
        let at = self.nodes[n].clock.when(lease);
        self.push(at, Event::LeaseEnds { n, life });
    }

    pub(super) fn on_lease_ends(&mut self, n: usize, life: u64) {
        let now = self.nodes[n].clock.at(self.now);
        let passed = self.nodes[n].copy.as_ref().is_some_and(|c| c.life == life && c.lease <= now);
        if passed {
            self.note(n, || "the lease has passed".into());
            self.outlived += 1;
            self.keeper_kills(n);
        }
    }

    /// SIGKILL to all that it started.
    pub(super) fn keeper_kills(&mut self, n: usize) {
        let Some(copy) = self.nodes[n].copy.as_mut() else { return };
        if !copy.dying {
            copy.dying = true;
            let life = copy.life;
            self.after(KILLED_WITHIN.0, KILLED_WITHIN.1, Event::Gone { n, life });
        }
    }

    /// The last process of a copy is gone; its daemon is told.
    pub(super) fn gone(&mut self, n: usize, life: u64) {
        if self.nodes[n].copy.as_ref().is_none_or(|copy| copy.life != life) {
            return;
        }
        let was = self.nodes[n].copy.take();
        if was.is_some_and(|copy| copy.ending.is_none_or(|ending| !ending.is_planned)) {
            self.copy_failed(n);
        }
        self.cut_requests(n, life);
        self.cut_works(n, life);
        self.note(n, || "the copy is gone".into());
        let inc = self.nodes[n].daemons;
        self.after(100, 3_000, Event::Ended { n, inc, life });
    }

    pub(super) fn power_off(&mut self, n: usize) {
        self.note(n, || "POWER OFF".into());
        let node = &mut self.nodes[n];
        node.powered = false;
        node.frozen = false;
        node.daemon_frozen = false;
        node.inbox.clear();
        node.copy = None;
        node.daemon = None;
        node.files.clear();
        self.drop_requests(n);
        self.drop_keyed(n);
        self.forget_works(n);
        self.reconsider_leader();
    }

    pub(super) fn kill_daemon(&mut self, n: usize) {
        self.note(n, || "the daemon dies".into());
        let node = &mut self.nodes[n];
        node.daemon = None;
        node.daemon_frozen = false;
        node.inbox.retain(|event| event.node().is_none_or(|(_, is_for_daemon)| !is_for_daemon));
        self.daemon_is_refused(n);
        self.drop_requests(n);
        self.drop_keyed(n);
        self.reconsider_leader();
    }

    pub(super) fn thaw(&mut self, n: usize) {
        if !std::mem::take(&mut self.nodes[n].frozen) {
            return;
        }
        self.note(n, || "thaws".into());
        // H4: the keeper looks at its lease before anything else happens.
        let now = self.nodes[n].clock.at(self.now);
        let passed = self.nodes[n].copy.as_ref().filter(|copy| copy.lease <= now);
        if let Some(life) = passed.map(|copy| copy.life) {
            self.gone(n, life);
        }
        self.replay(n);
    }

    pub(super) fn thaw_daemon(&mut self, n: usize) {
        if std::mem::take(&mut self.nodes[n].daemon_frozen) {
            self.note(n, || "the daemon thaws".into());
            self.replay(n);
        }
    }

    fn replay(&mut self, n: usize) {
        for event in std::mem::take(&mut self.nodes[n].inbox) {
            self.after(0, 2_000, event);
        }
        self.reconsider_leader();
    }
}
