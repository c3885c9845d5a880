//! Decides what a door must know of the stream from a server: where messages end, the cancel key,
//! how often it was ready again, and a commit that only this server has (H11).
//! In: the bytes, in pieces of any size. Out: `Seen`.
//! Keeps: H11, after the warning of `SyncRepWaitForLSN` nothing more is passed on. Memory does not
//! grow with a message: what is not looked at is counted down.
//! Not here: sockets (`relay.rs`). A session that sets `client_min_messages` to `error` hides the
//! warning from everyone, the door included: `scan.rs` refuses it.
//! Tested by: below, `tests/postgres.rs`.

use super::startup::{CANCEL_KEY_MAX, CancelKey};

const ROUTINE: &[u8] = b"SyncRepWaitForLSN";

/// A server sent something that is not the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a message of type {kind} with length {length}")]
pub(in crate::proxy) struct Violation {
    kind: u8,
    length: u32,
}

/// How much of the piece may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Seen {
    /// All of it.
    All,
    /// Up to here, where a message ends: its commit was not confirmed by any standby (H11).
    LocalCommit(usize),
}

/// Walks one stream from its first byte on. No `Debug`: it holds a cancel key for a moment.
pub(in crate::proxy) struct Walker {
    head: [u8; 5],
    head_len: usize,
    kind: u8,
    left: usize,
    last: u8,
    ready: bool,
    /// ReadyForQuery messages that nobody has asked about, without the one of the startup.
    answers: u32,
    key: Vec<u8>,
    routine: Routine,
}

impl Walker {
    pub(in crate::proxy) fn new() -> Self {
        Self {
            head: [0; 5],
            head_len: 0,
            kind: 0,
            left: 0,
            last: 0,
            ready: false,
            answers: 0,
            key: Vec::new(),
            routine: Routine::default(),
        }
    }

    /// Everything walked so far is whole messages.
    pub(in crate::proxy) fn at_boundary(&self) -> bool {
        self.left == 0 && self.head_len == 0
    }

    /// The startup phase is over.
    pub(in crate::proxy) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The last whole message was an ErrorResponse.
    pub(in crate::proxy) fn ended_in_error(&self) -> bool {
        self.last == b'E'
    }

    /// How often the server was ready again since the last call.
    pub(in crate::proxy) fn take_answers(&mut self) -> u32 {
        std::mem::take(&mut self.answers)
    }

    /// The cancel key, once, if it has come.
    pub(in crate::proxy) fn take_key(&mut self) -> Option<CancelKey> {
        let is_coming = self.kind == b'K' && self.left > 0;
        if self.key.is_empty() || is_coming {
            return None;
        }
        let key = std::mem::take(&mut self.key);
        let (process, secret) = key.split_first_chunk::<4>()?;
        Some(CancelKey { process: u32::from_be_bytes(*process), secret: secret.into() })
    }

    /// Walks the next piece.
    pub(in crate::proxy) fn feed(&mut self, bytes: &[u8]) -> Result<Seen, Violation> {
        let mut at = 0;
        loop {
            if self.left > 0 {
                let take = self.left.min(bytes.len() - at);
                self.body(&bytes[at..at + take]);
                at += take;
                self.left -= take;
                if self.left > 0 {
                    return Ok(Seen::All);
                }
                if self.finish() {
                    return Ok(Seen::LocalCommit(at));
                }
            }
            if self.head_len == 0
                && let Some(head) = bytes[at..].first_chunk::<5>()
            {
                self.head = *head;
                at += 5;
            } else {
                let (from, take) = (self.head_len, (5 - self.head_len).min(bytes.len() - at));
                self.head[from..from + take].copy_from_slice(&bytes[at..at + take]);
                at += take;
                self.head_len += take;
                if self.head_len < 5 {
                    return Ok(Seen::All);
                }
            }
            self.begin()?;
            if self.left == 0 && self.finish() {
                return Ok(Seen::LocalCommit(at));
            }
        }
    }

    fn begin(&mut self) -> Result<(), Violation> {
        let [kind, length @ ..] = self.head;
        let length = u32::from_be_bytes(length);
        if length < 4 || length > i32::MAX as u32 {
            return Err(Violation { kind, length });
        }
        self.head_len = 0;
        self.kind = kind;
        self.left = length as usize - 4;
        if kind == b'N' {
            self.routine = Routine::default();
        }
        Ok(())
    }

    fn body(&mut self, bytes: &[u8]) {
        if self.kind == b'N' {
            self.routine.feed(bytes);
        } else if self.kind == b'K' && !self.ready && self.key.len() + self.left <= KEY_MAX {
            self.key.extend_from_slice(bytes);
        }
    }

