//! Keeps what of a request is gone until the owner of its partition takes it.
//! In: bodies on their way, statuses. Out: the same bytes, unread again.
//! States: kept → (taken, or not to be sent twice) gone; kept → (421) unread, for the next owner.
//! Keeps: H43 only what the owner said it did nothing with is sent once more. What is kept has a
//! bound; a body beyond it is not, and its client is told of a 421.
//! Not here: who is asked next (`balancer/owners`).
//! Tested by: `tests/owners/mod.rs`.

use super::{Terms, Transfer};
use crate::proxy::http::session::Client;
use crate::proxy::http::stream::{BUFFER, Buffer};

/// So much of a body is kept.
const KEPT_BYTES_MAX: usize = BUFFER;
/// The owner is somebody else (RFC 9110, 15.5.20).
const MISDIRECTED: u16 = 421;

/// What of a body is gone and may have to be sent once more. No `Debug`: passwords pass through
/// here.
#[derive(Default)]
pub(in crate::proxy::http) struct Kept {
    bytes: Vec<u8>,
    is_lost: bool,
}

impl Kept {
    /// Nothing is gone.
    pub(super) fn begin(&mut self) {
        self.bytes.clear();
        self.is_lost = false;
    }

    /// All of it is unread again; false if there was too much of it.
    pub(super) fn gives_back(&mut self, to: &mut Buffer) -> bool {
        if !self.is_lost {
            to.give_back(&self.bytes);
            self.bytes.clear();
        }
        !self.is_lost
    }
}

/// Whether the owner turned a request away, by the status of its answer. Others hear of it.
pub(super) fn is_turned_away(terms: Terms<'_>, status: u16) -> bool {
    let Some((group, routed)) = terms.routed else { return false };
    if status == MISDIRECTED {
        group.misdirected(routed);
    } else {
        group.taken(routed);
    }
    status == MISDIRECTED
}

impl Transfer<'_> {
    /// Keeps what is about to be gone where an owner may not take it.
    pub(super) fn keep(&mut self, length: usize) {
        if self.terms.routed.is_none() || self.status.is_some() {
            return;
        }
        let Client { input, kept, .. } = &mut *self.client;
        if kept.is_lost || kept.bytes.len() + length > KEPT_BYTES_MAX {
            *kept = Kept { bytes: Vec::new(), is_lost: true };
        } else {
            kept.bytes.extend_from_slice(&input.unread()[..length]);
        }
    }
}
