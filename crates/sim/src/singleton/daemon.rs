//! Drives the own copy of one node, as the shell does.

use super::machine::Machine;
use super::{Event, Mutation, World};
use crate::event::Micros;
use crate::node::hub::{Hub, instance_differs};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::cluster::lease::{Proof, counts_from, valid_until};
use tandem_core::cluster::memory::Memory;
use tandem_core::cluster::state::{ClusterState, ServiceState};
use tandem_core::clustering::active_passive::singleton::{
    Action, RAN_WELL_AFTER, SingletonView, instance, retry_after,
};
use tandem_core::facts::{Ballot, Data, InstanceFacts, Process};
use tandem_core::ids::{NodeId, Term};
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;

const TICK: Micros = 200_000;
/// The keeper is told when the lease grew by this much.
const LEASE_STEP: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Daemon {
    pub hub: Hub,
    pub own: InstanceFacts,
    pub leads: bool,
    pub proposing: Option<u64>,
    pub beat_planned: bool,
    pub memory: Memory,
    pub asked: Option<Term>,
    /// When it had last answered each peer at its last promise.
    pub answered: BTreeMap<NodeId, Timestamp>,
    pub running: Option<(u64, Action)>,
    lease: Timestamp,
    retry_at: Timestamp,
    ran_since: Timestamp,
    stalled_since: Option<Timestamp>,
    pub recruited: BTreeMap<(usize, Term), Timestamp>,
    planned: String,
}

