//! Talks HTTP/1.1 as bytes, and does nothing else: no socket, no clock, no state between messages.
//! In: bytes. Out: heads and bodies that are understood, or why they are not; heads that go on.
//! Not here: where bytes come from and go to (`transfer.rs`, `session.rs`).

pub(super) mod fields;
pub(super) mod framing;
pub(super) mod request;
pub(super) mod response;
pub(super) mod rewrite;
