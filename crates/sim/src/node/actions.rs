//! Carries out an action on the own copy, and knows what each does, step by step, as the shell
//! does.

use super::driver::Running;
use super::steps::{Outcome, adopt_state};
use crate::event::{Event, Micros};
use crate::mutation::Mutation;
use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::cluster::lease;
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::Action;
use tandem_core::clustering::active_passive::witness::{self, Next, WitnessView};
use tandem_core::facts::{Ballot, Data, Position, Process, Stream};
use tandem_core::ids::{NodeId, Term};
use tandem_core::time::Timestamp;

/// How long an action may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl World {
    /// Begins an action.
    pub fn begin(&mut self, n: usize, action: Action, lease: Option<Timestamp>, s: &ServiceState) {
        let fence_wait = self.fence_wait(n, s);
        let id = self.next_id();
        let inc = self.nodes[n].daemons;
        let now = self.nodes[n].clock.at(self.now);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        match &action {
            Action::ApplyRule { .. } => daemon.own.rule = None,
            Action::RecordTerm { rule, .. } => {
                daemon.own.rule.take_if(|own| own != rule);
            }
            Action::Promote { .. } => daemon.own.process = Process::Promoting,
            Action::StopForSwitchover { .. } | Action::StopToRejoin => {
                daemon.own.process = Process::Stopping;
            }
            Action::Clone { .. } => daemon.own.data = Data::Copying { percent: None },
            Action::Promise { term } => {
                if self.options.mutation != Some(Mutation::DropPromise) {
                    daemon.own.promised = daemon.own.promised.max(*term);
                }
            }
            Action::Found
            | Action::Start { .. }
            | Action::Follow { .. }
            | Action::Reaffirm { .. }
            | Action::Checkpoint
            | Action::Rewind { .. }
            | Action::Quarantine { .. }
            | Action::Fence => {}
        }
        if let (Action::Promote { .. }, Some(until)) = (&action, lease) {
            daemon.lease = until;
        }
        let patience = match action {
            Action::RecordTerm { .. } => Duration::from_secs(3600),
            Action::ApplyRule { .. } | Action::Promise { .. } => Duration::from_secs(2),
            _ => PATIENCE,
        };
        daemon.running = Some(Running {
            action,
            id,
            step: 0,
            lease,
            fence_wait,
            position: 0,
            deadline: now.plus(patience),
        });
        self.after(200, 3_000, Event::Step { n, inc, id });
    }

    /// From when on a ballot of this node counts.
    fn fence_wait(&self, n: usize, state: &ServiceState) -> Option<Timestamp> {
        let answered = self.nodes[n].daemon.as_ref()?.hub.answered_all();
        self.outlived(n, state, answered)
    }

    fn outlived(
        &self,
        n: usize,
        state: &ServiceState,
        answered: &BTreeMap<NodeId, Timestamp>,
    ) -> Option<Timestamp> {
        if self.options.mutation == Some(Mutation::PromoteBeforeFence) {
            return None;
        }
        let primary = state.appointment.as_ref().map(|appointment| &appointment.primary);
        let answered = primary.and_then(|primary| answered.get(primary)).copied();
        lease::outlived(&self.spec_of(n), answered, self.nodes[n].daemon.as_ref()?.started)
    }

    /// The next step of the action under way.
    pub fn on_step(&mut self, n: usize, inc: u32, id: u64) {
        if !self.is_daemon(n, inc) {
            return;
        }
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let Some(mut running) = daemon.running.clone().filter(|running| running.id == id) else {
            return;
        };
        self.pass_boundary(n);
        if !self.is_daemon(n, inc) || !self.nodes[n].awake() {
            return;
        }
        let outcome = self.carry_out(n, &mut running);
        let keep = match outcome {
            Outcome::Next(low, high) => {
                running.step += 1;
                Some((low, high))
            }
            Outcome::Again => {
                let now = self.nodes[n].clock.at(self.now);
                if now > running.deadline {
                    return self.finish(n, id, Err("it took too long"));
                }
                Some((1_500, 5_000))
            }
            Outcome::Done(change) => {
                self.finish(n, id, Ok(change));
                None
            }
            Outcome::Failed(why) => {
                self.finish(n, id, Err(why));
                None
            }
        };
        let Some((low, high)): Option<(Micros, Micros)> = keep else { return };
        if let Some(daemon) = self.nodes[n].daemon.as_mut()
            && daemon.running.as_ref().is_some_and(|now| now.id == id)
        {
            daemon.running = Some(running);
            self.after(low, high, Event::Step { n, inc, id });
        }
    }

    fn carry_out(&mut self, n: usize, running: &mut Running) -> Outcome {
        let action = running.action.clone();
        match action {
            Action::Promise { term } => self.step_promise(n, term, running),
            Action::Found => self.step_found(n, running.step),
            Action::Start { upstream, timeline } => {
                self.step_start(n, (upstream, timeline), running.step)
            }
            Action::Follow { primary, term, timeline } => {
                self.step_follow(n, (primary, term, timeline), running.step)
            }
            Action::Promote { term } => self.step_promote(n, term, running),
            Action::Reaffirm { term } => {
                self.change_state(n, |state| {
                    state.promised = state.promised.max(term);
                    state.promoted = term;
                });
                Outcome::done(|own, state| {
                    adopt_state(own, state);
                    own.serving = None;
                })
            }
            Action::RecordTerm { term, rule } => self.step_record(n, (term, rule), running),
            Action::ApplyRule { rule } => match self.step_rule(n, &rule, running) {
                Outcome::Done(_) => Outcome::done(|own, _| own.rule = Some(rule)),
                other => other,
            },
            Action::Checkpoint => self.step_checkpoint(n, running.step),
            Action::StopForSwitchover { .. } => self.step_stop(n, running),
            Action::StopToRejoin => match self.step_stop(n, running) {
                Outcome::Done(_) => Outcome::done(|own, _| own.rejoin_failures += 1),
                other => other,
            },
            Action::Rewind { from, term, timeline } => {
                self.step_rewind(n, (&from, (term, timeline)), running)
            }
            Action::Clone { from, term, timeline } => {
                self.step_clone(n, (&from, (term, timeline)), running)
            }
            Action::Quarantine { reason } => {
                Outcome::done(move |own, _| own.data = Data::Quarantined { reason })
            }
            Action::Fence => Outcome::Failed("not an action with steps"),
        }
    }

    /// With `BallotBeforePersist`, the ballot is told first.
    fn votes_too_early(&mut self, n: usize, term: Term) -> bool {
        if self.options.mutation != Some(Mutation::BallotBeforePersist) {
            return false;
        }
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return false };
        let own = &mut daemon.own;
        if own.ballot.is_some() && own.promised >= term {
            return false;
        }
        let position = Some(Position { data_term: own.data_term, flushed: own.flushed });
        own.ballot = Some(Ballot { term, position, held: None });
        self.plan_beat(n);
        true
    }

    fn waits_for_fence(&self, n: usize, running: &mut Running) -> bool {
        let now = self.nodes[n].clock.at(self.now);
        let Some(until) = running.fence_wait.filter(|until| *until > now) else { return false };
        running.deadline = until.plus(PATIENCE);
        true
    }

    fn step_promise(&mut self, n: usize, term: Term, running: &mut Running) -> Outcome {
        let broken = self.options.mutation == Some(Mutation::DropPromise);
        match running.step {
            0 => {
                if self.votes_too_early(n, term) {
                    return Outcome::Again;
                }
                if !broken {
                    self.change_state(n, |state| state.promised = state.promised.max(term));
                }
                let node = &self.nodes[n];
                let Some(daemon) = node.daemon.as_ref() else { return Outcome::Again };
                if daemon.own.process == Process::Stopped && daemon.own.data != Data::Present {
                    running.step = 10;
                    return Outcome::Again;
                }
                if daemon.own.process != Process::Standby {
                    return Outcome::done(adopt_state);
                }
                Outcome::Next(500, 5_000)
            }
            1 => {
                let Some(server) = self.nodes[n].server.as_mut().filter(|s| standby(s)) else {
                    return Outcome::Failed("not a standby");
                };
                if !broken {
                    server.upstream = None;
                }
                Outcome::Next(1_000, 30_000)
            }
            2 => {
                if !broken {
                    self.stop_receiver(n);
                }
                let node = &self.nodes[n];
                let (Some(_), Some(data)) =
                    (node.server.as_ref().filter(|s| standby(s)), node.disk.data.as_ref())
                else {
                    return Outcome::Failed("not a standby");
                };
                running.position = data.flushed;
                Outcome::Next(300, 2_000)
            }
            10 => {
                if self.waits_for_fence(n, running) {
                    return Outcome::Again;
                }
                Outcome::done(move |own, state| {
                    adopt_state(own, state);
                    own.ballot = Some(Ballot { term, position: None, held: None });
                })
            }
            _ => {
                if self.waits_for_fence(n, running) {
                    return Outcome::Again;
                }
                let Some(data) = self.nodes[n].disk.data.as_ref() else { return Outcome::Again };
                let flushed = crate::world::lsn(running.position);
                let position = Position { data_term: data.term(running.position), flushed };
                Outcome::done(move |own, state| {
                    adopt_state(own, state);
                    own.promised = own.promised.max(term);
                    own.upstream = None;
                    own.stream = Stream::None;
                    own.flushed = position.flushed;
                    own.data_term = position.data_term;
                    own.ballot = Some(Ballot { term, position: Some(position), held: None });
                })
            }
        }
    }

    /// Nothing more arrives, and what came is on disk.
    fn stop_receiver(&mut self, n: usize) {
        let Some(server) = self.nodes[n].server.as_mut() else { return };
        if let Some(receiver) = server.receiver.take() {
            self.sender_breaks(receiver.from, receiver.server, n, receiver.conn);
        }
        if let Some(data) = self.nodes[n].disk.data.as_mut() {
            data.flushed = data.wal.len();
        }
    }

    fn step_checkpoint(&mut self, n: usize, step: u8) -> Outcome {
        if step == 0 {
            return Outcome::Next(5_000, 200_000);
        }
        if !self.is_primary(n) {
            return Outcome::Failed("not a primary");
        }
        if let Some(data) = self.nodes[n].disk.data.as_mut() {
            data.checkpoint = data.flushed;
            data.checkpoint_timeline = data.timeline();
        }
        Outcome::done(|own, _| own.checkpointed = true)
    }

    /// What the shell's witness does.
    pub fn drive_witness(&mut self, n: usize, state: &ServiceState) {
        let now = self.nodes[n].clock.at(self.now);
        loop {
            let Some(daemon) = self.nodes[n].daemon.as_ref() else { return };
            let view = WitnessView {
                asked: daemon.asked,
                promised: daemon.own.promised,
                ballot: daemon.own.ballot,
                counts_from: self.outlived(n, state, &daemon.answered),
            };
            let next = witness::plan(&view, now);
            if let Next::Promise { term } = next
                && self.options.mutation != Some(Mutation::DropPromise)
            {
                self.change_state(n, |state| state.promised = state.promised.max(term));
            }
            let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
            daemon.observed_at = now;
            match next {
                Next::Promise { term } => {
                    daemon.own.promised = term;
                    daemon.answered = daemon.hub.answered_all().clone();
                }
                Next::Vote(ballot) => daemon.own.ballot = Some(ballot),
                Next::Wait(_) => return,
            }
            self.plan_beat(n);
        }
    }
}

fn standby(server: &crate::postgres::server::Server) -> bool {
    server.mode == crate::postgres::server::Mode::Standby
}
