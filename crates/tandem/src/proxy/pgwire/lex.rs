//! Decides where the tokens of an SQL text are, as PostgreSQL's scanner does, byte by byte.
//! In: a text in pieces of any size. Out: tokens to a `Recogniser`, and its finding at the end.
//! Keeps: memory does not grow with the text: of a token only its beginning is kept. A literal
//! whose statement runs it (a body, EXECUTE) is a text of its own, read by a scanner of its own.
//! Not here: what the tokens mean (`recognise.rs`). `standard_conforming_strings` is taken to be
//! on; what a backslash in `U&'…'` or a number behind one stands for is not worked out.
//! Tested by: `recognise.rs`, `scan.rs`.

use super::durability::Lowered;
use super::recognise::Recogniser;
use super::token::{Kept, Kind, Token};
use memchr::{memchr, memchr2};

/// Longer than every name and value that counts.
const KEPT: usize = 24;
/// PostgreSQL has no limit; nobody writes longer tags than names may be.
const TAG_MAX: usize = 64;
/// A body, its EXECUTE, and a function that this makes. Deeper texts are data.
const DEPTH_MAX: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Word,
    /// Behind `U&`.
    Unicode,
    Quoted,
    /// Behind a `"` within a quoted name: its end, or half of a doubled one.
    QuotedEnd,
    Literal,
    /// Behind a `'` within a literal.
    LiteralEnd,
    /// Behind a literal that goes on with the next `'`, if it is on another line.
    Gap {
        newline: bool,
    },
    /// Behind a `-` there.
    GapDash,
    /// Within a comment there.
    GapComment,
    /// Behind a backslash within `E'…'`.
    Escape,
    /// Within `$tag`.
    Tag,
    /// Within `$tag$ … $tag$`.
    Dollar,
    Dash,
    LineComment,
    Slash,
    BlockComment {
        depth: u32,
        last: u8,
    },
}

/// One text.
pub(super) struct Text {
    state: State,
    token: Kept<KEPT>,
    escapes: bool,
    /// Behind `U&`: a backslash stands for something else.
    encoded: bool,
    tag: Kept<TAG_MAX>,
    /// How much of what may be the closing tag has come.
    matched: usize,
    depth: u8,
    recogniser: Recogniser,
    /// The literal that is being read, if its statement runs it.
    inner: Option<Box<Text>>,
}

impl Text {
    /// A client's text. `armed`: see `Recogniser::new`.
    pub(super) fn new(armed: bool) -> Self {
        Self::at(0, armed)
    }

    fn at(depth: u8, armed: bool) -> Self {
        Self {
            state: State::Between,
            token: Kept::EMPTY,
            escapes: false,
            encoded: false,
            tag: Kept::EMPTY,
            matched: 0,
            depth,
            recogniser: Recogniser::new(depth > 0, armed),
            inner: None,
        }
    }

