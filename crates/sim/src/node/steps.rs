//! Carries out the steps of start, follow, promotion, barrier, rule and stop. A crash may come
//! between any two.

use super::StateFile;
use super::driver::Running;
use crate::event::{Event, Micros};
use crate::mutation::Mutation;
use crate::postgres::server::Mode;
use crate::postgres::wal::{DataDir, Kind};
use crate::world::World;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use tandem_core::facts::{InstanceFacts, Process, Stream};
use tandem_core::ids::{NodeId, Term, TimelineId};
use tandem_core::replication::primary_replica::loaded_rule::LoadedRule;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;

const STOP_FAST: Duration = Duration::from_secs(4);

/// What is different after an action.
pub type Change = Box<dyn FnOnce(&mut InstanceFacts, StateFile)>;

/// What came of a step.
pub enum Outcome {
    /// The next one follows after a time between these.
    Next(Micros, Micros),
    /// Not yet: look again soon.
    Again,
    /// The action is done.
    Done(Change),
    /// The action ended without success.
    Failed(&'static str),
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outcome")
    }
}

impl Outcome {
    /// Done, with a change.
    pub fn done(change: impl FnOnce(&mut InstanceFacts, StateFile) + 'static) -> Self {
        Self::Done(Box::new(change))
    }
}

/// The facts that are kept in the durable state.
pub fn adopt_state(own: &mut InstanceFacts, state: StateFile) {
    own.promised = state.promised;
    own.promoted = state.promoted;
    own.followed = state.followed;
    own.followed_timeline = state.followed_timeline;
    own.timeline_term = state.timeline_term;
    own.was_primary = state.was_primary;
}

impl World {
    /// Writes the small file; twice now and then, which must not matter (INV-6).
    pub fn change_state(&mut self, n: usize, change: impl Fn(&mut StateFile)) {
        let state = &mut self.nodes[n].disk.state;
        change(state);
        let once = *state;
        change(state);
        let same = once == self.nodes[n].disk.state;
        self.check_same(n, same);
        self.rules_changed = true;
    }

    /// Whether its server accepts writes.
    pub fn is_primary(&self, n: usize) -> bool {
        self.nodes[n].server.as_ref().is_some_and(|server| server.mode == Mode::Primary)
    }

    pub(super) fn step_found(&mut self, n: usize, step: u8) -> Outcome {
        if step == 0 {
            self.nodes[n].disk.sentinel = true;
            return Outcome::Next(50_000, 300_000);
        }
        let (system, id) = (self.next_id(), self.next_id());
        let disk = &mut self.nodes[n].disk;
        disk.data = Some(DataDir::new(system, id));
        disk.sentinel = false;
        let disk = disk.clone();
        Outcome::done(move |own, _| disk.inspect(own))
    }

    pub(super) fn step_start(
        &mut self,
        n: usize,
        (upstream, timeline): (Option<(NodeId, Term)>, Option<TimelineId>),
        step: u8,
    ) -> Outcome {
        if step == 0 {
            if let Some((_, term)) = upstream {
                self.follow_state(n, term, timeline);
            }
            return Outcome::Next(1_000, 8_000);
        }
        let from = upstream.as_ref().map(|(node, _)| crate::world::index(node));
        if !self.server_start(n, from) {
            return Outcome::Failed("cannot start");
        }
        Outcome::done(move |own, state| {
            adopt_state(own, state);
            own.process = Process::Starting;
            own.upstream = upstream;
            own.ballot = None;
            own.stopped_cleanly = false;
        })
    }

    fn follow_state(&mut self, n: usize, term: Term, timeline: Option<TimelineId>) {
        self.change_state(n, |state| {
            state.promised = state.promised.max(term);
            state.followed = state.followed.max(term);
            state.followed_timeline = timeline.unwrap_or(state.followed_timeline);
            state.was_primary = false;
        });
    }

    pub(super) fn step_follow(
        &mut self,
        n: usize,
        (primary, term, timeline): (NodeId, Term, Option<TimelineId>),
        step: u8,
    ) -> Outcome {
        if step == 0 {
            self.follow_state(n, term, timeline);
            return Outcome::Next(1_000, 8_000);
        }
        let up = crate::world::index(&primary);
        let Some(server) = self.nodes[n].server.as_mut().filter(|s| s.mode == Mode::Standby) else {
            return Outcome::Failed("not a standby");
        };
        server.upstream = Some(up);
        let other = server.receiver.take_if(|receiver| receiver.from != up);
        if let Some(receiver) = other {
            self.sender_breaks(receiver.from, receiver.server, n, receiver.conn);
        }
        self.plan_connect(n, 0);
        Outcome::done(move |own, state| {
            adopt_state(own, state);
            own.upstream = Some((primary, term));
            own.ballot = None;
        })
    }

