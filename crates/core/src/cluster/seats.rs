//! Folds what is agreed of seats: the copies of a command whose work is divided, one per node.
//! In: `SeatCommand`, a new configuration. Out: `Applied`, or why the configuration cannot follow.
//! Keeps: INV-5 terms never go back; INV-13 who owns what is never forgotten while copies go by it.
//! Not here: who owns what (`partitions.rs`), whether the earlier copies are gone
//! (`clustering/active_active/seat.rs`).
//! Tested by: `clustering/active_active/tests.rs`, and the simulator.

use crate::cluster::command::{Command, ServiceCommand};
use crate::cluster::partitions::Owner;
use crate::cluster::state::{
    Applied, Appointed, Appointment, Cause, ClusterState, Phase, ServiceState, ignored,
};
use crate::ids::{NodeId, Term};
use crate::spec::{ClusterSpec, Seat};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// A new term for the copy of one node, which runs there or nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatCommand {
    /// The node, the same in all terms.
    pub node: NodeId,
    /// The term.
    pub term: Term,
    /// What is known of copies of earlier terms.
    pub earlier: Earlier,
    /// Why.
    pub cause: Cause,
    /// Why, in words with numbers.
    pub reason: String,
    /// Milliseconds since 1970 on the controller's clock.
    pub at_unix_ms: u64,
}

/// What is known of the copies of earlier terms when a seat gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Earlier {
    /// They are proven gone: by their node's own word, or since a majority waited their lease out.
    Gone,
    /// One may go on: it is the same node's, and keeps what it owns.
    MayRun,
}

impl fmt::Display for SeatCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, term, .. } = self;
        match self.earlier {
            Earlier::Gone => write!(f, "seat {node} anew in term {term}"),
            Earlier::MayRun => write!(f, "let {node} go on in term {term}"),
        }
    }
}

impl ServiceState {
    pub(super) fn seat(&mut self, command: &SeatCommand) -> Applied {
        let SeatCommand { node, term, earlier, cause, reason, at_unix_ms } = command;
        let is_another = |it: &Appointment| it.primary != *node;
        if *term <= self.term() || self.appointment.as_ref().is_some_and(is_another) {
            return ignored("terms never go back, and a seat stays where it is");
        }
        match earlier {
            Earlier::Gone => self.sitting = *term,
            Earlier::MayRun => {}
        }
        self.appoint(Appointed {
            term: *term,
            primary: node.clone(),
            cause: *cause,
            reason: reason.clone(),
            at_unix_ms: *at_unix_ms,
            whole: true,
            active_unix_ms: None,
        });
        self.appointment = Some(Appointment {
            term: *term,
            primary: node.clone(),
            rules: Vec::new(),
            phase: Phase::Appointed,
        });
        Applied::Changed
    }
}

impl ClusterState {
    /// What is agreed first where an operator vouches for it that the nodes of another
    /// configuration are the only ones left: the copies of the others are gone.
    pub fn vouched_gone(&self, spec: &ClusterSpec, at_unix_ms: u64) -> Vec<Command> {
        let mut commands = Vec::new();
        for (service, old) in &self.spec.services {
            let (Some(seat), Some(state)) = (&old.seat, self.services.get(service)) else {
                continue;
            };
            if spec.nodes.contains_key(&seat.node) {
                continue;
            }
            let command = SeatCommand {
                node: seat.node.clone(),
                term: state.term().next(),
                earlier: Earlier::Gone,
                cause: Cause::Forced,
                reason: String::from("an operator said that the node is lost for good"),
                at_unix_ms,
            };
            let (service, expected) = (service.clone(), state.revision);
            let command = ServiceCommand::Seat(command);
            commands.push(Command::Service { service, expected, command });
        }
        commands
    }

    /// Why a configuration cannot follow this one: who owns what would be forgotten, while copies
    /// go by it.
    pub(super) fn divided_otherwise(&self, spec: &ClusterSpec) -> Option<&'static str> {
        self.services.iter().find_map(|(service, state)| {
            let (table, new) = (state.partitions.as_ref()?, spec.services.get(service)?);
            if new.partitions != Some(table.count()) {
                return Some("the partitions of a service that runs cannot change");
            }
            let data = |node: &NodeId| spec.data_nodes().any(|it| it == node);
            let mut owners = table.iter().filter_map(|(_, it)| it.owner.as_ref());
            let left = |owner: &Owner| {
                let seat = self.services.get(&Seat::name(service, &owner.node));
                !data(&owner.node) && seat.is_some_and(|seat| seat.sitting == owner.sitting)
            };
            owners.any(left).then_some("a node that would go owns partitions: drain it first")
        })
    }
}
