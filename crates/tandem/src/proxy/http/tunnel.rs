//! Talks to a client and an endpoint that changed to another protocol: copies both ways.
//! In: both connections, and what was read of them already. Out: nothing.
//! States: both ways → (one side closes) half open → Over; nothing moves for too long → Over.
//! Not here: who may change the protocol (`request.rs`).
//! Tested by: `tests/`.

use super::stream::{BUFFER, Buffer, Stream, Timer};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// One side: its connection, and what was read of it.
pub(super) struct Side<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) input: &'a mut Buffer,
}

/// Both directions.
pub(super) struct Tunnel<'a> {
    pub(super) client: Side<'a>,
    pub(super) endpoint: Side<'a>,
    pub(super) timer: &'a mut Timer,
    pub(super) idle_timeout: Duration,
    moved_at: Instant,
    up_is_over: bool,
    down_is_over: bool,
}

impl<'a> Tunnel<'a> {
    pub(super) fn new(
        client: Side<'a>,
        endpoint: Side<'a>,
        timer: &'a mut Timer,
        idle_timeout: Duration,
    ) -> Self {
        let moved_at = Instant::now();
        let (up_is_over, down_is_over) = (false, false);
        Self { client, endpoint, timer, idle_timeout, moved_at, up_is_over, down_is_over }
    }

    /// Ready when both directions are over, one side broke, or nothing moved for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut moved = false;
        let Self { client, endpoint, .. } = self;
        if !self.up_is_over {
            match copy(client, endpoint, cx, &mut moved) {
                Poll::Ready(Ok(())) => self.up_is_over = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        if !self.down_is_over {
            match copy(endpoint, client, cx, &mut moved) {
                Poll::Ready(Ok(())) => self.down_is_over = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        if self.up_is_over && self.down_is_over {
            return Poll::Ready(());
        }
        if moved {
            self.moved_at = Instant::now();
        }
        self.timer.poll(self.moved_at + self.idle_timeout, cx)
    }
}

/// Copies until `from` closed its side, which `to` is then told.
fn copy(
    from: &mut Side<'_>,
    to: &mut Side<'_>,
    cx: &mut Context<'_>,
    moved: &mut bool,
) -> Poll<io::Result<()>> {
    loop {
        while !from.input.is_empty() {
            let Poll::Ready(written) = to.stream.poll_write_both(cx, (from.input.unread(), &[]))
            else {
                // What it waits for may never come.
                ready!(from.stream.poll_gone(cx));
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let written = written?;
            from.input.consume(written);
            // Only what was taken: whoever takes nothing is idle.
            *moved = true;
        }
        let Poll::Ready(flushed) = to.stream.poll_flush(cx) else {
            ready!(from.stream.poll_gone(cx));
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        flushed?;
        let Poll::Ready(read) = from.input.poll_fill(from.stream, BUFFER, cx) else {
            from.input.release();
            return Poll::Pending;
        };
        if read? == 0 {
            return to.stream.poll_shutdown(cx);
        }
    }
}