impl World {
    pub(super) fn on_start_daemon(&mut self, n: usize) {
        let node = &self.nodes[n];
        if node.daemon.is_some() {
            return;
        }
        let now = node.clock.at(self.now);
        let me = node.id.clone();
        let peers = self.nodes.iter().filter(|it| it.id != me).map(|it| it.id.clone());
        let mut own = InstanceFacts {
            data: if node.witness { Data::Witness } else { Data::Present },
            promised: node.disk.promised,
            promoted: node.disk.begun,
            ..InstanceFacts::default()
        };
        if let Some(copy) = node.copy {
            // Found running: the term that it was begun for is on the disk.
            own.process = Process::Primary;
            own.serving = Some(copy.term);
        }
        let daemon = Daemon {
            hub: Hub::new(peers),
            own,
            leads: false,
            proposing: None,
            beat_planned: false,
            memory: Memory::new(now),
            asked: None,
            answered: BTreeMap::new(),
            running: None,
            lease: Timestamp(0),
            retry_at: now,
            ran_since: now,
            stalled_since: None,
            recruited: BTreeMap::new(),
            planned: String::new(),
        };
        let node = &mut self.nodes[n];
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

    pub(super) fn on_asked(&mut self, n: usize, inc: u32, term: Term) {
        if let Some(daemon) = self.daemon(n, inc) {
            daemon.asked = daemon.asked.max(Some(term));
            self.drive(n);
        }
    }

    fn daemon(&mut self, n: usize, inc: u32) -> Option<&mut Daemon> {
        let node = &mut self.nodes[n];
        if node.daemons == inc { node.daemon.as_deref_mut() } else { None }
    }

    /// Plans for the own copy, and begins what is planned.
    fn drive(&mut self, n: usize) {
        let agreed = self.agreed(n);
        let now = self.nodes[n].clock.at(self.now);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let before = daemon.own.clone();
        if daemon.memory.learn(&agreed, &self.service, now) {
            daemon.answered = daemon.hub.answered_all().clone();
            daemon.own.ballot = None;
            daemon.asked = None;
            daemon.own.starts_failed = 0;
            daemon.retry_at = now;
        }
        daemon.own.outlives = None;
        let found = agreed.services.get(&self.service).zip(self.spec_of(&agreed));
        match found {
            None => self.leave(n),
            Some((state, spec)) => {
                self.nodes[n].knows(state, spec);
                if self.nodes[n].witness {
                    self.drive_witness(n, (state, spec), now);
                } else if !agreed.spec.nodes.contains_key(&self.nodes[n].id) {
                    self.leave(n);
                } else {
                    self.note_progress(n, state, now);
                    let lease = self.hold_lease(n, &agreed, now);
                    self.plan_copy(n, (state, spec), lease, now);
                }
            }
        }
        let own = self.nodes[n].daemon.as_ref().map(|daemon| daemon.own.clone());
        if own.is_some_and(|own| instance_differs(&before, &own)) {
            self.plan_beat(n);
        }
    }

    /// What is agreed of the service.
    fn spec_of<'a>(&self, agreed: &'a ClusterState) -> Option<&'a ServiceSpec> {
        agreed.spec.services.get(&self.service)
    }

    /// It has no place here: its lease is renewed no longer, and it is asked to end.
    fn leave(&mut self, n: usize) {
        let Some(daemon) = self.nodes[n].daemon.as_ref() else { return };
        if daemon.own.process == Process::Primary && daemon.running.is_none() {
            self.begin(n, Action::Stop);
        }
    }

    fn note_progress(&mut self, n: usize, state: &ServiceState, now: Timestamp) {
        let me = &self.nodes[n].id;
        let holds = state.appointment.as_ref().is_some_and(|it| it.primary == *me);
        let leaves = state.switchover.is_some();
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let runs = daemon.own.process == Process::Primary;
        if runs && now.since(daemon.ran_since) >= RAN_WELL_AFTER {
            daemon.own.starts_failed = 0;
        }
        let rests = daemon.own.starts_failed > 0;
        if holds && !runs && !leaves && !rests {
            daemon.stalled_since.get_or_insert(now);
        } else {
            daemon.stalled_since = None;
        }
        daemon.own.stalled = daemon.stalled_since.map_or(Duration::ZERO, |since| now.since(since));
    }

    /// Until when the lease is proven; the keeper is told.
    fn hold_lease(&mut self, n: usize, agreed: &ClusterState, now: Timestamp) -> Option<Timestamp> {
        let voters: BTreeSet<NodeId> = agreed.spec.nodes.keys().cloned().collect();
        let me = self.nodes[n].id.clone();
        let spec = self.spec_of(agreed)?;
        let state = agreed.services.get(&self.service)?;
        let appointment = state.appointment.as_ref().filter(|it| it.primary == me)?;
        let daemon = self.nodes[n].daemon.as_mut()?;
        if daemon.own.promised > appointment.term {
            return None;
        }
        let acknowledged = &daemon.hub.proof(spec, appointment.term, false);
        let rules = &appointment.rules;
        let proof = Proof { me: &me, voters: &voters, rules, now, acknowledged };
        let until = valid_until(&proof, spec.timing.lease);
        let is_its_own = daemon.own.promoted == appointment.term;
        let runs = matches!(daemon.own.process, Process::Primary | Process::Stopping);
        if let Some(until) =
            until.filter(|it| runs && is_its_own && *it >= daemon.lease.plus(LEASE_STEP))
        {
            daemon.lease = until;
            self.keeper_renews(n, until);
        }
        if self.options.mutation == Some(Mutation::StartWithoutLease) {
            return Some(now.plus(spec.timing.lease));
        }
        until
    }

    /// A holder that may not start yet does not wait for the next heartbeat: who has just learnt of
    /// its appointment supports it now.
    pub(super) fn ask_for_proof(&mut self, n: usize) {
        let (agreed, me) = (self.agreed(n), &self.nodes[n].id);
        let state = agreed.services.get(&self.service);
        let holds = state.and_then(|it| it.appointment.as_ref()).is_some_and(|a| a.primary == *me);
        let stopped = self.nodes[n].daemon.as_ref().is_some_and(|daemon| {
            daemon.own.process == Process::Stopped && daemon.running.is_none()
        });
        if holds && stopped {
            self.plan_beat(n);
        }
    }

    fn plan_copy(
        &mut self,
        n: usize,
        (state, spec): (&ServiceState, &ServiceSpec),
        lease: Option<Timestamp>,
        now: Timestamp,
    ) {
        let mutation = self.options.mutation;
        let Machine { id, daemon, .. } = &mut self.nodes[n];
        let Some(daemon) = daemon.as_mut() else { return };
        let since = daemon.memory.since();
        let counts_from = counts_from(spec, state, &daemon.answered, since);
        let mut own = daemon.own.clone();
        if mutation == Some(Mutation::VoteWhileItRuns) && own.promised > state.term() {
            own.process = Process::Stopped;
        }
        let view = SingletonView {
            me: id,
            timing: spec.timing,
            state,
            own: &own,
            asked: daemon.asked,
            lease,
            counts_from: counts_from.filter(|_| mutation != Some(Mutation::VoteAtOnce)),
            retry_at: daemon.retry_at,
        };
        let next = instance::plan(&view, now);
        let text = next.reason.to_string();
        let is_new = daemon.planned != text;
        daemon.planned.clone_from(&text);
        let running = daemon.running.map(|(_, action)| action);
        if is_new {
            self.note(n, || format!("own copy: {text}"));
        }
        match next.action {
            // A fence waits for nothing.
            Some(Action::Fence) if running != Some(Action::Fence) => self.begin(n, Action::Fence),
            Some(action) if running.is_none() => self.begin(n, action),
            Some(_) => {}
            None => self.look_again(n, next.again),
        }
    }

    pub(super) fn begin(&mut self, n: usize, action: Action) {
        self.ids += 1;
        let (id, inc) = (self.ids, self.nodes[n].daemons);
        self.note(n, || format!("begins to {action}"));
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        match action {
            Action::Vote { term } => {
                daemon.own.ballot = Some(Ballot { term, position: None });
                return;
            }
            Action::Start { .. } => daemon.own.process = Process::Starting,
            Action::Stop => daemon.own.process = Process::Stopping,
            Action::Promise { .. } | Action::GoOn { .. } | Action::Fence => {}
        }
        daemon.running = Some((id, action));
        match action {
            Action::Stop => {
                if let Some(life) = self.nodes[n].copy.map(|copy| copy.life) {
                    self.after(5_000, 3_000_000, Event::Dies { n, life });
                }
            }
            Action::Fence => {
                self.keeper_kills(n);
                if self.nodes[n].copy.is_none() {
                    self.after(100, 2_000, Event::Done { n, inc, id });
                }
            }
            Action::Promise { .. } | Action::GoOn { .. } | Action::Start { .. } => {
                self.after(500, 15_000, Event::Written { n, inc, id });
            }
            Action::Vote { .. } => {}
        }
    }

    /// What must be durable first is; the daemon may still die before it goes on.
    pub(super) fn on_written(&mut self, n: usize, inc: u32, id: u64) {
        let forgets = self.options.mutation == Some(Mutation::ForgetPromise);
        let Some(daemon) = self.daemon(n, inc) else { return };
        let Some((_, action)) = daemon.running.filter(|(running, _)| *running == id) else {
            return;
        };
        let disk = &mut self.nodes[n].disk;
        match action {
            Action::Promise { term } if !forgets => disk.promised = disk.promised.max(term),
            Action::Start { term } | Action::GoOn { term } => disk.begun = disk.begun.max(term),
            Action::Promise { .. } | Action::Vote { .. } | Action::Stop | Action::Fence => {}
        }
        self.after(50, 10_000, Event::Done { n, inc, id });
    }

    pub(super) fn on_done(&mut self, n: usize, inc: u32, id: u64) {
        let now = self.nodes[n].clock.at(self.now);
        let agreed = self.agreed(n);
        let Some(daemon) = self.daemon(n, inc) else { return };
        let Some((_, action)) = daemon.running.filter(|(running, _)| *running == id) else {
            return;
        };
        daemon.running = None;
        match action {
            Action::Promise { term } => {
                daemon.own.promised = daemon.own.promised.max(term);
                daemon.answered = daemon.hub.answered_all().clone();
            }
            Action::GoOn { term } => {
                daemon.own.promoted = term;
                daemon.own.serving = Some(term);
            }
            Action::Start { term } => {
                let lease = self.hold_lease(n, &agreed, now);
                let state = agreed.services.get(&self.service);
                let holds = state.is_some_and(|state| state.term() == term);
                let started =
                    lease.filter(|_| holds).is_some_and(|lease| self.keeper_starts(n, term, lease));
                let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
                daemon.own.promoted = term;
                if started {
                    daemon.own.process = Process::Primary;
                    daemon.own.serving = Some(term);
                    daemon.lease = lease.unwrap_or_default();
                    daemon.ran_since = now;
                } else {
                    daemon.own.process = Process::Stopped;
                }
            }
            Action::Fence => daemon.own.process = Process::Stopped,
            Action::Vote { .. } | Action::Stop => {}
        }
        self.plan_beat(n);
        self.drive(n);
    }

    /// The keeper says that the copy is gone.
    pub(super) fn on_ended(&mut self, n: usize, inc: u32, _life: u64) {
        let now = self.nodes[n].clock.at(self.now);
        if self.nodes[n].copy.is_some() {
            return;
        }
        let Some(daemon) = self.daemon(n, inc) else { return };
        let asked = matches!(daemon.running, Some((_, Action::Stop | Action::Fence)));
        if asked {
            daemon.running = None;
        } else {
            daemon.own.starts_failed += 1;
            daemon.retry_at = now.plus(retry_after(daemon.own.starts_failed));
        }
        if !matches!(daemon.running, Some((_, Action::Start { .. }))) {
            daemon.own.process = Process::Stopped;
        }
        daemon.own.serving = None;
        self.plan_beat(n);
        self.hub_changed(n);
    }
}
