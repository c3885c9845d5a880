//! Folds agreed commands about copies that run side by side into the state of their service.
//! In: `CopiesCommand`. Out: `Copies`.
//! Not here: which nodes are chosen, and whose turn it is (`clustering/copies`).
//! Tested by: `clustering/copies/tests.rs`.

use super::state::{Applied, HISTORY_MAX, ignored};
use crate::ids::{NodeId, Term};
use crate::reason::list;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Where copies of a command run side by side, and whose turn it is to start anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// The nodes chosen; empty where every data node has a copy, or before the first choice.
    pub nodes: BTreeSet<NodeId>,
    /// What was started for less is started anew, one node at a time.
    pub term: Term,
    /// Whose turn it is.
    pub turn: Option<NodeId>,
    /// Past and present choices, oldest first, at most `HISTORY_MAX`.
    pub placed: Vec<Placed>,
}

impl Default for Copies {
    fn default() -> Self {
        // A copy that was started for nothing has been started for less than the first round.
        Self { nodes: BTreeSet::new(), term: Term(1), turn: None, placed: Vec::new() }
    }
}

/// One choice of nodes for copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Where.
    pub nodes: BTreeSet<NodeId>,
    /// The controller's words, with numbers.
    pub reason: String,
    /// When decided, milliseconds since 1970 on the controller's clock.
    pub at_unix_ms: u64,
}

/// What can be agreed about copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopiesCommand {
    /// They shall run there, and nowhere else.
    Place {
        /// Where.
        nodes: BTreeSet<NodeId>,
        /// Why, in words with numbers.
        reason: String,
        /// Milliseconds since 1970 on the controller's clock.
        at_unix_ms: u64,
    },
    /// That node's copy may end, to start anew; none: nobody's may.
    GiveTurn {
        /// Whose turn it is.
        to: Option<NodeId>,
    },
    /// Start every copy anew, one node at a time.
    Restart,
}

impl fmt::Display for CopiesCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { nodes, .. } => write!(f, "place copies on {}", list(nodes)),
            Self::GiveTurn { to: Some(to) } => write!(f, "let {to} start its copy anew"),
            Self::GiveTurn { to: None } => f.write_str("end the round of restarts"),
            Self::Restart => f.write_str("start every copy anew"),
        }
    }
}

impl Copies {
    pub(super) fn apply(&mut self, command: &CopiesCommand) -> Applied {
        match command {
            CopiesCommand::Place { nodes, reason, at_unix_ms } => {
                let (nodes, reason) = (nodes.clone(), reason.clone());
                self.place(Placed { nodes, reason, at_unix_ms: *at_unix_ms })
            }
            CopiesCommand::GiveTurn { to } if self.turn == *to => ignored("already so"),
            CopiesCommand::GiveTurn { to } => {
                self.turn = to.clone();
                Applied::Changed
            }
            CopiesCommand::Restart => {
                self.term = self.term.next();
                Applied::Changed
            }
        }
    }

    fn place(&mut self, line: Placed) -> Applied {
        if self.nodes == line.nodes {
            return ignored("already so");
        }
        self.nodes = line.nodes.clone();
        self.turn = self.turn.take().filter(|node| self.nodes.contains(node));
        self.placed.push(line);
        let excess = self.placed.len().saturating_sub(HISTORY_MAX);
        self.placed.drain(..excess);
        Applied::Changed
    }
}
