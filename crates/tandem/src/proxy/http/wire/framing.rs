//! Talks the framing of HTTP/1.1 bodies: finds where a body ends, and refuses what two readers
//! could read in two ways.
//! In: bytes as they come. Out: how many of them are the body's, to be sent on as they are.
//! States: Length → Done; Size → Data → DataEnd → Size …, Size 0 → Trailers → Done; Close.
//! Keeps: a chunk is hexadecimal digits and CRLF, nothing else: a bare LF, a sign, a space, a
//! number that overflows ends the connection; no trailer says how a message is framed or routed.
//! Not here: which framing a message has (`request.rs`, `response.rs`).
//! Tested by: below.

use super::fields::Field;

/// A line of chunk size with its extension, which is sent on and not looked at.
const SIZE_LINE_MAX: usize = 1024;
/// 16 digits are 64 bits.
const DIGITS_MAX: usize = 16;
/// All trailers of a message; a line of them fits into a buffer with room to spare.
const TRAILERS_MAX: usize = 8 * 1024;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// By a chunk of size 0.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Framing {
    pub(in crate::proxy::http) const fn has_content(self) -> bool {
        !matches!(self, Self::Empty | Self::Length(0))
    }
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum Bad {
    /// Its framing is broken, and how.
    Framing(&'static str),
    /// It is longer than may be.
    TooLong,
}

/// The next bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) struct Piece {
    /// So many, from the first on; 0: more have to come, or it is over.
    pub(in crate::proxy::http) length: usize,
    /// They are content, not framing.
    pub(in crate::proxy::http) is_content: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Size,
    Data(u64),
    DataEnd,
    /// How many bytes of trailers there were.
    Trailers(usize),
    Close,
    Done,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy::http) struct Body {
    state: State,
    /// How much more content a chunked body may have.
    room: u64,
}

impl Body {
    /// A chunked body may have at most `max` bytes of content.
    pub(in crate::proxy::http) const fn new(framing: Framing, max: u64) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::Close => State::Close,
        };
        Self { state, room: max }
    }

    pub(in crate::proxy::http) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The end of the connection is the end of the body.
    pub(in crate::proxy::http) fn ends_by_close(&self) -> bool {
        self.state == State::Close
    }

    /// What follows are trailers, and the line that ends them.
    pub(in crate::proxy::http) const fn is_in_trailers(&self) -> bool {
        matches!(self.state, State::Trailers(_))
    }

    /// Looks at what follows the pieces so far. The caller keeps what is not part of the piece, and
    /// asks again with more behind it.
    pub(in crate::proxy::http) fn next(&mut self, bytes: &[u8]) -> Result<Piece, Bad> {
        match self.state {
            State::Done => Ok(Piece { length: 0, is_content: false }),
            State::Close => Ok(Piece { length: bytes.len(), is_content: true }),
            State::Length(left) => {
                let (length, left) = take(left, bytes);
                self.state = if left == 0 { State::Done } else { State::Length(left) };
                Ok(Piece { length, is_content: true })
            }
            State::Data(left) => {
                let (length, left) = take(left, bytes);
                self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                Ok(Piece { length, is_content: true })
            }
            State::Size => self.size(bytes),
            State::DataEnd => {
                let length = match bytes {
                    [b'\r', b'\n', ..] => 2,
                    [] | [b'\r'] => 0,
                    _ => return Err(Bad::Framing("a chunk is longer than its size")),
                };
                if length > 0 {
                    self.state = State::Size;
                }
                Ok(Piece { length, is_content: false })
            }
            State::Trailers(seen) => self.trailer(seen, bytes),
        }
    }

    fn size(&mut self, bytes: &[u8]) -> Result<Piece, Bad> {
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > DIGITS_MAX {
            return Err(Bad::Framing("a chunk size has too many digits"));
        }
        if digits == 0 && !bytes.is_empty() {
            return Err(Bad::Framing("a chunk size is no number"));
        }
        if !matches!(bytes.get(digits), None | Some(b'\r' | b';')) {
            return Err(Bad::Framing("a chunk size is followed by something else"));
        }
        let Some(line) = line(bytes, SIZE_LINE_MAX)? else {
            return Ok(Piece { length: 0, is_content: false });
        };
        let digit = |byte: &u8| u64::from(char::from(*byte).to_digit(16).unwrap_or(0));
        let size = line[..digits].iter().fold(0, |size, byte| size << 4 | digit(byte));
        self.room = self.room.checked_sub(size).ok_or(Bad::TooLong)?;
        self.state = if size == 0 { State::Trailers(0) } else { State::Data(size) };
        Ok(Piece { length: line.len() + 2, is_content: false })
    }

    fn trailer(&mut self, seen: usize, bytes: &[u8]) -> Result<Piece, Bad> {
        let Some(line) = line(bytes, TRAILERS_MAX)? else {
            return Ok(Piece { length: 0, is_content: false });
        };
        let length = line.len() + 2;
        if seen + length > TRAILERS_MAX {
            return Err(Bad::Framing("trailers are too long"));
        }
        self.state = if line.is_empty() { State::Done } else { State::Trailers(seen + length) };
        if !line.is_empty() {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if name.len() == line.len() || name.is_empty() || !name.iter().all(is_token) {
                return Err(Bad::Framing("a trailer is no field"));
            }
            let is_refused = |name: &str| {
                Field::of(name) != Field::Other
                    || REFUSED_TRAILERS.iter().any(|refused| name.eq_ignore_ascii_case(refused))
            };
            if std::str::from_utf8(name).is_ok_and(is_refused) {
                return Err(Bad::Framing(
                    "a trailer may not say how a message is framed or routed",
                ));
            }
        }
        Ok(Piece { length, is_content: false })
    }
}

