//! Talks to a client and an endpoint that changed to another protocol: copies both ways.
//! In: both connections, and what was read of them already. Out: nothing.
//! States: both ways → (one side closes) half open → Over; nothing moves for too long → Over.
//! Not here: who may change the protocol (`request.rs`).
//! Tested by: `tests/`.

use super::stream::{BUFFER, Buffer, Stream, Timer};
use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Silence that ends a half-open connection: as with one that is only copied.
const HALF_OPEN_MAX: Duration = Duration::from_secs(60);
/// An endpoint that closes sooner, without a word, has refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// Copies between a client and its endpoint to the end, or until `over`: then none. False if the
/// endpoint took the connection and did nothing with it.
pub(in crate::proxy) async fn relay(
    (mut client, mut endpoint): (Stream, Stream),
    idle_timeout: Duration,
    over: impl Future<Output = ()>,
) -> Option<bool> {
    let begun = Instant::now();
    let (mut up, mut down, mut timer) = (Buffer::default(), Buffer::default(), Timer::new());
    let from = Side { stream: &mut client, input: &mut up };
    let to = Side { stream: &mut endpoint, input: &mut down };
    let mut tunnel = Tunnel::new(from, to, &mut timer, idle_timeout);
    let is_whole = tokio::select! {
        biased;
        is_whole = poll_fn(|cx| tunnel.poll(cx)) => Some(is_whole),
        () = over => None,
    };
    let Tunnel { endpoint_spoke, up_is_over, .. } = tunnel;
    if is_whole != Some(true) {
        // Nobody shall take half an answer for the whole.
        client.reset_when_dropped();
        endpoint.reset_when_dropped();
    }
    let worked = endpoint_spoke || up_is_over || begun.elapsed() >= REFUSED_WITHIN;
    is_whole.map(|_| worked)
}

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
    /// Something came from the endpoint.
    endpoint_spoke: bool,
}

impl<'a> Tunnel<'a> {
    pub(super) fn new(
        client: Side<'a>,
        endpoint: Side<'a>,
        timer: &'a mut Timer,
        idle_timeout: Duration,
    ) -> Self {
        let moved_at = Instant::now();
        Self {
            client,
            endpoint,
            timer,
            idle_timeout,
            moved_at,
            up_is_over: false,
            down_is_over: false,
            endpoint_spoke: false,
        }
    }

    /// Ready when both directions are over, one side broke, or nothing moved for too long: what was
    /// said is whole in the first case only.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let (mut moved, mut down_moved) = (false, false);
        let Self { client, endpoint, .. } = self;
        if !self.up_is_over {
            match copy(client, endpoint, cx, &mut moved) {
                Poll::Ready(Ok(())) => self.up_is_over = true,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => {}
            }
        }
        if !self.down_is_over {
            let copied = copy(endpoint, client, cx, &mut down_moved);
            self.endpoint_spoke |= down_moved;
            match copied {
                Poll::Ready(Ok(())) => self.down_is_over = true,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => {}
            }
        }
        if self.up_is_over && self.down_is_over {
            return Poll::Ready(true);
        }
        if moved || down_moved {
            self.moved_at = Instant::now();
        }
        let is_half = self.up_is_over || self.down_is_over;
        let most = if is_half { HALF_OPEN_MAX } else { Duration::MAX };
        self.timer.poll(self.moved_at + self.idle_timeout.min(most), cx).map(|()| false)
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
