//! Talks to two sockets in one direction: what was read and not written yet.
//! In: bytes of one. Out: the same bytes at the other.
//! Costs: a read that does not fill the buffer is not followed by another one (tokio then knows
//! that the socket is empty), and a buffer exists only while bytes are on their way.
//! Not here: both directions, and what ends them (`relay.rs`, `balancer/copying.rs`).

use super::spare;
use rustix::net::{self, SendFlags};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::TcpStream;

/// PostgreSQL sends up to 8 KiB at once, a client's COPY more; larger ones measured no better.
const BUFFER: usize = spare::SIZE;

const BULK_BUFFER: usize = 64 * 1024;

/// One direction. No `Debug`: passwords pass through here.
pub(super) struct Flow {
    pub(super) buffer: Vec<u8>,
    sent: usize,
    /// What a buffer may grow to once one was filled: fewer calls for what is long.
    most: usize,
    /// The last read filled the buffer.
    filled: bool,
    /// So many were read, counted up to the second one; more once that was told.
    pieces: u8,
}

/// As many as nobody is told of.
const TOLD: u8 = 3;

impl Flow {
    pub(super) const fn holding(bytes: Vec<u8>) -> Self {
        Self { buffer: bytes, sent: 0, most: BUFFER, filled: false, pieces: 0 }
    }

    /// For what may be long.
    pub(super) const fn bulk() -> Self {
        Self { buffer: Vec::new(), sent: 0, most: BULK_BUFFER, filled: false, pieces: 0 }
    }

    /// The same, to where nothing waits for anything (`TCP_NODELAY`).
    pub(super) fn bulk_to_prompt() -> Self {
        Self { pieces: TOLD, ..Self::bulk() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.sent == self.buffer.len()
    }

    /// How much is still to be written.
    pub(super) const fn left(&self) -> usize {
        self.buffer.len() - self.sent
    }

    /// True once: from the second piece on.
    pub(super) fn goes_on(&mut self) -> bool {
        let goes_on = self.pieces == 2;
        if goes_on {
            self.pieces = TOLD;
        }
        goes_on
    }

    /// Writes what the buffer has; ready once it is empty.
    pub(super) fn poll_drain(
        &mut self,
        sink: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            match ready!(Pin::new(&mut *sink).poll_write(cx, &self.buffer[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// As `poll_drain`, where more is said at once: the system then sends both in one packet.
    pub(super) fn poll_drain_with_more(
        &mut self,
        sink: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            ready!(sink.poll_write_ready(cx))?;
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            let send = || Ok(net::send(sink, &self.buffer[self.sent..], flags)?);
            match sink.try_io(Interest::WRITABLE, send) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads once into the empty buffer, which is given back when there is nothing to read.
    pub(super) fn poll_fill(
        &mut self,
        source: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(ready) = source.poll_read_ready(cx) else {
            spare::give(std::mem::take(&mut self.buffer));
            return Poll::Pending;
        };
        ready?;
        let wanted = if self.filled { self.most } else { BUFFER };
        if self.buffer.capacity() < wanted {
            let room = if wanted == BUFFER { spare::take() } else { Vec::with_capacity(wanted) };
            spare::give(std::mem::replace(&mut self.buffer, room));
        }
        let read = ready!(pin!(source.read_buf(&mut self.buffer)).poll(cx))?;
        self.filled = read == self.buffer.capacity();
        self.pieces += u8::from(self.pieces < 2 && read > 0);
        Poll::Ready(Ok(read))
    }
}