    pub(super) fn step_promote(&mut self, n: usize, term: Term, running: &Running) -> Outcome {
        let now = self.nodes[n].clock.at(self.now);
        let Some(until) = running.lease.filter(|until| *until > now || running.step > 1) else {
            return Outcome::Failed("no lease is proven");
        };
        let Some(mode) = self.nodes[n].server.as_ref().map(|server| server.mode) else {
            return Outcome::Failed("no server");
        };
        let arms_late = self.options.mutation == Some(Mutation::ArmAfterPromotion);
        match running.step {
            0 => {
                self.change_state(n, |state| {
                    state.promised = state.promised.max(term);
                    state.promoted = term;
                    state.timeline_term = term;
                    state.was_primary = true;
                });
                Outcome::Next(500, 5_000)
            }
            1 if arms_late || self.limit(n, until) => Outcome::Next(200, 1_000),
            1 => Outcome::Failed("the keeper refuses the lease"),
            2 => {
                let rule = self.rule_at_promotion(n);
                if let Some(daemon) = self.nodes[n].daemon.as_mut() {
                    daemon.loaded = LoadedRule::at_promotion(rule.clone());
                }
                self.write_rule(n, Some(rule));
                Outcome::Next(1_000, 20_000)
            }
            3 => {
                self.checkpointer_reloads(n);
                let Some(server) = self.nodes[n].server.as_mut() else { return Outcome::Again };
                if mode != Mode::Standby {
                    return Outcome::Failed("not a standby");
                }
                server.mode = Mode::Promoting;
                let pg = server.number;
                self.after(5_000, 100_000, Event::Promoted { n, pg });
                Outcome::Next(2_000, 5_000)
            }
            _ if mode == Mode::Primary => {
                if arms_late {
                    self.limit(n, until);
                }
                let Some(data) = self.nodes[n].disk.data.as_ref() else { return Outcome::Again };
                let (timeline, forks) = (TimelineId(data.timeline()), data.forks());
                Outcome::done(move |own, state| {
                    adopt_state(own, state);
                    own.process = Process::Primary;
                    own.timeline = timeline;
                    own.forks = forks;
                    own.upstream = None;
                    own.stream = Stream::None;
                    own.ballot = None;
                    own.serving = None;
                    own.rule = None;
                    own.checkpointed = false;
                })
            }
            _ => Outcome::Again,
        }
    }

    /// Nobody may confirm before the barrier (H7); with `AcknowledgeBeforeBarrier` the rule's
    /// standbys may.
    fn rule_at_promotion(&self, n: usize) -> CommitRule {
        let nobody = CommitRule::of_nobody(self.nodes[n].id.clone());
        if self.options.mutation != Some(Mutation::AcknowledgeBeforeBarrier) {
            return nobody;
        }
        let agreed = self.agreed(n);
        let appointment = agreed.services.get(&self.service).and_then(|s| s.appointment.as_ref());
        appointment.and_then(|a| a.rules.last().cloned()).unwrap_or(nobody)
    }

    pub(super) fn step_record(
        &mut self,
        n: usize,
        (term, wanted): (Term, CommitRule),
        running: &mut Running,
    ) -> Outcome {
        if !self.is_primary(n) {
            return Outcome::Failed("not a primary");
        }
        match running.step {
            0 => {
                let Some(position) = self.write(n, Kind::Term(term)) else {
                    return Outcome::Failed("not a primary");
                };
                running.position = position;
                Outcome::Next(500, 1_500)
            }
            1 if self.is_confirmed(n, &wanted, running.position) => {
                self.check_barrier(n, term, &wanted, running.position);
                Outcome::Next(200, 3_000)
            }
            1 => Outcome::Again,
            2 => {
                let Some(daemon) = self.nodes[n].daemon.as_mut() else { return Outcome::Again };
                running.step = if daemon.own.rule.as_ref() == Some(&wanted) {
                    29
                } else if daemon.loaded.is_first(&wanted) {
                    19
                } else {
                    9
                };
                Outcome::Next(200, 1_000)
            }
            // Another rule may be in force: it takes a proof.
            10..=12 => {
                let mut proof = Running { step: running.step - 10, ..running.clone() };
                let outcome = self.step_rule(n, &wanted, &mut proof);
                running.position = proof.position;
                match outcome {
                    Outcome::Done(_) => Outcome::done(barrier(term, wanted)),
                    other => other,
                }
            }
            20 => {
                self.write_rule(n, Some(wanted));
                Outcome::Next(1_000, 20_000)
            }
            21 => {
                self.checkpointer_reloads(n);
                Outcome::done(barrier(term, wanted))
            }
            _ => Outcome::done(barrier(term, wanted)),
        }
    }

