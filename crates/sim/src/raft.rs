//! Decides what is agreed: one log, a leader that may not know that it no longer leads, proposals
//! whose outcome the proposer may never learn. A model of Raft, not an implementation.

use crate::event::{Event, Micros};
use crate::mutation::Mutation;
use crate::world::{World, name};
use std::rc::Rc;
use tandem_core::cluster::command::{Command, ServiceCommand};
use tandem_core::cluster::state::{Applied, ClusterState};
use tandem_core::spec::Durability;

/// How long the proposer waits.
const PROPOSAL: Micros = 2_000_000;

/// The replicated log.
#[derive(Debug)]
pub struct Raft {
    /// The state after each command.
    pub states: Vec<Rc<ClusterState>>,
    /// Who leads, in truth.
    pub leader: Option<usize>,
    round: u64,
    pending: Vec<Proposal>,
}

#[derive(Debug)]
struct Proposal {
    id: u64,
    by: usize,
    inc: u32,
    round: u64,
    command: Command,
}

impl Raft {
    /// A log whose first state is given.
    pub fn new(state: ClusterState) -> Self {
        Self { states: vec![Rc::new(state)], leader: None, round: 0, pending: Vec::new() }
    }

    /// The newest agreed state, which no node may know yet.
    pub fn last(&self) -> &Rc<ClusterState> {
        &self.states[self.states.len() - 1]
    }
}

impl World {
    /// The state that a node has applied.
    pub fn agreed(&self, n: usize) -> Rc<ClusterState> {
        self.raft.states[self.nodes[n].applied].clone()
    }

    fn has_majority(&self, n: usize) -> bool {
        let reached = (0..self.nodes.len())
            .filter(|peer| *peer == n || self.nodes[*peer].awake() && self.net.both(n, *peer))
            .count();
        self.nodes[n].awake() && reached * 2 > self.nodes.len()
    }

    /// Whether the leader still leads; called whenever anything changed.
    pub fn reconsider_leader(&mut self) {
        if self.raft.leader.is_some_and(|leader| self.has_majority(leader)) {
            return;
        }
        let Some(leader) = self.raft.leader.take() else { return };
        self.raft.round += 1;
        self.note(leader, || "loses its majority".into());
        let (round, inc) = (self.raft.round, self.nodes[leader].daemons);
        self.after(200_000, 500_000, Event::Elect { round });
        self.after(0, 1_000_000, Event::Depose { n: leader, inc });
    }

    /// A leader gives up though nothing is wrong.
    pub fn abdicate(&mut self) {
        let Some(leader) = self.raft.leader.take() else { return };
        self.raft.round += 1;
        let (round, inc) = (self.raft.round, self.nodes[leader].daemons);
        self.after(1_000, 500_000, Event::Elect { round });
        self.after(0, 500_000, Event::Depose { n: leader, inc });
    }

    /// It notices that it no longer leads.
    pub fn on_depose(&mut self, n: usize, inc: u32) {
        if self.is_daemon(n, inc)
            && self.raft.leader != Some(n)
            && let Some(daemon) = self.nodes[n].daemon.as_mut()
        {
            daemon.leads = false;
        }
    }

    /// Somebody with a majority becomes leader.
    pub fn on_elect(&mut self, round: u64) {
        if self.raft.round != round || self.raft.leader.is_some() {
            return;
        }
        let candidates: Vec<usize> =
            (0..self.nodes.len()).filter(|n| self.has_majority(*n)).collect();
        if candidates.is_empty() {
            self.after(100_000, 400_000, Event::Elect { round });
            return;
        }
        let leader = candidates[self.rng.below(candidates.len())];
        // Entries of former leaders may have reached the new one.
        for proposal in std::mem::take(&mut self.raft.pending) {
            if self.rng.chance(25) {
                self.append(&proposal.command);
            }
        }
        self.raft.leader = Some(leader);
        self.nodes[leader].applied = self.raft.states.len() - 1;
        if let Some(daemon) = self.nodes[leader].daemon.as_mut() {
            daemon.leads = true;
            daemon.proposing = None;
        }
        self.note(leader, || "leads".into());
        self.hub_changed(leader);
    }

