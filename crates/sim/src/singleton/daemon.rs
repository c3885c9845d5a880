//! Drives the own copy of one node, as the shell does.

use super::divided::files::PutOut;
use super::doors::Session;
use super::{Event, What, World, beside, keyed};
use crate::event::Micros;
use crate::node::hub::Hub;
use std::collections::BTreeMap;
use tandem_core::cluster::lease::outlives;
use tandem_core::cluster::memory::Memory;
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_active::holder::Holder;
use tandem_core::clustering::active_passive::singleton::Action;
use tandem_core::facts::withdrawal::Wish;
use tandem_core::facts::{Data, InstanceFacts, Process, instance_differs};
use tandem_core::ids::{NodeId, Term};
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;

const TICK: Micros = 200_000;

#[derive(Debug)]
pub(super) struct Daemon {
    /// One per service: what its hub knows of it, and the own copy or the witness.
    pub parts: Vec<Part>,
    pub leads: bool,
    pub proposing: Option<u64>,
    pub beat_planned: bool,
    pub recruited: BTreeMap<(usize, usize, Term), Timestamp>,
    pub holder: Holder,
    pub writing_floor: bool,
    pub put_out: PutOut,
    pub sessions: Vec<Session>,
    pub since: Micros,
    /// Of copies side by side: the own one, and the door.
    pub copy: beside::Own,
    pub door: beside::Door,
    /// Of work that is divided.
    pub keyed: keyed::Door,
}

/// What a daemon does for one service.
#[derive(Debug)]
pub(super) struct Part {
    pub hub: Hub,
    pub own: InstanceFacts,
    pub memory: Memory,
    pub asked: Option<Term>,
    /// When it had last answered each peer at its last promise.
    pub answered: BTreeMap<NodeId, Timestamp>,
    pub running: Option<(u64, Action)>,
    pub lease: Timestamp,
    pub retry_at: Timestamp,
    pub wish: Wish,
    pub ran_since: Timestamp,
    pub stalled_since: Option<Timestamp>,
    /// Copies of which nothing is left.
    pub ends: u64,
    pub planned: String,
}

impl World {
    const fn partitions(&self) -> u32 {
        match self.options.what {
            What::Divided(count) => count,
            What::Alone | What::Beside => 0,
        }
    }

    pub(super) fn on_start_daemon(&mut self, n: usize) {
        let node = &self.nodes[n];
        if node.daemon.is_some() {
            return;
        }
        let now = node.clock.at(self.now);
        let me = node.id.clone();
        let peers: Vec<NodeId> =
            self.nodes.iter().filter(|it| it.id != me).map(|it| it.id.clone()).collect();
        let part = |s: usize| {
            let is_own = self.has_copy(n, s);
            let disk = node.disks[s];
            let mut own = InstanceFacts {
                data: if is_own { Data::Present } else { Data::Witness },
                promised: disk.promised,
                promoted: disk.begun,
                ..InstanceFacts::default()
            };
            if let Some(copy) = node.copy.as_ref().filter(|_| is_own) {
                // Found running: the term that it was begun for is on the disk.
                own.process = Process::Primary;
                own.serving = Some(copy.term);
            }
            Part {
                hub: Hub::new(peers.iter().cloned(), now),
                own,
                memory: Memory::new(now),
                asked: None,
                answered: BTreeMap::new(),
                running: None,
                lease: Timestamp(0),
                retry_at: now,
                wish: Wish::Agreed,
                ran_since: now,
                stalled_since: None,
                ends: 0,
                planned: String::new(),
            }
        };
        let daemon = Daemon {
            parts: (0..self.services.len()).map(part).collect(),
            leads: false,
            proposing: None,
            beat_planned: false,
            recruited: BTreeMap::new(),
            holder: Holder::new(node.floor),
            writing_floor: false,
            put_out: PutOut::default(),
            sessions: Vec::new(),
            since: self.now,
            copy: beside::Own::default(),
            door: beside::Door::default(),
            keyed: keyed::Door::new(self.partitions(), now),
        };
        // What was agreed last may not be known to be so yet, to a daemon that starts.
        let unknown = self.rng.below(30);
        let behind = if unknown > 0 { self.rng.between(0, 1_500_000) } else { 0 };
        let node = &mut self.nodes[n];
        node.applied = node.applied.saturating_sub(unknown);
        node.behind_until = if self.options.calm { 0 } else { self.now + behind };
        node.powered = true;
        node.daemons += 1;
        node.daemon = Some(Box::new(daemon));
        let inc = node.daemons;
        self.note(n, || "the daemon starts".into());
        self.after(0, 50_000, Event::BeatTick { n, inc });
        self.after(0, 50_000, Event::Tick { n, inc });
        if self.is_beside() {
            self.begin_beside(n, inc);
        }
        self.begin_keyed(n, inc);
    }

