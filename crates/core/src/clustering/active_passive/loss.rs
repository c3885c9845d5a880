//! Decides how much would be lost if a copy took over from the primary, as far as that is known.
//! In: what nodes told, and when. Out: `Loss` in bytes and in time, or why it is not known.
//! Keeps: H1 unknown is a state of its own, and no number is made up for it; INV-11 what counts is
//! the furthest that the primary told anyone who can be asked, this node or another.
//! Not here: what is too much (`election.rs`), how moments are kept (`trail.rs`).
//! Tested by: the scenarios `async_*.txt`, the simulator's mutations of both bounds.

use super::controller::ControllerView;
use super::trail::Trail;
use crate::facts::{Position, Process, ToldEnd};
use crate::ids::{NodeId, Term};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// What would be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Bytes of the log.
    pub bytes: u64,
    /// The time in which that was written; none if nobody here knows since when.
    pub lasted: Option<Duration>,
}

/// Why it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The primary told nobody who can be asked how far it had come.
    End(NodeId),
    /// The copy lacks what this term began with: its log may have gone another way before that, so
    /// positions cannot be compared.
    Term(Term),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End(primary) => {
                write!(f, "how far {primary} had come is not known here, so neither is the loss")
            }
            Self::Term(term) => write!(
                f,
                "the best lacks what term {term} began with, so how much of it is missing is not \
                 known"
            ),
        }
    }
}

/// What a copy that has come to `best` lacks of what `primary` told.
///
/// # Errors
/// Says why that is not known.
pub fn loss(view: &ControllerView<'_>, primary: &NodeId, best: Position) -> Result<Loss, Unknown> {
    let trail = view.trails.of(primary);
    let others = view.facts.values().filter_map(|facts| {
        facts.last_known().instances.get(view.service)?.ends.get(primary).copied()
    });
    let told: Vec<ToldEnd> = others.chain(trail.and_then(Trail::end)).collect();
    // What a stopped one said last counts for how far, not for when: it writes nothing any more.
    let ends = told.iter().map(|told| told.position).chain(last_told(view, primary));
    let end = ends.max().ok_or_else(|| Unknown::End(primary.clone()))?;
    if best.data_term < end.data_term {
        return Err(Unknown::Term(end.data_term));
    }
    let bytes = end.flushed.bytes_ahead_of(best.flushed);
    if bytes == 0 {
        return Ok(Loss { bytes, lasted: Some(Duration::ZERO) });
    }
    Ok(Loss { bytes, lasted: trail.and_then(|trail| lasted(trail, &told, best)) })
}

/// From the last moment at which `best` was all there was to the last at which there was more.
fn lasted(trail: &Trail, told: &[ToldEnd], best: Position) -> Option<Duration> {
    let (since, run) = (trail.whole_until(best)?, trail.end()?.run);
    let mut until = since;
    for more in told.iter().filter(|told| told.position > best) {
        // Moments of two runs of the primary's daemon have no distance.
        if more.run != run {
            return None;
        }
        until = until.max(more.at);
    }
    // What only its facts say, once it had ended, is the rest of its last moment.
    Some(until.since(since))
}

/// What its facts said last, where that is an end: of a server that ended uncleanly, or is
/// recovering, the files name a checkpoint, and how far it had come lies behind that.
fn last_told(view: &ControllerView<'_>, primary: &NodeId) -> Option<Position> {
    let last = view.facts.get(primary)?.last_known().instances.get(view.service)?;
    let position = Position { data_term: last.data_term, flushed: last.flushed };
    let is_end = match last.process {
        Process::Primary | Process::Promoting | Process::Stopping => true,
        Process::Stopped => last.stopped_cleanly,
        Process::Starting | Process::Standby => last.ballot.is_some(),
    };
    last.system.filter(|_| is_end).map(|_| position)
}
