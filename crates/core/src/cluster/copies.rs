//! Folds agreed commands about copies that run side by side into the state of their service.
//! In: `Placed`. Out: `Copies`.
//! Not here: which nodes are chosen, and whose turn it is (`clustering/copies`).
//! Tested by: `clustering/copies/tests.rs`.

use super::state::{Applied, HISTORY_MAX, ignored};
use crate::ids::{NodeId, Term};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Where copies of a command run side by side, and whose turn it is to start anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
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

impl Copies {
    pub(super) fn place(&mut self, line: Placed) -> Applied {
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
