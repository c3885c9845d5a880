//! Drives the own copy of one node: its lease, what is planned for it, and how that is carried out.

use super::machine::Machine;
use super::{Event, Mutation, World};
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::lease::{Proof, counts_from, valid_until};
use tandem_core::cluster::state::{ClusterState, ServiceState};
use tandem_core::clustering::active_active::seat::is_emptied_first;
use tandem_core::clustering::active_passive::singleton::{
    Action, RAN_WELL_AFTER, SingletonView, instance, retry_after,
};
use tandem_core::facts::withdrawal::{Doors, Wish};
use tandem_core::facts::{Ballot, Process};
use tandem_core::ids::NodeId;
use tandem_core::spec::ServiceSpec;
use tandem_core::time::{Observed, Timestamp};

/// The keeper is told when the lease grew by this much.
const LEASE_STEP: Duration = Duration::from_millis(100);

impl World {
    pub(super) fn note_progress(&mut self, n: usize, state: &ServiceState, now: Timestamp) {
        let s = self.own_part(n);
        let me = &self.nodes[n].id;
        let holds = state.appointment.as_ref().is_some_and(|it| it.primary == *me);
        let leaves = state.switchover.is_some();
        let Some(part) = self.part(n, s) else { return };
        let runs = part.own.process == Process::Primary;
        if runs && now.since(part.ran_since) >= RAN_WELL_AFTER {
            part.own.starts_failed = 0;
        }
        let rests = part.own.starts_failed > 0;
        if holds && !runs && !leaves && !rests {
            part.stalled_since.get_or_insert(now);
        } else {
            part.stalled_since = None;
        }
        part.own.stalled = part.stalled_since.map_or(Duration::ZERO, |since| now.since(since));
    }

