//! Talks to both ends of a connection: copies bytes until one of them ends it.
//! In: two streams. Out: whether the endpoint worked.
//! States: both ways → (a side closes its half, and the other side is told) one way → over.
//! A closed half is passed on and the other way goes on, as with HAProxy: a client that has asked
//! all it had to ask still waits for the answer. A reset on either side ends the connection at
//! once and is passed on as a reset: nobody shall take half an answer for the whole. What is half
//! open and silent ends after `HALF_OPEN_MAX`: a peer that vanished in that state tells nobody.
//! Not here: which endpoint (`group.rs`), what happens before (`session.rs`).
//! Tested by: `tests.rs`.

use crate::proxy::flow::Flow;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Silence that ends a half-open connection, if its idle timeout does not end it before: most
/// answers have begun by then, and a leak of such connections stays small.
const HALF_OPEN_MAX: Duration = Duration::from_secs(60);
/// An endpoint that closes sooner, without a word, has refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// While one way only is open.
const BUFFER: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Endpoint,
}

/// What ended the copying both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// That side will send no more.
    Closed(Side),
    /// That side is gone.
    Broke(Side),
    /// Nothing moved for too long.
    Idle,
}

/// A connection that has its endpoint.
pub(super) struct Copying {
    client: TcpStream,
    endpoint: TcpStream,
    up: Flow,
    down: Flow,
    begun: Instant,
    client_spoke: bool,
    endpoint_spoke: bool,
    idle: Pin<Box<Sleep>>,
    idle_timeout: Duration,
    moved_at: Instant,
}

impl Copying {
    pub(super) fn new(client: TcpStream, endpoint: TcpStream, idle_timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            client,
            endpoint,
            up: Flow::bulk(),
            down: Flow::bulk(),
            begun: now,
            client_spoke: false,
            endpoint_spoke: false,
            idle: Box::pin(sleep(idle_timeout)),
            idle_timeout,
            moved_at: now,
        }
    }

    /// Copies to the end. False if the endpoint took the connection and did nothing with it.
    pub(super) async fn run(mut self) -> bool {
        let end = poll_fn(|cx| self.poll(cx)).await;
        // An endpoint that only listens may close what its client has left, or never used.
        let worked = match end {
            End::Broke(Side::Endpoint) => self.endpoint_spoke,
            End::Closed(Side::Endpoint) => {
                let is_refusal = self.client_spoke || self.begun.elapsed() < REFUSED_WITHIN;
                self.endpoint_spoke || !is_refusal
            }
            End::Closed(Side::Client) | End::Broke(Side::Client) | End::Idle => true,
        };
        let silence_max = self.idle_timeout.min(HALF_OPEN_MAX);
        let Self { client, endpoint, up, down, .. } = &mut self;
        let is_whole = match end {
            End::Closed(Side::Client) => {
                one_way(endpoint, client, down.unsent(), silence_max).await
            }
            End::Closed(Side::Endpoint) => {
                one_way(client, endpoint, up.unsent(), silence_max).await
            }
            End::Idle => true,
            End::Broke(_) => false,
        };
        if !is_whole {
            for stream in [client, endpoint] {
                // A stream that is gone needs no reset.
                let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            }
        }
        worked
    }

    /// Ready when one way is over, one side broke, or nothing moved for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let (mut up_moved, mut down_moved) = (false, false);
        let Self { client, endpoint, up, down, .. } = self;
        let up = copy(up, (client, endpoint), cx, &mut up_moved);
        let down = copy(down, (endpoint, client), cx, &mut down_moved);
        self.client_spoke |= up_moved;
        self.endpoint_spoke |= down_moved;
        let side = |end, from, to| match end {
            Way::Closed => End::Closed(from),
            Way::ReadBroke => End::Broke(from),
            Way::WriteBroke => End::Broke(to),
        };
        let up = up.map(|end| side(end, Side::Client, Side::Endpoint));
        let down = down.map(|end| side(end, Side::Endpoint, Side::Client));
        let is_broken = |end: &End| matches!(end, End::Broke(_));
        let ends = [up, down].map(|end| match end {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        });
        // A side that broke matters more than one that is only done.
        match ends.into_iter().flatten().find(is_broken).or(ends[0]).or(ends[1]) {
            Some(end) => Poll::Ready(end),
            None => self.poll_idle(up_moved || down_moved, cx),
        }
    }

    /// The timer is moved only when it rings: a byte costs no more than a look at the clock.
    fn poll_idle(&mut self, moved: bool, cx: &mut Context<'_>) -> Poll<End> {
        if moved {
            self.moved_at = Instant::now();
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            let deadline = self.moved_at + self.idle_timeout;
            if deadline <= Instant::now() {
                return Poll::Ready(End::Idle);
            }
            self.idle.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// How one way ended.
enum Way {
    Closed,
    ReadBroke,
    WriteBroke,
}

/// Copies until there is nothing more to read.
fn copy(
    flow: &mut Flow,
    (from, to): (&mut TcpStream, &mut TcpStream),
    cx: &mut Context<'_>,
    moved: &mut bool,
) -> Poll<Way> {
    loop {
        if !flow.is_empty() {
            *moved = true;
            if ready!(flow.poll_drain(to, cx)).is_err() {
                return Poll::Ready(Way::WriteBroke);
            }
        }
        match ready!(flow.poll_fill(from, cx)) {
            Ok(0) => return Poll::Ready(Way::Closed),
            Ok(_) => {}
            Err(_) => return Poll::Ready(Way::ReadBroke),
        }
    }
}

/// Copies what is left of one way after `to` closed its own half, which `from` is told. False if
/// it did not come to its end.
async fn one_way(
    from: &mut TcpStream,
    to: &mut TcpStream,
    unsent: &[u8],
    silence_max: Duration,
) -> bool {
    if from.shutdown().await.is_err() {
        return false;
    }
    let (mut read, _) = from.split();
    let (reset, mut write) = to.split();
    let copying = async {
        write.write_all(unsent).await?;
        let mut buffer = Vec::with_capacity(BUFFER);
        while timeout(silence_max, read.read_buf(&mut buffer)).await?? > 0 {
            timeout(silence_max, write.write_all(&buffer)).await??;
            buffer.clear();
        }
        write.shutdown().await
    };
    tokio::select! {
        biased;
        copied = copying => copied.is_ok(),
        // Nobody reads from it any more, so that a reset is seen by this alone.
        _ = reset.as_ref().ready(Interest::ERROR) => false,
    }
}