/// RFC 9110, 6.5.1: what a recipient acts on before it has read the body, beside the fields that
/// concern a proxy, and what looks like them.
const REFUSED_TRAILERS: &[&str] = &[
    "trailer",
    "authorization",
    "set-cookie",
    "content-encoding",
    "content-type",
    "content-range",
];

/// How many of the bytes belong to the `left` ones, and how many are left then.
fn take(left: u64, bytes: &[u8]) -> (usize, u64) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (here, left - here as u64)
}

/// A line without its CRLF; none if its end has not come.
fn line(bytes: &[u8], max: usize) -> Result<Option<&[u8]>, Bad> {
    let within = &bytes[..bytes.len().min(max)];
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    let Some(end) = within.iter().position(is_control) else {
        return match within.len() == max {
            true => Err(Bad::Framing("a line of a chunked body is too long")),
            false => Ok(None),
        };
    };
    match within[end..] {
        [b'\r', b'\n', ..] => Ok(Some(&within[..end])),
        [b'\r'] if within.len() < max => Ok(None),
        _ => Err(Bad::Framing("a line of a chunked body has a control character")),
    }
}

/// A character of a name or method.
pub(in crate::proxy::http) const fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(byte, b'^'..=b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content, and how many bytes the body takes; the pieces of `bytes` come `step` at a time.
    fn read(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Bad> {
        let mut body = Body::new(framing, 1_000_000);
        let (mut content, mut at, mut come) = (Vec::new(), 0, 0);
        loop {
            let piece = body.next(&bytes[at..come])?;
            if piece.is_content {
                content.extend_from_slice(&bytes[at..at + piece.length]);
            }
            at += piece.length;
            if body.is_done() || (piece.length == 0 && come == bytes.len()) {
                return Ok((content, at, body.is_done()));
            }
            if piece.length == 0 {
                come = (come + step).min(bytes.len());
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say_however_they_come() {
        let chunked =
            b"4\r\nWiki\r\nA;name=\"v;\"\r\n0123456789\r\n0\r\nDigest: x\r\nOther:\r\n\r\nGET";
        for step in 1..=chunked.len() {
            let read_all = read(Framing::Chunked, chunked, step).unwrap();
            assert_eq!(read_all, (b"Wiki0123456789".to_vec(), chunked.len() - 3, true), "{step}");
            let by_length = read(Framing::Length(5), b"12345678", step).unwrap();
            assert_eq!(by_length, (b"12345".to_vec(), 5, true));
            let short = read(Framing::Length(9), b"12345678", step).unwrap();
            assert_eq!(short, (b"12345678".to_vec(), 8, false));
            let close = read(Framing::Close, b"12345678", step).unwrap();
            assert_eq!(close, (b"12345678".to_vec(), 8, false));
        }
        assert!(Body::new(Framing::Length(0), 0).is_done());
        assert!(Body::new(Framing::Empty, 0).is_done());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let bad: &[&[u8]] = &[
            b"\r\n0\r\n\r\n",
            b" 4\r\nWiki\r\n",
            b"4 \r\nWiki\r\n",
            b"4\nWiki\r\n",
            b"4\rWiki\r\n",
            b"+4\r\nWiki\r\n",
            b"-4\r\nWiki\r\n",
            b"0x4\r\nWiki\r\n",
            b"G\r\nWiki\r\n",
            b"4\t;a\r\nWiki\r\n",
            b"4;a\nb\r\nWiki\r\n",
            b"4;a\rb\r\nWiki\r\n",
            b"4;a\0b\r\nWiki\r\n",
            b"10000000000000000\r\n",
            b"00000000000000004\r\nWiki\r\n",
            b"4\r\nWikiX\r\n",
            b"4\r\nWiki\n0\r\n\r\n",
            b"4\r\nWiki\r0\r\n\r\n",
            b"0\r\nContent-Length: 4\r\n\r\n",
            b"0\r\nTransfer-encoding: chunked\r\n\r\n",
            b"0\r\nHost : a\r\n\r\n",
            b"0\r\nno field\r\n\r\n",
            b"0\r\n: empty\r\n\r\n",
            b"0\r\na: b\n\r\n",
            b"0\r\n folded: b\r\n\r\n",
            b"0\r\nX-Real-IP: 192.0.2.1\r\n\r\n",
            b"0\r\nX-Forwarded-Port: 1\r\n\r\n",
            b"0\r\ncontent_length: 4\r\n\r\n",
            b"0\r\nx_forwarded_for: 192.0.2.1\r\n\r\n",
            b"0\r\n\n",
        ];
        for bytes in bad {
            for step in [1, 3, 1000] {
                let read = read(Framing::Chunked, bytes, step);
                assert!(
                    matches!(read, Err(Bad::Framing(_))),
                    "{:?} {read:?}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn bounds_hold_before_anything_is_kept() {
        let long = [b"4;".to_vec(), vec![b'a'; SIZE_LINE_MAX]].concat();
        assert!(matches!(read(Framing::Chunked, &long, 100), Err(Bad::Framing(_))));
        let trailers = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(TRAILERS_MAX / 6 + 1)].concat();
        assert!(matches!(read(Framing::Chunked, &trailers, 100), Err(Bad::Framing(_))));
        assert_eq!(read(Framing::Chunked, b"FFFFFFFFFFFFFFFF\r\n", 100), Err(Bad::TooLong));
        let chunks = b"80000\r\n".to_vec();
        let twice = [chunks.clone(), vec![0; 0x80000], b"\r\n".to_vec(), chunks].concat();
        assert_eq!(read(Framing::Chunked, &twice, 9_999), Err(Bad::TooLong));
    }
}