    /// A message ended; true if it was the warning.
    fn finish(&mut self) -> bool {
        self.last = self.kind;
        let is_ready = self.kind == b'Z';
        self.answers = self.answers.saturating_add(u32::from(self.ready && is_ready));
        self.ready |= is_ready;
        self.kind == b'N' && self.routine.is_sync_rep()
    }
}

const KEY_MAX: usize = 4 + CANCEL_KEY_MAX;

/// Finds the `R` field of a NoticeResponse. Its name is not translated, unlike the text, and not
/// something a user's RAISE can choose.
#[derive(Default)]
struct Routine {
    /// The field that is being read; 0 where a field begins.
    field: u8,
    /// How much of the name matched; none once it cannot.
    matched: Option<usize>,
    found: bool,
}

impl Routine {
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (self.field, *byte) {
                (0, tag) => {
                    self.field = tag;
                    self.matched = (tag == b'R').then_some(0);
                }
                (_, 0) => {
                    self.found |= self.matched == Some(ROUTINE.len());
                    self.field = 0;
                }
                (_, byte) => {
                    self.matched = self
                        .matched
                        .filter(|matched| ROUTINE.get(*matched) == Some(&byte))
                        .map(|matched| matched + 1);
                }
            }
        }
    }

    fn is_sync_rep(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn login() -> Vec<u8> {
        let key = message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]);
        [message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), key, message(b'Z', b"I")].concat()
    }

    #[test]
    fn every_split_gives_the_same_answers() {
        let bytes = login();
        for cut in 0..=bytes.len() {
            let mut walker = Walker::new();
            assert_eq!(walker.feed(&bytes[..cut]), Ok(Seen::All));
            assert_eq!(walker.is_ready(), cut == bytes.len());
            assert_eq!(walker.feed(&bytes[cut..]), Ok(Seen::All));
            assert!(walker.at_boundary() && walker.is_ready());
            let key = walker.take_key().unwrap();
            assert_eq!((key.process, &*key.secret), (7, &[1, 2, 3, 4][..]));
            assert!(walker.take_key().is_none());
        }
    }

    #[test]
    fn h11_the_warning_stops_the_stream_at_its_end_however_it_is_split() {
        let warning = message(b'N', b"SWARNUNG\0C01000\0Mabgebrochen\0RSyncRepWaitForLSN\0\0");
        let tail = [message(b'C', b"COMMIT\0"), message(b'Z', b"I")].concat();
        let bytes = [login(), message(b'C', b"INSERT 0 1\0"), warning, tail.clone()].concat();
        let end = bytes.len() - tail.len();
        for cut in 0..end {
            let mut walker = Walker::new();
            assert_eq!(walker.feed(&bytes[..cut]), Ok(Seen::All));
            assert_eq!(walker.feed(&bytes[cut..]), Ok(Seen::LocalCommit(end - cut)));
            assert!(walker.at_boundary());
        }
    }

    #[test]
    fn other_notices_pass_even_if_their_text_names_the_routine() {
        for body in [
            &b"MSyncRepWaitForLSN\0Rexec_stmt_raise\0\0"[..],
            b"MRSyncRepWaitForLSN\0\0",
            b"RSyncRepWaitForLSNx\0\0",
            b"RSyncRepWaitForLS\0\0",
            b"",
        ] {
            let bytes = message(b'N', body);
            assert_eq!(Walker::new().feed(&bytes), Ok(Seen::All), "{body:?}");
        }
    }

    #[test]
    fn a_huge_message_costs_no_memory_and_impossible_lengths_are_violations() {
        let mut walker = Walker::new();
        assert_eq!(
            walker.feed(&[b"N".as_slice(), &i32::MAX.to_be_bytes()].concat()),
            Ok(Seen::All)
        );
        for _ in 0..1000 {
            assert_eq!(walker.feed(&[b'x'; 16384]), Ok(Seen::All));
        }
        assert!(!walker.at_boundary() && walker.key.capacity() == 0);
        for length in [0u32, 3, 0x8000_0000, u32::MAX] {
            let bytes = [b"D".as_slice(), &length.to_be_bytes()].concat();
            assert!(Walker::new().feed(&bytes).is_err());
        }
    }

    #[test]
    fn a_key_is_there_whatever_has_begun_to_come_after_it() {
        let bytes = [login(), b"D\0\0\0\x09half".to_vec()].concat();
        let mut walker = Walker::new();
        assert_eq!(walker.feed(&bytes), Ok(Seen::All));
        assert_eq!(walker.take_key().unwrap().process, 7);
    }

    #[test]
    fn an_oversized_key_is_ignored() {
        let mut walker = Walker::new();
        walker.feed(&message(b'K', &[1; 4 + 257])).unwrap();
        assert!(walker.take_key().is_none());
        walker.feed(&message(b'K', &[1; 4 + 256])).unwrap();
        assert_eq!(walker.take_key().unwrap().secret.len(), 256);
    }
}
