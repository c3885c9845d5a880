//! Decides what a token of an SQL text says: its kind, its beginning, and whether it is a name.
//! In: bytes. Out: the token's text, where it is short enough to matter and can be read.
//! Not here: where tokens begin and end (`lex.rs`), what they mean together (`recognise.rs`).
//! Tested by: `recognise.rs`.

use super::durability::{Setting, setting};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword, a name, a number, a parameter.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A string.
    Literal,
    /// One byte of anything else.
    Symbol,
}

/// A token; `text` is none where it is too long to matter or cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: Option<&'a [u8]>,
}

impl Token<'_> {
    pub(super) fn is(&self, kind: Kind, text: &str) -> bool {
        self.kind == kind && self.text.is_some_and(|own| own.eq_ignore_ascii_case(text.as_bytes()))
    }

    /// It may name something, in quotes or not.
    pub(super) fn names(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::Quoted)
    }

    /// This name.
    pub(super) fn is_name(&self, text: &str) -> bool {
        self.names() && self.is(self.kind, text)
    }

    /// The setting that is named so.
    pub(super) fn setting(&self) -> Option<&'static Setting> {
        self.text.and_then(setting)
    }

    /// The setting, if this is a name and no string.
    pub(super) fn name(&self) -> Option<&'static Setting> {
        self.names().then(|| self.setting()).flatten()
    }

    pub(super) fn keeps(&self, setting: &Setting) -> bool {
        self.kind != Kind::Symbol && self.text.is_some_and(|text| setting.keeps(text))
    }
}

/// The beginning of a token.
#[derive(Clone, Copy)]
pub(super) struct Kept<const MAX: usize> {
    bytes: [u8; MAX],
    pub(super) len: usize,
    pub(super) unreadable: bool,
}

impl<const MAX: usize> Kept<MAX> {
    pub(super) const EMPTY: Self = Self { bytes: [0; MAX], len: 0, unreadable: false };

    pub(super) fn clear(&mut self) {
        (self.len, self.unreadable) = (0, false);
    }

    pub(super) fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.len) {
            Some(place) => {
                *place = byte;
                self.len += 1;
            }
            None => self.unreadable = true,
        }
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let take = bytes.len().min(MAX - self.len);
        self.bytes[self.len..self.len + take].copy_from_slice(&bytes[..take]);
        self.len += take;
        self.unreadable |= take < bytes.len();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn text(&self) -> Option<&[u8]> {
        (!self.unreadable).then(|| self.bytes())
    }
}
