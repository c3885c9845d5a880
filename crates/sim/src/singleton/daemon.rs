//! Drives the own copy of one node, as the shell does.

use super::{Event, Mutation, World};
use crate::event::Micros;
use crate::node::hub::{Hub, instance_differs};
use std::collections::BTreeMap;
use tandem_core::cluster::lease::{counts_from, outlives};
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_active::holder::Holder;
use tandem_core::clustering::active_passive::singleton::Action;
use tandem_core::clustering::active_passive::witness::{Next as WitnessNext, WitnessView, plan};
use tandem_core::facts::{Data, InstanceFacts, Process};
use tandem_core::ids::{NodeId, Term};
use tandem_core::time::Timestamp;

const TICK: Micros = 200_000;

#[derive(Debug)]
pub(super) struct Daemon {
    /// One per service: what its hub knows of it, and the own copy or the witness.
    pub parts: Vec<Part>,
    pub leads: bool,
    pub proposing: Option<u64>,
    pub beat_planned: bool,
    pub started: Timestamp,
    pub recruited: BTreeMap<(usize, usize, Term), Timestamp>,
    pub holder: Holder,
    pub writing_floor: bool,
}

/// What a daemon does for one service.
#[derive(Debug)]
pub(super) struct Part {
    pub hub: Hub,
    pub own: InstanceFacts,
    pub asked: Option<Term>,
    /// When it had last answered each peer at its last promise.
    pub answered: BTreeMap<NodeId, Timestamp>,
    pub running: Option<(u64, Action)>,
    pub lease: Timestamp,
    pub retry_at: Timestamp,
    pub ran_since: Timestamp,
    pub stalled_since: Option<Timestamp>,
    /// Copies of which nothing is left.
    pub ends: u64,
    pub planned: String,
}

impl World {
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
                hub: Hub::new(peers.iter().cloned()),
                own,
                asked: None,
                answered: BTreeMap::new(),
                running: None,
                lease: Timestamp(0),
                retry_at: now,
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
            started: now,
            recruited: BTreeMap::new(),
            holder: Holder::new(node.floor),
            writing_floor: false,
        };
        // What was agreed last may not be known to be so yet, to a daemon that starts.
        let unknown = self.rng.below(30) * usize::from(self.work.is_some());
        let node = &mut self.nodes[n];
        node.applied = node.applied.saturating_sub(unknown);
        node.powered = true;
        node.daemons += 1;
        node.daemon = Some(Box::new(daemon));
        let inc = node.daemons;
        self.note(n, || "the daemon starts".into());
        self.after(0, 50_000, Event::BeatTick { n, inc });
        self.after(0, 50_000, Event::Tick { n, inc });
    }

    pub(super) fn is_daemon(&self, n: usize, inc: u32) -> bool {
        self.nodes[n].daemon.is_some() && self.nodes[n].daemons == inc
    }

    pub(super) fn on_tick(&mut self, n: usize, inc: u32) {
        if self.is_daemon(n, inc) {
            self.push(self.now + TICK, Event::Tick { n, inc });
            self.drive(n);
            self.control(n);
        }
    }

    /// Something that plans depend on changed.
    pub(super) fn hub_changed(&mut self, n: usize) {
        if self.nodes[n].awake() {
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
        for s in 0..self.services.len() {
            self.drive_part(n, s);
        }
    }

    fn drive_part(&mut self, n: usize, s: usize) {
        let agreed = self.agreed(n);
        let service = &self.services[s];
        let (Some(state), Some(spec)) =
            (agreed.services.get(service), agreed.spec.services.get(service))
        else {
            return;
        };
        let now = self.nodes[n].clock.at(self.now);
        let Some(part) = self.part(n, s) else { return };
        let before = part.own.clone();
        part.own.revision = state.revision;
        part.own.outlives = outlives(spec, state);
        if self.has_copy(n, s) {
            self.note_progress(n, state, now);
            let lease = self.hold_lease(n, state, now);
            self.plan_copy(n, state, lease, now);
            self.hold_partitions(n);
        } else {
            self.drive_witness((n, s), state, now);
        }
        let own = self.part(n, s).map(|part| part.own.clone());
        if own.is_some_and(|own| instance_differs(&before, &own)) {
            self.plan_beat(n);
        }
    }

    fn drive_witness(&mut self, (n, s): (usize, usize), state: &ServiceState, now: Timestamp) {
        let spec = self.spec.clone();
        let wrong = self.options.mutation == Some(Mutation::VoteAtOnce);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let started = daemon.started;
        let part = &mut daemon.parts[s];
        if part.running.is_some() {
            return;
        }
        let counts_from = counts_from(&spec, state, &part.answered, started);
        let view = WitnessView {
            asked: part.asked,
            promised: part.own.promised,
            ballot: part.own.ballot,
            counts_from: counts_from.filter(|_| !wrong),
        };
        match plan(&view, now) {
            WitnessNext::Promise { term } => self.begin((n, s), Action::Promise { term }),
            WitnessNext::Vote(ballot) => part.own.ballot = Some(ballot),
            WitnessNext::Wait(again) => self.look_again(n, again),
        }
    }

    pub(super) fn look_again(&mut self, n: usize, again: Option<Timestamp>) {
        if let Some(at) = again {
            let (inc, at) = (self.nodes[n].daemons, self.nodes[n].clock.when(at));
            self.push(at, Event::Asked { n, inc, s: 0, term: Term(0) });
        }
    }
}