    /// Whether as many as the rule demands have everything up to here.
    fn is_confirmed(&self, n: usize, rule: &CommitRule, position: usize) -> bool {
        let Some(server) = self.nodes[n].server.as_ref() else { return false };
        let confirmed: BTreeSet<NodeId> = server
            .senders
            .iter()
            .filter(|(_, sender)| sender.flushed >= position)
            .map(|(peer, _)| self.nodes[*peer].id.clone())
            .collect();
        let flushed = self.nodes[n].disk.data.as_ref().map_or(0, |data| data.flushed);
        flushed >= position && rule.acknowledges(&confirmed)
    }

    /// Writes a rule and proves that it alone is in effect.
    pub(super) fn step_rule(
        &mut self,
        n: usize,
        rule: &CommitRule,
        running: &mut Running,
    ) -> Outcome {
        if !self.is_primary(n) {
            return Outcome::Failed("not a primary");
        }
        match running.step {
            0 => {
                if let Some(daemon) = self.nodes[n].daemon.as_mut() {
                    daemon.loaded.forget();
                }
                self.write_rule(n, Some(rule.clone()));
                Outcome::Next(8_500, 20_000)
            }
            1 => {
                self.checkpointer_reloads(n);
                running.position = self.write(n, Kind::Other).unwrap_or(0);
                Outcome::Next(1_000, 3_000)
            }
            _ if self.rule_is_proven(n, rule, running.position) => Outcome::done(|_, _| {}),
            _ => Outcome::Again,
        }
    }

    /// Checkpoint, then a fast shutdown; killed when that takes long (H38).
    pub(super) fn step_stop(&mut self, n: usize, running: &mut Running) -> Outcome {
        let Some(server) = self.nodes[n].server.as_mut() else {
            return Outcome::done(|_, _| {});
        };
        let pg = server.number;
        let was_primary = server.mode == Mode::Primary;
        match running.step {
            0 => Outcome::Next(5_000, 50_000),
            1 => {
                server.mode = Mode::Stopping;
                server.waiters.clear();
                // Sessions end first; then the shutdown checkpoint is the last record.
                let end = if was_primary { self.write(n, Kind::Other).unwrap_or(0) } else { 0 };
                self.after(5_000, 40_000, Event::Stop { n, pg, end });
                let now = self.nodes[n].clock.at(self.now);
                running.deadline = now.plus(STOP_FAST);
                Outcome::Next(2_000, 30_000)
            }
            _ => {
                if self.nodes[n].clock.at(self.now) >= running.deadline {
                    self.server_ends(n, false, "stopped at once");
                    return Outcome::Next(1_000, 3_000);
                }
                Outcome::Again
            }
        }
    }

    /// The shutdown goes on by itself until every standby that is connected has everything.
    pub fn on_stop(&mut self, n: usize, pg: u32, end: usize) {
        let Some(server) = self.server(n, pg) else { return };
        let drained = server.senders.values().all(|sender| sender.flushed >= end);
        let Some(data) = self.nodes[n].disk.data.as_mut() else { return };
        if !drained || data.flushed < end {
            self.after(5_000, 20_000, Event::Stop { n, pg, end });
            return;
        }
        data.checkpoint = data.wal.len();
        data.checkpoint_timeline = data.timeline();
        self.server_ends(n, true, "stopped cleanly");
    }
}

/// What is different after the barrier.
fn barrier(term: Term, rule: CommitRule) -> impl FnOnce(&mut InstanceFacts, StateFile) {
    move |own, _| {
        own.serving = Some(term);
        own.data_term = own.data_term.max(term);
        own.rule = Some(rule);
    }
}