    /// Proposes a command; the answer comes with `ProposalEnded`, maybe by giving up.
    pub fn propose(&mut self, n: usize, command: Command) -> u64 {
        let (id, inc) = (self.next_id(), self.nodes[n].daemons);
        self.note(n, || format!("proposes {command:?}"));
        let round = self.raft.round;
        self.raft.pending.push(Proposal { id, by: n, inc, round, command });
        self.after(1_000, 10_000, Event::Commit { id });
        self.queue.push(self.now + PROPOSAL, Event::ProposalEnded { n, inc, id });
        id
    }

    /// A proposal reaches its majority, if there is one.
    pub fn on_commit(&mut self, id: u64) {
        let Some(index) = self.raft.pending.iter().position(|proposal| proposal.id == id) else {
            return;
        };
        let (by, round) = (self.raft.pending[index].by, self.raft.pending[index].round);
        if round != self.raft.round || self.raft.leader != Some(by) || !self.has_majority(by) {
            // Never replicated: a retry by the same leader may still succeed later.
            return;
        }
        let Proposal { inc, command, .. } = self.raft.pending.remove(index);
        self.append(&command);
        self.nodes[by].applied = self.raft.states.len() - 1;
        self.pass_boundary(by);
        self.after(0, 2_000, Event::ProposalEnded { n: by, inc, id });
        self.replicate(true);
        self.hub_changed(by);
    }

    fn append(&mut self, command: &Command) {
        let mut state = (**self.raft.last()).clone();
        if state.apply(command) != Applied::Changed {
            return;
        }
        self.check_idempotent(&state, command);
        if let (Some(Mutation::GrowAndShrink), Command::Service { command, .. }) =
            (self.options.mutation, command)
            && matches!(command, ServiceCommand::ChangeRule { .. })
        {
            for service in state.services.values_mut() {
                if let Some(appointment) = service.appointment.as_mut() {
                    appointment.rules.drain(..appointment.rules.len() - 1);
                }
            }
        }
        self.raft.states.push(Rc::new(state));
        self.note_bound();
        self.rules_changed = true;
        self.check_agreed();
    }

    /// What may be lost, once commits that nobody confirms are asked for.
    pub fn note_bound(&mut self) {
        if let Durability::Async { lag_bytes_max, lag_max } = self.spec_now().durability {
            let (bytes, lasts) = self.record.async_bound.unwrap_or_default();
            self.record.async_bound = Some((bytes.max(lag_bytes_max), lasts.max(lag_max)));
        }
    }

    /// The leader tells the others what is agreed.
    pub fn replicate(&mut self, at_once: bool) {
        let Some(leader) = self.raft.leader.filter(|leader| self.nodes[*leader].awake()) else {
            return;
        };
        let upto = self.raft.states.len() - 1;
        for n in (0..self.nodes.len()).filter(|n| *n != leader) {
            let late = self.nodes[n].applies_late;
            if self.nodes[n].applied < upto && self.net.both(leader, n) && !late {
                let most = if at_once { 20_000 } else { 5_000 };
                self.after(300, most, Event::Applied { n, upto });
            }
        }
    }

    /// Keeps followers current and the leader honest.
    pub fn on_raft_tick(&mut self) {
        self.queue.push(self.now + 100_000, Event::RaftTick);
        self.reconsider_leader();
        self.replicate(false);
        let stuck: Vec<u64> = self.raft.pending.iter().map(|proposal| proposal.id).collect();
        for id in stuck {
            self.on_commit(id);
        }
    }

    /// A follower applied what is agreed.
    pub fn on_applied(&mut self, n: usize, upto: usize) {
        let node = &mut self.nodes[n];
        if node.daemon.is_some() && node.applied < upto {
            node.applied = upto;
            self.note(n, || format!("applied {upto} of {}", name(n)));
            self.hub_changed(n);
        }
    }
}
