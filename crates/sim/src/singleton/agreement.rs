//! Decides what is agreed: one log, a leader that may not know that it no longer leads. A model of
//! Raft, not an implementation.

use super::{Event, World};
use crate::event::Micros;
use std::rc::Rc;
use tandem_core::cluster::command::Command;
use tandem_core::cluster::state::{Applied, ClusterState};

/// How long the proposer waits.
const PROPOSAL: Micros = 2_000_000;

#[derive(Debug)]
pub(super) struct Agreement {
    states: Vec<Rc<ClusterState>>,
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

impl Agreement {
    pub fn new(state: ClusterState) -> Self {
        Self { states: vec![Rc::new(state)], leader: None, round: 0, pending: Vec::new() }
    }

    /// The newest agreed state, which no node may know yet.
    pub fn last(&self) -> &Rc<ClusterState> {
        &self.states[self.states.len() - 1]
    }

    /// All but the first so many, in their order.
    pub fn after(&self, seen: usize) -> &[Rc<ClusterState>] {
        self.states.get(seen..).unwrap_or_default()
    }

    fn append(&mut self, command: &Command) {
        let mut state = (**self.last()).clone();
        if state.apply(command) == Applied::Changed {
            self.states.push(Rc::new(state));
        }
    }
}

impl World {
    /// The state that a node has applied.
    pub(super) fn agreed(&self, n: usize) -> Rc<ClusterState> {
        self.agreement.states[self.nodes[n].applied].clone()
    }

    fn has_majority(&self, n: usize) -> bool {
        let reached = (0..self.nodes.len())
            .filter(|peer| *peer == n || self.nodes[*peer].awake() && self.net.both(n, *peer))
            .count();
        self.nodes[n].awake() && reached * 2 > self.nodes.len()
    }

    /// Whether the leader still leads; called whenever anything changed.
    pub(super) fn reconsider_leader(&mut self) {
        if self.agreement.leader.is_some_and(|leader| self.has_majority(leader)) {
            return;
        }
        self.lose_leader((200_000, 500_000), 1_000_000);
    }

    /// A leader goes; it learns that later.
    pub(super) fn lose_leader(&mut self, next: (Micros, Micros), learns: Micros) {
        let Some(leader) = self.agreement.leader.take() else { return };
        self.agreement.round += 1;
        let (round, inc) = (self.agreement.round, self.nodes[leader].daemons);
        self.after(next.0, next.1, Event::Elect { round });
        self.after(0, learns, Event::Depose { n: leader, inc });
    }

    pub(super) fn on_depose(&mut self, n: usize, inc: u32) {
        let is_leader = self.agreement.leader == Some(n);
        if self.is_daemon(n, inc)
            && !is_leader
            && let Some(daemon) = self.nodes[n].daemon.as_mut()
        {
            daemon.leads = false;
        }
    }

    pub(super) fn on_elect(&mut self, round: u64) {
        if self.agreement.round != round || self.agreement.leader.is_some() {
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
        for proposal in std::mem::take(&mut self.agreement.pending) {
            if self.rng.chance(25) {
                self.agreement.append(&proposal.command);
            }
        }
        self.agreement.leader = Some(leader);
        self.nodes[leader].applied = self.agreement.states.len() - 1;
        if let Some(daemon) = self.nodes[leader].daemon.as_mut() {
            daemon.leads = true;
            daemon.proposing = None;
        }
        self.note(leader, || "leads".into());
        self.hub_changed(leader);
    }

    /// Proposes a command; the answer comes with `ProposalEnded`, maybe by giving up.
    pub(super) fn propose(&mut self, n: usize, command: Command) -> u64 {
        self.ids += 1;
        let (id, inc) = (self.ids, self.nodes[n].daemons);
        let round = self.agreement.round;
        self.agreement.pending.push(Proposal { id, by: n, inc, round, command });
        self.after(1_000, 10_000, Event::Commit { id });
        self.push(self.now + PROPOSAL, Event::ProposalEnded { n, inc, id });
        id
    }

    pub(super) fn on_commit(&mut self, id: u64) {
        let index = self.agreement.pending.iter().position(|proposal| proposal.id == id);
        let Some(index) = index else { return };
        let Proposal { by, round, .. } = self.agreement.pending[index];
        if round != self.agreement.round
            || self.agreement.leader != Some(by)
            || !self.has_majority(by)
        {
            return;
        }
        let Proposal { inc, command, .. } = self.agreement.pending.remove(index);
        self.note(by, || format!("agreed: {command:?}"));
        self.agreement.append(&command);
        self.nodes[by].applied = self.agreement.states.len() - 1;
        self.after(0, 2_000, Event::ProposalEnded { n: by, inc, id });
        self.replicate(20_000);
        self.hub_changed(by);
    }

    fn replicate(&mut self, most: Micros) {
        let Some(leader) = self.agreement.leader.filter(|it| self.nodes[*it].awake()) else {
            return;
        };
        let upto = self.agreement.states.len() - 1;
        for n in (0..self.nodes.len()).filter(|n| *n != leader) {
            if self.nodes[n].applied < upto && self.net.both(leader, n) {
                self.after(300, most, Event::Applied { n, upto });
            }
        }
    }

    pub(super) fn on_agreement_tick(&mut self) {
        self.push(self.now + 100_000, Event::AgreementTick);
        self.reconsider_leader();
        self.replicate(5_000);
        let stuck: Vec<u64> = self.agreement.pending.iter().map(|it| it.id).collect();
        for id in stuck {
            self.on_commit(id);
        }
    }

    pub(super) fn on_applied(&mut self, n: usize, upto: usize) {
        let node = &mut self.nodes[n];
        let is_told = self.now >= node.behind_until;
        if node.daemon.is_some() && node.applied < upto && is_told {
            node.applied = upto;
            self.hub_changed(n);
        }
    }

    pub(super) fn on_proposal_ended(&mut self, n: usize, inc: u32, id: u64) {
        if self.is_daemon(n, inc)
            && let Some(daemon) = self.nodes[n].daemon.as_mut()
            && daemon.proposing == Some(id)
        {
            daemon.proposing = None;
            self.hub_changed(n);
        }
    }

    /// What an operator asks for reaches whoever leads.
    pub(super) fn operate(&mut self, command: Command) {
        if let Some(leader) = self.agreement.leader {
            self.propose(leader, command);
        }
    }
}
