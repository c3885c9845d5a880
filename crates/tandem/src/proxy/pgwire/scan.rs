//! Decides what a door must know of the stream from a client: whether a statement lowers what
//! commits wait for (H13) or hides the warning of a cancelled wait (H11), and how much of what was
//! sent is still to be answered.
//! In: the bytes after the startup packet, in pieces of any size. Out: `Asked`.
//! Keeps: of a refused message the last byte is never passed on, so that the server cannot begin
//! it. Memory does not grow with a message.
//! Costs: of most messages only the header is looked at; of all of them where nothing is refused,
//! since what is owed is counted everywhere (H43). Statements are searched for underscores with the
//! right neighbours; one that has the names, or that is longer than a piece, is read by `lex.rs`.
//! Not here: sockets (`relay.rs`); what counts as lowering (`recognise.rs`).
//! Tested by: below, `tests/set.rs`, `tests/postgres.rs`.

use super::arguments::Arguments;
use super::durability::Lowered;
use super::lex::Text;
use memchr::{memchr, memchr_iter};
use tandem_core::replication::primary_replica::settings::{
    CLIENT_MIN_MESSAGES, SYNCHRONOUS_COMMIT,
};

/// How much of the piece may be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Asked {
    /// All of it.
    All,
    /// Up to here, and nothing after it.
    Stop {
        at: usize,
        /// Here no message is cut, and the server may keep answers until it is told not to.
        flush: bool,
        /// What was asked for; none if what follows is not the protocol.
        lowered: Option<Lowered>,
    },
}

/// What of a message is looked at.
enum Look {
    Nothing,
    /// The name of a prepared statement, before the text.
    Name,
    /// Read only if need be.
    Statement(Option<Box<Text>>),
    Values(Box<Arguments>),
    /// The message is not to reach the server.
    Lowers(Lowered),
}

/// Scans one stream from its first byte on. No `Debug`: passwords pass through here.
pub(in crate::proxy) struct Scan {
    /// Statements are looked at; else only what is owed is counted.
    refuses: bool,
    head: [u8; 5],
    head_len: usize,
    left: usize,
    look: Look,
    /// A statement takes the name of a setting as an argument.
    armed: bool,
    /// ReadyForQuery messages that the server owes.
    owed: u32,
    /// Syncs since the last Execute: a COPY that this began ignores them.
    syncs: u32,
    /// Something was sent that no Sync has followed.
    open: bool,
}

impl Scan {
    /// Looks for statements that are to be refused, and counts what is owed.
    pub(in crate::proxy) fn refusing() -> Self {
        Self { refuses: true, ..Self::counting() }
    }

    /// Counts what is owed: statements may do as they like.
    pub(in crate::proxy) fn counting() -> Self {
        Self {
            refuses: false,
            head: [0; 5],
            head_len: 0,
            left: 0,
            look: Look::Nothing,
            armed: false,
            owed: 0,
            syncs: 0,
            open: false,
        }
    }

    /// Everything that was passed on has been answered.
    pub(in crate::proxy) fn is_settled(&self) -> bool {
        self.owed == 0 && !self.open
    }

    /// The server was ready again so many times.
    pub(in crate::proxy) fn answered(&mut self, times: u32) {
        self.owed = self.owed.saturating_sub(times);
    }

    /// Scans the next piece.
    pub(in crate::proxy) fn feed(&mut self, bytes: &[u8]) -> Asked {
        let mut at = 0;
        // Where in the piece the message begins, unless it began before.
        let mut start = None;
        loop {
            if self.left == 0 && self.head_len < 5 {
                if self.head_len == 0 {
                    start = Some(at);
                }
                let (from, take) = (self.head_len, (5 - self.head_len).min(bytes.len() - at));
                self.head[from..from + take].copy_from_slice(&bytes[at..at + take]);
                at += take;
                self.head_len += take;
                if self.head_len < 5 {
                    return Asked::All;
                }
                let [_, length @ ..] = self.head;
                let length = u32::from_be_bytes(length);
                if length < 4 || length > i32::MAX as u32 {
                    // The server gets to see it, and says what it thinks of it.
                    return Asked::Stop { at, flush: false, lowered: None };
                }
                self.left = length as usize - 4;
                self.look = self.begin();
            }
            let body = &bytes[at..at + self.left.min(bytes.len() - at)];
            at += body.len();
            self.left -= body.len();
            self.body(body);
            if self.left > 0 {
                return Asked::All;
            }
            if let Some(lowered) = self.finish() {
                let flush = start.is_some() && self.open;
                let (at, lowered) = (start.unwrap_or(0), Some(lowered));
                return Asked::Stop { at, flush, lowered };
            }
        }
    }

