//! Talks a body to one stream of HTTP/2: takes it as HTTP/1.1 writes it, and sends what it means.
//! In: whole pieces of a body. Out: DATA, trailers, the end of the stream.
//! Keeps: bytes are taken only as the other side gives room for them, and no more than
//! `SEND_MAX` of them wait for the connection; a body that ends too soon never ends a stream well.
//! Not here: heads (`head.rs`), what is read (`incoming.rs`).
//! Tested by: `tests/h2/streams.rs`.

use super::broken;
use crate::proxy::http::wire::framing::{Body, Framing, Piece};
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::io;
use std::task::{Context, Poll, ready};

/// Bytes of one stream that wait for the connection.
pub(super) const SEND_MAX: usize = 32 * 1024;

/// The way out of one stream.
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    body: Body,
    trailers: HeaderMap,
    has_ended: bool,
}

impl Outgoing {
    /// `has_ended`: its head was all of it.
    pub(super) fn new(stream: SendStream<Bytes>, framing: Framing, has_ended: bool) -> Self {
        let body = Body::new(framing, u64::MAX);
        Self { stream, body, trailers: HeaderMap::new(), has_ended }
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes some of the bytes, at least one.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            let mut after = self.body;
            let piece = after.next(rest).map_err(|_| io::ErrorKind::InvalidData)?;
            if piece.length == 0 {
                // What comes here was looked at before: it has no half lines, and nothing after it.
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if piece.is_content {
                match self.poll_content(cx, &rest[..piece.length]) {
                    Poll::Ready(sent) => taken += sent?,
                    Poll::Pending if taken > 0 => break,
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                self.line(&rest[..piece.length])?;
                self.body = after;
                taken += piece.length;
                if self.body.is_done() {
                    self.end().map_err(broken)?;
                }
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_content(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wanted = bytes.len().min(SEND_MAX);
        self.stream.reserve_capacity(wanted);
        let mut room = self.stream.capacity();
        while room == 0 {
            room = match ready!(self.stream.poll_capacity(cx)) {
                Some(room) => room.map_err(broken)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let now = &bytes[..wanted.min(room)];
        let Ok(Piece { length, .. }) = self.body.next(now) else {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        self.has_ended = self.body.is_done();
        let data = Bytes::copy_from_slice(&now[..length]);
        self.stream.send_data(data, self.has_ended).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    /// Keeps a trailer, if the line is one.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        if !self.body.is_in_trailers() || line.is_empty() {
            return Ok(());
        }
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(at + 1..).unwrap_or_default().trim_ascii();
        let name = HeaderName::from_bytes(&line[..at]);
        let value = HeaderValue::from_bytes(value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        self.trailers.append(name, value);
        Ok(())
    }

    fn end(&mut self) -> Result<(), h2::Error> {
        self.has_ended = true;
        if self.trailers.is_empty() {
            return self.stream.send_data(Bytes::new(), true);
        }
        self.stream.send_trailers(std::mem::take(&mut self.trailers))
    }

    /// Nothing more comes: that ends the stream well only where nothing is missing.
    pub(super) fn finish(&mut self) {
        if self.has_ended {
            return;
        }
        if !self.body.ends_by_close() || self.end().is_err() {
            self.reset();
        }
    }

    /// Ends the stream so that nobody takes what came for the whole.
    pub(super) fn reset(&mut self) {
        if !self.has_ended {
            self.has_ended = true;
            self.stream.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    /// Ready when the other side takes no more of it.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }
}