    /// A plan wants to look again.
    pub(super) fn on_drive(&mut self, n: usize, inc: u32) {
        if self.is_daemon(n, inc) {
            self.drive(n);
        }
    }

    pub(super) fn is_daemon(&self, n: usize, inc: u32) -> bool {
        self.nodes[n].daemon.is_some() && self.nodes[n].daemons == inc
    }

    pub(super) fn on_tick(&mut self, n: usize, inc: u32) {
        if self.is_daemon(n, inc) {
            self.push(self.now + TICK, Event::Tick { n, inc });
            self.lead(n);
            self.plan_guide(n);
            self.plan_routes(n);
            self.drive(n);
            self.control(n);
        }
    }

    /// Something that plans depend on changed.
    pub(super) fn hub_changed(&mut self, n: usize) {
        if self.nodes[n].awake() {
            self.plan_guide(n);
            self.plan_routes(n);
            self.drive(n);
            self.control(n);
        }
    }

    pub(super) fn on_asked(&mut self, n: usize, inc: u32, (s, term): (usize, Term)) {
        if !self.is_daemon(n, inc) {
            return;
        }
        if let Some(part) = self.part(n, s) {
            part.asked = part.asked.max(Some(term));
            self.drive(n);
        }
    }

    pub(super) fn part(&mut self, n: usize, s: usize) -> Option<&mut Part> {
        self.nodes[n].daemon.as_mut()?.parts.get_mut(s)
    }

    /// Plans for the own copies, and begins what is planned.
    pub(super) fn drive(&mut self, n: usize) {
        if self.is_beside() {
            return self.drive_beside(n);
        }
        for s in 0..self.services.len() {
            self.drive_part(n, s);
        }
    }

    fn drive_part(&mut self, n: usize, s: usize) {
        let agreed = self.agreed(n);
        let service = self.services[s].clone();
        let now = self.nodes[n].clock.at(self.now);
        let is_own = self.has_copy(n, s);
        let Some(part) = self.part(n, s) else { return };
        let before = part.own.clone();
        if part.memory.learn(&agreed, &service, now) {
            part.answered = part.hub.answered_all().clone();
            part.own.ballot = None;
            part.asked = None;
            part.own.starts_failed = 0;
            part.retry_at = now;
        }
        part.own.outlives = part.memory.outlives();
        part.own.is_leaving = part.memory.leaving().is_some();
        let found = agreed.services.get(&service).zip(agreed.spec.services.get(&service));
        match found {
            None => {
                self.leave(n, s);
                if is_own && agreed.spec.nodes.contains_key(&self.nodes[n].id) {
                    self.hold_lease(n, &agreed, now);
                }
            }
            Some((state, spec)) => {
                part.knows(state, spec);
                if !is_own {
                    self.drive_witness((n, s), (state, spec), now);
                } else if !agreed.spec.nodes.contains_key(&self.nodes[n].id) {
                    self.leave(n, s);
                } else {
                    self.note_progress(n, state, now);
                    let lease = self.hold_lease(n, &agreed, now);
                    self.plan_copy(n, (state, spec), lease, now);
                    self.hold_partitions(n);
                }
            }
        }
        let own = self.part(n, s).map(|part| part.own.clone());
        if own.is_some_and(|own| instance_differs(&before, &own)) {
            self.plan_beat(n);
        }
    }

    /// It has no place here: it is asked to end.
    fn leave(&mut self, n: usize, s: usize) {
        if !self.has_copy(n, s) {
            return;
        }
        let Some(part) = self.part(n, s) else { return };
        if part.own.process == Process::Primary && part.running.is_none() {
            self.begin((n, s), Action::Stop);
        }
    }
}

impl Part {
    /// What is agreed of the service.
    fn knows(&mut self, state: &ServiceState, spec: &ServiceSpec) {
        self.own.revision = state.revision;
        self.own.outlives = outlives(spec, state);
        // What it voted for was decided.
        self.own.ballot = self.own.ballot.filter(|ballot| ballot.term > state.term());
    }
}