    fn kind(&self) -> u8 {
        self.head[0]
    }

    fn begin(&self) -> Look {
        match self.kind() {
            _ if !self.refuses => Look::Nothing,
            b'Q' => Look::Statement(None),
            b'P' => Look::Name,
            b'B' if self.armed => Look::Values(Box::new(Arguments::of_bind())),
            b'F' => Look::Values(Box::new(Arguments::of_call())),
            _ => Look::Nothing,
        }
    }

    fn body(&mut self, mut bytes: &[u8]) {
        if matches!(self.look, Look::Name) {
            let Some(end) = memchr(0, bytes) else { return };
            bytes = &bytes[end + 1..];
            self.look = Look::Statement(None);
        }
        let text = match &mut self.look {
            Look::Nothing | Look::Name | Look::Lowers(_) => return,
            Look::Values(values) => return values.feed(bytes),
            Look::Statement(text) => text,
        };
        // All of the text is here, and nothing in it is of interest.
        if text.is_none() && (bytes.is_empty() || self.left == 0 && !has_names(bytes)) {
            return;
        }
        let reading = text.get_or_insert_with(|| Box::new(Text::new(self.armed)));
        match memchr(0, bytes) {
            Some(end) => {
                reading.feed(&bytes[..end]);
                self.end_text();
            }
            None => reading.feed(bytes),
        }
    }

    /// What follows a text in its message are numbers.
    fn end_text(&mut self) {
        if let Look::Statement(Some(text)) = std::mem::replace(&mut self.look, Look::Nothing) {
            let (found, armed) = text.finish();
            self.armed |= armed;
            self.look = found.map_or(Look::Nothing, Look::Lowers);
        }
    }

    /// A message ended.
    fn finish(&mut self) -> Option<Lowered> {
        self.head_len = 0;
        if matches!(self.look, Look::Statement(_)) {
            self.end_text();
        }
        match std::mem::replace(&mut self.look, Look::Nothing) {
            Look::Lowers(lowered) => return Some(lowered),
            Look::Values(values) => {
                if let Some(setting) = values.found() {
                    return Some(Lowered { setting, value: None });
                }
            }
            Look::Nothing | Look::Name | Look::Statement(_) => {}
        }
        self.count();
        None
    }

    fn count(&mut self) {
        match self.kind() {
            b'Q' | b'F' => {
                self.owed = self.owed.saturating_add(1);
                (self.syncs, self.open) = (0, false);
            }
            b'S' => {
                self.owed = self.owed.saturating_add(1);
                (self.syncs, self.open) = (self.syncs.saturating_add(1), false);
            }
            b'E' => (self.syncs, self.open) = (0, true),
            b'P' | b'B' | b'D' | b'C' => self.open = true,
            // The end of a COPY. One that an Execute began is over with its next Sync.
            b'c' | b'f' => {
                self.owed = self.owed.saturating_sub(self.syncs);
                self.open |= self.syncs > 0;
                self.syncs = 0;
            }
            _ => {}
        }
    }
}

/// What may be a setting's name or take one, and where its first underscore is.
const NAMES: [(&[u8], usize); 4] = [
    (SYNCHRONOUS_COMMIT.name.as_bytes(), 11),
    (CLIENT_MIN_MESSAGES.name.as_bytes(), 6),
    (b"set_config", 3),
    (b"pg_settings", 2),
];

/// Whether a text is worth reading.
fn has_names(text: &[u8]) -> bool {
    memchr_iter(b'_', text).any(|at| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        let (Some(before), Some(after)) = (before, text.get(at + 1)) else { return false };
        // Cheap, and seldom true.
        matches!((before | 0x20, after | 0x20), (b's', b'c') | (b't', b'm' | b'c') | (b'g', b's'))
            && NAMES.iter().any(|(name, underscore)| {
                let from = at.checked_sub(*underscore);
                let found = from.and_then(|from| text.get(from..from + name.len()));
                found.is_some_and(|found| found.eq_ignore_ascii_case(name))
            })
    })
}

#[cfg(test)]
mod tests;