    /// Reads the next piece.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            bytes = &bytes[self.run(bytes)..];
            let Some((byte, rest)) = bytes.split_first() else { return };
            self.push(*byte);
            bytes = rest;
        }
    }

    /// Nothing more comes. What it found, and whether the session is armed now.
    pub(super) fn finish(mut self) -> (Option<Lowered>, bool) {
        // White space ends whatever can end here; what cannot is an error to the server as well.
        self.push(b' ');
        if matches!(self.state, State::Gap { .. } | State::GapComment) {
            self.end_literal();
        }
        self.recogniser.finish()
    }

    /// Reads at once what `push` would read byte by byte; bulk data is long. How much that was.
    fn run(&mut self, bytes: &[u8]) -> usize {
        let data = self.inner.is_none();
        let end = match self.state {
            State::Word => bytes.iter().position(|byte| !is_word(*byte)),
            State::Literal if data && !self.escapes => memchr(b'\'', bytes),
            State::Dollar if data && self.matched == 0 => memchr(b'$', bytes),
            State::Between if self.recogniser.is_waiting() => {
                let skipped = bytes.iter().position(|byte| !says_nothing(*byte));
                return skipped.unwrap_or(bytes.len());
            }
            State::LineComment | State::GapComment => {
                return memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
            }
            State::Between
            | State::Unicode
            | State::Quoted
            | State::QuotedEnd
            | State::Literal
            | State::LiteralEnd
            | State::Gap { .. }
            | State::GapDash
            | State::Escape
            | State::Tag
            | State::Dollar
            | State::Dash
            | State::Slash
            | State::BlockComment { .. } => return 0,
        };
        let end = end.unwrap_or(bytes.len());
        self.token.extend(&bytes[..end]);
        end
    }

    fn push(&mut self, byte: u8) {
        match self.state {
            State::Between => self.begin(byte),
            State::Word if is_word(byte) => self.token.push(byte),
            State::Word => self.end_word(byte),
            State::Unicode => self.unicode(byte),
            State::Quoted if byte == b'"' => self.state = State::QuotedEnd,
            State::Quoted => self.token.push(byte),
            State::QuotedEnd if byte == b'"' => {
                self.token.push(byte);
                self.state = State::Quoted;
            }
            State::QuotedEnd => {
                self.emit(Kind::Quoted);
                self.begin(byte);
            }
            State::Literal if byte == b'\'' => self.state = State::LiteralEnd,
            State::Literal if byte == b'\\' && self.escapes => self.state = State::Escape,
            State::Literal => self.content(byte),
            State::LiteralEnd if byte == b'\'' => {
                self.content(byte);
                self.state = State::Literal;
            }
            State::LiteralEnd => self.gap(byte, false),
            State::Gap { newline } => self.gap(byte, newline),
            State::GapDash if byte == b'-' => self.state = State::GapComment,
            State::GapDash => {
                self.end_literal();
                self.symbol_then(b'-', byte);
            }
            State::GapComment if is_newline(byte) => self.state = State::Gap { newline: true },
            State::GapComment => {}
            State::Escape => self.escape(byte),
            State::Tag => self.tag(byte),
            State::Dollar => self.dollar(byte),
            State::Dash if byte == b'-' => self.state = State::LineComment,
            State::Dash => self.symbol_then(b'-', byte),
            State::LineComment if is_newline(byte) => self.state = State::Between,
            State::LineComment => {}
            State::Slash if byte == b'*' => {
                self.state = State::BlockComment { depth: 1, last: 0 };
            }
            State::Slash => self.symbol_then(b'/', byte),
            State::BlockComment { depth, last } => self.state = block_comment(depth, last, byte),
        }
    }

    /// A byte where a token may begin.
    fn begin(&mut self, byte: u8) {
        self.token.clear();
        self.state = match byte {
            b'\'' => return self.begin_literal(false),
            b'"' => State::Quoted,
            b'$' => {
                self.tag.clear();
                self.tag.push(byte);
                State::Tag
            }
            b'-' => State::Dash,
            b'/' => State::Slash,
            _ if is_word(byte) => {
                self.token.push(byte);
                State::Word
            }
            _ if is_space(byte) => State::Between,
            _ => return self.symbol(byte),
        };
    }

    /// `E'…'` and `U&'…'` belong together; what comes behind any other word does not.
    fn end_word(&mut self, byte: u8) {
        match (self.token.bytes(), byte) {
            (b"e" | b"E", b'\'') => self.begin_literal(true),
            (b"u" | b"U", b'&') => self.state = State::Unicode,
            _ => {
                self.emit(Kind::Word);
                self.begin(byte);
            }
        }
    }

    fn unicode(&mut self, byte: u8) {
        match byte {
            b'\'' => self.begin_literal(false),
            b'"' => {
                self.token.clear();
                self.state = State::Quoted;
            }
            _ => {
                self.emit(Kind::Word);
                return self.symbol_then(b'&', byte);
            }
        }
        self.encoded = true;
    }

    fn begin_literal(&mut self, escapes: bool) {
        self.token.clear();
        self.escapes = escapes;
        self.state = State::Literal;
        if self.depth < DEPTH_MAX && self.recogniser.runs_literals() {
            self.inner = Some(Box::new(Self::at(self.depth + 1, self.recogniser.is_armed())));
        }
    }

    /// Behind a literal. One of any kind goes on as what it was behind white space with a newline,
    /// and comments to the end of a line are white space.
    fn gap(&mut self, byte: u8, newline: bool) {
        self.state = match byte {
            b'\'' if newline => State::Literal,
            b'-' => State::GapDash,
            _ if is_space(byte) => State::Gap { newline: newline || is_newline(byte) },
            _ => {
                self.end_literal();
                return self.begin(byte);
            }
        };
    }

    fn content(&mut self, byte: u8) {
        self.token.push(byte);
        if let Some(inner) = &mut self.inner {
            inner.push(byte);
        }
    }

    fn escape(&mut self, byte: u8) {
        self.state = State::Literal;
        match byte {
            b'n' | b'r' | b't' | b'b' | b'f' => self.content(b'\n'),
            b'x' | b'u' | b'U' | b'0'..=b'7' => {
                self.content(b'?');
                self.token.unreadable = true;
            }
            other => self.content(other),
        }
    }

    fn end_literal(&mut self) {
        if let Some(inner) = self.inner.take() {
            let (found, armed) = inner.finish();
            self.recogniser.heard(found, armed);
        }
        self.emit(Kind::Literal);
    }

    fn tag(&mut self, byte: u8) {
        let first = self.tag.len == 1;
        if byte == b'$' && !self.tag.unreadable {
            self.tag.push(byte);
            self.begin_literal(false);
            self.matched = 0;
            self.state = State::Dollar;
        } else if first && byte.is_ascii_digit() {
            self.token.push(b'$');
            self.token.push(byte);
            self.state = State::Word;
        } else if is_word(byte) && byte != b'$' {
            self.tag.push(byte);
            // Room for the closing one.
            self.tag.unreadable |= self.tag.len == TAG_MAX;
        } else {
            self.symbol_then(b'$', byte);
        }
    }

    fn dollar(&mut self, byte: u8) {
        let tag = self.tag;
        if tag.bytes().get(self.matched) == Some(&byte) {
            self.matched += 1;
            if self.matched == tag.len {
                self.end_literal();
            }
            return;
        }
        for held in &tag.bytes()[..self.matched] {
            self.content(*held);
        }
        self.matched = usize::from(byte == b'$');
        if self.matched == 0 {
            self.content(byte);
        }
    }

    fn symbol_then(&mut self, symbol: u8, byte: u8) {
        self.symbol(symbol);
        self.begin(byte);
    }

    fn symbol(&mut self, symbol: u8) {
        self.token.clear();
        self.token.push(symbol);
        self.emit(Kind::Symbol);
    }

    fn emit(&mut self, kind: Kind) {
        let encoded = std::mem::take(&mut self.encoded) && self.token.bytes().contains(&b'\\');
        let text = self.token.text().filter(|_| !encoded);
        self.recogniser.token(Token { kind, text });
        self.token.clear();
        self.state = State::Between;
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// A number, white space, or what stands between values: most of bulk data. To a recogniser that
/// waits, tokens of these mean nothing.
fn says_nothing(byte: u8) -> bool {
    byte.is_ascii_digit()
        || byte.is_ascii_whitespace()
        || matches!(byte, b',' | b'(' | b')' | b'.' | b'=' | b'<' | b'>' | b'*' | b'+' | b':')
}

fn block_comment(depth: u32, last: u8, byte: u8) -> State {
    let (depth, last) = match (last, byte) {
        (b'/', b'*') => (depth.saturating_add(1), 0),
        (b'*', b'/') => (depth - 1, 0),
        _ => (depth, byte),
    };
    if depth == 0 { State::Between } else { State::BlockComment { depth, last } }
}