    /// Until when the lease is proven; the keeper is told.
    pub(super) fn hold_lease(
        &mut self,
        n: usize,
        agreed: &ClusterState,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let voters: BTreeSet<NodeId> = agreed.spec.nodes.keys().cloned().collect();
        let me = self.nodes[n].id.clone();
        let s = self.own_part(n);
        let service = &self.services[s];
        let there = agreed.spec.services.get(service).zip(agreed.services.get(service));
        let unproven = there.is_none() && self.options.mutation == Some(Mutation::LeaveUnproven);
        let left = self.nodes[n].daemon.as_ref()?.parts.get(s)?.memory.leaving();
        let left = left.map(|(spec, state)| (spec.clone(), state.clone()));
        let left = left.as_ref().map(|(spec, state)| (spec, state));
        let (spec, state) = there.or(left)?;
        let appointment = state.appointment.as_ref().filter(|it| it.primary == me)?;
        let part = self.part(n, s)?;
        if part.own.promised > appointment.term {
            return None;
        }
        let acknowledged = &part.hub.proof(spec, appointment.term, false);
        let rules = &appointment.rules;
        let proof = Proof { me: &me, voters: &voters, rules, now, acknowledged };
        let proven = valid_until(&proof, spec.timing.lease);
        let until = if unproven { Some(now.plus(spec.timing.lease)) } else { proven };
        let is_its_own = part.own.promoted == appointment.term;
        let runs = matches!(part.own.process, Process::Primary | Process::Stopping);
        if let Some(until) =
            until.filter(|it| runs && is_its_own && *it >= part.lease.plus(LEASE_STEP))
        {
            part.lease = until;
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
        let s = self.own_part(n);
        if !self.has_copy(n, s) {
            return;
        }
        let (agreed, me) = (self.agreed(n), &self.nodes[n].id);
        let state = self.services.get(s).and_then(|service| agreed.services.get(service));
        let holds = state.and_then(|it| it.appointment.as_ref()).is_some_and(|a| a.primary == *me);
        let stopped = self.nodes[n].daemon.as_ref().is_some_and(|daemon| {
            let part = &daemon.parts[s];
            part.own.process == Process::Stopped && part.running.is_none()
        });
        if holds && stopped {
            self.plan_beat(n);
        }
    }

    pub(super) fn plan_copy(
        &mut self,
        n: usize,
        (state, spec): (&ServiceState, &ServiceSpec),
        lease: Option<Timestamp>,
        now: Timestamp,
    ) {
        let mutation = self.options.mutation;
        let s = self.own_part(n);
        // Nobody is led to seats.
        let own_facts = self.own_facts(n).filter(|_| self.work.is_none());
        let (service, drain_max) = (self.services[s].clone(), self.drain_max);
        let agreed = self.agreed(n);
        let is_emptied_first = mutation != Some(Mutation::StartAnewWithWork)
            && spec.seat.as_ref().is_some_and(|it| is_emptied_first(&agreed, it));
        let Machine { id, daemon, .. } = &mut self.nodes[n];
        let Some(daemon) = daemon.as_mut() else { return };
        let part = &mut daemon.parts[s];
        let own_facts = own_facts.map(|own| (own.node.clone(), Observed::new(own, now)));
        part.hub.facts.extend(own_facts);
        let since = part.memory.since();
        let counts_from = counts_from(spec, state, &part.answered, since);
        let mut own = part.own.clone();
        if mutation == Some(Mutation::VoteWhileItRuns) && own.promised > state.term() {
            own.process = Process::Stopped;
        }
        let view = SingletonView {
            me: id,
            timing: spec.timing,
            state,
            own: &own,
            asked: part.asked,
            lease,
            counts_from: counts_from.filter(|_| mutation != Some(Mutation::VoteAtOnce)),
            retry_at: part.retry_at,
            wish: part.wish,
            is_emptied_first,
            doors: Doors {
                me: id,
                service: &service,
                nodes: &self.agreement.last().spec.nodes,
                facts: &part.hub.facts,
                suspicion: spec.timing.suspicion,
                drain_max,
            },
        };
        let next = instance::plan(&view, now);
        let text = next.reason.to_string();
        let is_new = part.planned != text;
        part.planned.clone_from(&text);
        let running = part.running.map(|(_, action)| action);
        if is_new {
            self.note(n, || format!("own copy: {text}"));
        }
        match next.action {
            // A fence waits for nothing.
            Some(Action::Fence) if running != Some(Action::Fence) => {
                self.begin((n, s), Action::Fence)
            }
            Some(Action::Withdraw) if mutation == Some(Mutation::StopBeforeDoors) => {
                self.judge_stop(n);
                self.begin((n, s), Action::Stop);
            }
            Some(action) if running.is_none() => {
                if action == Action::Stop {
                    self.judge_stop(n);
                    self.judge_start_anew(n, s);
                }
                self.begin((n, s), action);
            }
            Some(_) => {}
            None => self.look_again(n, next.again),
        }
    }

    /// What a daemon was doing, and for which service.
    fn begun(&self, n: usize, inc: u32, id: u64) -> Option<(usize, Action)> {
        let daemon = self.nodes[n].daemon.as_ref().filter(|_| self.nodes[n].daemons == inc)?;
        daemon.parts.iter().enumerate().find_map(|(s, part)| {
            part.running.filter(|(running, _)| *running == id).map(|(_, action)| (s, action))
        })
    }

    pub(super) fn begin(&mut self, (n, s): (usize, usize), action: Action) {
        self.ids += 1;
        let (id, inc) = (self.ids, self.nodes[n].daemons);
        let now = self.nodes[n].clock.at(self.now);
        self.note(n, || format!("begins to {action}"));
        let Some(part) = self.part(n, s) else { return };
        match action {
            Action::Vote { term, held } => {
                part.own.ballot = Some(Ballot { term, position: None, held });
                return;
            }
            Action::Withdraw => {
                part.own.withdrawn = Some(now);
                return;
            }
            Action::Return => {
                part.own.withdrawn = None;
                return;
            }
            Action::Start { .. } => part.own.process = Process::Starting,
            Action::Stop => part.own.process = Process::Stopping,
            Action::Promise { .. } | Action::GoOn { .. } | Action::Fence => {}
        }
        part.running = Some((id, action));
        match action {
            Action::Stop => {
                if let Some(life) = self.nodes[n].copy.as_ref().map(|copy| copy.life) {
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
            Action::Vote { .. } | Action::Withdraw | Action::Return => {}
        }
    }

    /// What must be durable first is; the daemon may still die before it goes on.
    pub(super) fn on_written(&mut self, n: usize, inc: u32, id: u64) {
        let forgets = self.options.mutation == Some(Mutation::ForgetPromise);
        let Some((s, action)) = self.begun(n, inc, id) else { return };
        let disk = &mut self.nodes[n].disks[s];
        match action {
            Action::Promise { term } if !forgets => disk.promised = disk.promised.max(term),
            Action::Start { term } | Action::GoOn { term } => disk.begun = disk.begun.max(term),
            Action::Promise { .. }
            | Action::Vote { .. }
            | Action::Withdraw
            | Action::Return
            | Action::Stop
            | Action::Fence => {}
        }
        self.after(50, 10_000, Event::Done { n, inc, id });
    }

    pub(super) fn on_done(&mut self, n: usize, inc: u32, id: u64) {
        let now = self.nodes[n].clock.at(self.now);
        let agreed = self.agreed(n);
        let Some((s, action)) = self.begun(n, inc, id) else { return };
        let Some(part) = self.part(n, s) else { return };
        part.running = None;
        match action {
            Action::Promise { term } => {
                part.own.promised = part.own.promised.max(term);
                part.answered = part.hub.answered_all().clone();
            }
            Action::GoOn { term } => {
                part.own.promoted = term;
                part.own.serving = Some(term);
            }
            Action::Start { term } => {
                let lease = self.hold_lease(n, &agreed, now);
                let state = agreed.services.get(&self.services[s]);
                let holds = state.is_some_and(|state| state.term() == term);
                let started =
                    lease.filter(|_| holds).is_some_and(|lease| self.keeper_starts(n, term, lease));
                let Some(part) = self.part(n, s) else { return };
                part.own.promoted = term;
                part.wish = Wish::Agreed;
                (part.own.withdrawn, part.own.pending_restart) = (None, false);
                if started {
                    part.own.process = Process::Primary;
                    part.own.serving = Some(term);
                    part.lease = lease.unwrap_or_default();
                    part.ran_since = now;
                } else {
                    part.own.process = Process::Stopped;
                }
            }
            Action::Fence => part.own.process = Process::Stopped,
            Action::Vote { .. } | Action::Withdraw | Action::Return | Action::Stop => {}
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
        let s = self.own_part(n);
        if !self.is_daemon(n, inc) {
            return;
        }
        let Some(part) = self.part(n, s) else { return };
        part.ends += 1;
        let asked = matches!(part.running, Some((_, Action::Stop | Action::Fence)));
        if asked {
            part.running = None;
        } else {
            part.own.starts_failed += 1;
            part.retry_at = now.plus(retry_after(part.own.starts_failed));
        }
        if !matches!(part.running, Some((_, Action::Start { .. }))) {
            part.own.process = Process::Stopped;
        }
        part.own.serving = None;
        part.own.withdrawn = None;
        self.plan_beat(n);
        self.hub_changed(n);
    }
}
