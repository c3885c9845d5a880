//! Talks the heads of HTTP/1 responses: reads what an endpoint wrote.
//! In: bytes. Out: `Head`, or that it is none.
//! Keeps: an endpoint is trusted to answer, not to frame: what two readers could read in two ways
//! would give one client the answer of another, and is refused like a broken connection.
//! Not here: what is sent on (`rewrite.rs`), the body (`framing.rs`).
//! Tested by: below, and `tests/`.

use super::fields::{self, Field};
use super::framing::Framing;
use super::request;
use httparse::{Header, Status};
use std::mem::MaybeUninit;

/// More interim heads before a response are no hints.
pub(in crate::proxy::http) const INTERIM_MAX: u32 = 16;

/// A head that is none, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) struct Bad(pub(in crate::proxy::http) &'static str);

/// The head of a response.
#[derive(Debug)]
pub(in crate::proxy::http) struct Head<'a, 'b> {
    pub(in crate::proxy::http) status: u16,
    pub(in crate::proxy::http) reason: &'b str,
    pub(in crate::proxy::http) fields: &'a [Header<'b>],
    pub(in crate::proxy::http) framing: Framing,
    /// The connection may be used again, as far as the endpoint says.
    pub(in crate::proxy::http) keep_alive: bool,
    /// How long the head is.
    pub(in crate::proxy::http) length: usize,
}

impl Head<'_, '_> {
    /// Another head follows.
    pub(in crate::proxy::http) const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Reads a head; none if its end has not come. `kind` is of the request.
pub(in crate::proxy::http) fn read<'a, 'b>(
    bytes: &'b [u8],
    room: &'a mut [MaybeUninit<Header<'b>>],
    kind: request::Method,
) -> Result<Option<Head<'a, 'b>>, Bad> {
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, room) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Bad("it has too many fields")),
        Err(_) => return Err(Bad("its head is not HTTP/1")),
    };
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Bad("its status line is not complete"));
    };
    let fields: &'a [Header<'b>] = parsed.headers;
    if fields::has_bare_line_feed(&bytes[..length]) {
        return Err(Bad("a line of its head ends without CR"));
    }
    if !(100..=599).contains(&status) {
        return Err(Bad("its status is none"));
    }
    let (mut content_length, mut chunked, mut close) = (None, false, minor == 0);
    let mut options = 0;
    for field in fields {
        match Field::of(field.name) {
            Field::ContentLength => {
                let length = fields::length(field.value);
                let length = length.ok_or(Bad("its Content-Length is no number"))?;
                if content_length.replace(length).is_some_and(|before| before != length) {
                    return Err(Bad("it has two lengths"));
                }
            }
            Field::TransferEncoding => {
                if chunked || minor == 0 || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Bad("its Transfer-Encoding is not just chunked"));
                }
                chunked = true;
            }
            Field::Connection => {
                options += fields::list(field.value).count();
                close |= fields::list(field.value).any(|it| it.eq_ignore_ascii_case(b"close"));
            }
            _ => {}
        }
    }
    if options > fields::OPTIONS_MAX {
        return Err(Bad("its Connection has too many words"));
    }
    let bodiless = kind == request::Method::Head || matches!(status, 100..=199 | 204 | 304);
    let framing = match (chunked, content_length) {
        (true, Some(_)) => return Err(Bad("it has a length and a transfer coding")),
        _ if bodiless => Framing::Empty,
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Close,
    };
    let reason = parsed.reason.unwrap_or_default();
    let keep_alive = !close && framing != Framing::Close;
    Ok(Some(Head { status, reason, fields, framing, keep_alive, length }))
}

#[cfg(test)]
mod tests {
    use super::super::request::{Method, no_fields};
    use super::*;

    fn framing(bytes: &[u8], kind: Method) -> Result<Option<(u16, Framing, bool)>, Bad> {
        let mut room = no_fields();
        let head = read(bytes, &mut room, kind)?;
        Ok(head.map(|head| (head.status, head.framing, head.keep_alive)))
    }

    #[test]
    fn the_end_of_a_body_follows_from_head_and_request() {
        let ask = |bytes: &[u8]| framing(bytes, Method::Other).unwrap().unwrap();
        assert_eq!(
            ask(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n"),
            (200, Framing::Length(5), true)
        );
        assert_eq!(
            ask(b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\nConnection: a, CLOSE\r\n\r\n"),
            (200, Framing::Chunked, false)
        );
        assert_eq!(ask(b"HTTP/1.1 200 OK\r\n\r\n"), (200, Framing::Close, false));
        assert!(!ask(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n").2);
        assert_eq!(ask(b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n").1, Framing::Empty);
        assert_eq!(ask(b"HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n").1, Framing::Empty);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(head, Method::Head), Ok(Some((200, Framing::Empty, true))));
        for cut in 0..head.len() {
            assert_eq!(framing(&head[..cut], Method::Head), Ok(None));
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let bad: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 600 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
        ];
        for bytes in bad {
            let read = framing(bytes, Method::Other);
            assert!(read.is_err(), "{} {read:?}", bytes.escape_ascii());
        }
    }
}
