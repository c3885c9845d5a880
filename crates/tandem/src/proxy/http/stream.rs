//! Talks to one connection, plain or encrypted, and keeps what was read and not used yet.
//! In: a socket. Out: its bytes, in a buffer that exists only while it holds some.
//! Costs: a read that does not fill the buffer is not followed by another one; tokio then knows
//! that the socket is empty. An idle connection has no buffer.
//! Not here: what the bytes mean.
//! Tested by: `tests/`.

use super::h2::{ClientStream, EndpointStream, Refused};
use crate::proxy::spare;
use bytes::BufMut;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::TlsStream;

/// What one read takes at most, and what a buffer grows to unless a head needs more.
pub(super) const BUFFER: usize = spare::SIZE;

/// When a timer rings that nobody has set yet.
const RINGS_FIRST: Duration = Duration::from_secs(2);

/// A connection of a client or to an endpoint.
#[derive(Debug)]
pub(in crate::proxy) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// One request of a connection of HTTP/2.
    H2Client(Box<ClientStream>),
    /// One request on a connection of HTTP/2 to an endpoint.
    H2Endpoint(Box<EndpointStream>),
}

impl Stream {
    /// None where others use it as well.
    pub(in crate::proxy) fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::H2Client(_) | Self::H2Endpoint(_) => None,
        }
    }

    /// What both sides agreed on when they began to encrypt.
    pub(in crate::proxy) fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Plain(_) | Self::H2Client(_) | Self::H2Endpoint(_) => None,
        }
    }

    /// Its end is no end: whoever waits for one is told by a reset, or by an encrypted stream that
    /// stops without its last word.
    pub(super) fn reset_when_dropped(&self) {
        if let Some(socket) = self.socket() {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Its end is one after all.
    pub(super) fn end_when_dropped(&self) {
        if let Some(socket) = self.socket() {
            let _ = socket2::SockRef::from(socket).set_linger(None);
        }
    }

    pub(super) const fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What decrypts it has more for its reader, or was told of its end, though its socket is
    /// silent.
    pub(super) fn has_unread(&self) -> bool {
        matches!(self, Self::Tls(stream) if !stream.get_ref().1.wants_read())
    }

    /// It ends with the request that it began with.
    pub(super) const fn is_one_request(&self) -> bool {
        matches!(self, Self::H2Client(_))
    }

    /// Tells a client, if there is a way, that nobody did anything with its request; true if so.
    pub(super) fn refuse(&mut self) -> bool {
        match self {
            Self::H2Client(stream) => {
                stream.refuse();
                true
            }
            Self::Plain(_) | Self::Tls(_) | Self::H2Endpoint(_) => false,
        }
    }

    /// The endpoint did nothing with the request that was written, and said so.
    pub(super) fn refused(&self) -> Option<Refused> {
        match self {
            Self::H2Endpoint(stream) => stream.refused(),
            Self::Plain(_) | Self::Tls(_) | Self::H2Client(_) => None,
        }
    }

    /// It is one request on a connection that was idle and then closed.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::H2Endpoint(stream) if stream.is_stale())
    }

    /// For as long as nobody reads of it: what comes by HTTP/2 is taken in, as far as its window
    /// goes. Ready when a client says that it wants no response.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(_) | Self::Tls(_) => Poll::Pending,
            Self::H2Client(stream) => stream.poll_gone(cx),
            Self::H2Endpoint(stream) => {
                stream.soak(cx);
                Poll::Pending
            }
        }
    }

    /// Writes a part of both, the first one first; at least one byte.
    pub(super) fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        (first, second): (&[u8], &[u8]),
    ) -> Poll<io::Result<usize>> {
        let both = [IoSlice::new(first), IoSlice::new(second)];
        let written = ready!(match self {
            _ if second.is_empty() => self.poll_write_some(cx, first),
            _ if first.is_empty() => self.poll_write_some(cx, second),
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, &both),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, &both),
            Self::H2Client(_) | Self::H2Endpoint(_) => self.poll_write_some(cx, first),
        })?;
        match written {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::H2Client(stream) => stream.poll_write(cx, bytes),
            Self::H2Endpoint(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// What an encrypted connection holds back leaves now.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) | Self::H2Client(_) | Self::H2Endpoint(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::H2Client(stream) => {
                stream.finish();
                Poll::Ready(Ok(()))
            }
            Self::H2Endpoint(stream) => {
                stream.finish();
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// One timer for everything: moved only when it rings, or has to ring sooner.
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(super) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now() + RINGS_FIRST)))
    }

    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.deadline() > deadline {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}

/// What was read and not used yet. No `Debug`: passwords pass through here.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, used: 0 }
    }
}

impl Buffer {
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    /// Forgets the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.used = self.used.saturating_add(count).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.used = 0;
        }
    }

    /// What was consumed is unread again, before all else.
    pub(super) fn give_back(&mut self, bytes: &[u8]) {
        self.bytes.splice(..self.used, bytes.iter().copied());
        self.used = 0;
    }

    /// Gives the memory back if nothing is in it.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            spare::give(std::mem::take(&mut self.bytes));
            self.used = 0;
        }
    }

    /// Reads once, so that at most `max` bytes are unread; ready with 0 at the end of the stream,
    /// and with an error if there are `max` already.
    pub(super) fn poll_fill(
        &mut self,
        stream: &mut Stream,
        max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let is_pending = match stream {
            Stream::Plain(stream) => stream.poll_read_ready(cx).is_pending(),
            Stream::Tls(_) => false,
            Stream::H2Client(stream) => stream.poll_next(cx).is_pending(),
            Stream::H2Endpoint(stream) => stream.poll_next(cx).is_pending(),
        };
        if is_pending {
            return Poll::Pending;
        }
        let unread = self.bytes.len() - self.used;
        if unread >= max {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = spare::take();
        }
        let wanted = if unread < BUFFER { BUFFER } else { (unread * 2).min(max) };
        self.bytes.reserve_exact(wanted.saturating_sub(unread));
        // Never more than `max`, whatever the allocator gave.
        let room = (self.bytes.capacity() - unread).min(max - unread);
        let mut into = (&mut self.bytes).limit(room);
        pin!(stream.read_buf(&mut into)).poll(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
            Self::H2Client(stream) => stream.poll_read(cx, into),
            Self::H2Endpoint(stream) => stream.poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_some(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_shutdown(cx)
    }
}
