//! Talks to what is at work in a drilled service, whichever way that is seen: by clients that are
//! answered, or, where nobody asks for anything, by what its copies write down.
//! In: doors or a ledger. Out: how much went well and when, `History`.
//! Not here: clients (`clients.rs`), lines of divided work (`pieces.rs`).
//! Tested by: its two parts.

use super::clients::Clients;
use super::pieces::Pieces;
use crate::drill::evidence::history::History;
use tandem_core::time::Timestamp;

/// Whether it works.
#[derive(Debug)]
pub enum Pulse {
    /// Clients are answered.
    Answers(Clients),
    /// Every partition is worked on.
    Work(Pieces),
}

impl Pulse {
    /// How much went well so far.
    pub fn acked(&self) -> u64 {
        match self {
            Self::Answers(clients) => clients.acked(),
            Self::Work(pieces) => pieces.done(),
        }
    }

    /// When that last was so, of every part of it.
    pub fn last_acked(&self) -> Timestamp {
        match self {
            Self::Answers(clients) => clients.last_acked(),
            Self::Work(pieces) => pieces.last(),
        }
    }

    /// How much of divided work somebody has.
    pub fn share(&self, name: &str) -> usize {
        match self {
            Self::Answers(_) => 0,
            Self::Work(pieces) => pieces.share(name),
        }
    }

    /// Ends it, and hands over what clients saw, if there are any.
    pub async fn stop(self) -> History {
        match self {
            Self::Answers(clients) => clients.stop().await,
            Self::Work(pieces) => {
                pieces.stop().await;
                History::default()
            }
        }
    }
}
