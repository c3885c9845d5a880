//! Decides which of two things that one node said came first.
//! In: both. Out: whether one was before the other.
//! Tested by: `facts.rs`.

use serde::{Deserialize, Serialize};

/// Orders what one node says: an answer that was delayed on its way must not undo newer facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Tells one run of the node's daemon from another.
    pub start: u64,
    /// Grows with all that this run says.
    pub number: u64,
}

impl Told {
    /// Whether this was said before `known`. Of two runs the one heard last counts: the
    /// connections of an earlier one ended with it.
    pub const fn is_before(&self, known: &Self) -> bool {
        self.start == known.start && self.number < known.number
    }
}
