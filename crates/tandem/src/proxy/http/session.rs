//! Talks to one client of an HTTP service: request after request until one side has enough.
//! In: what speaks HTTP/1.1. Out: nothing but counters.
//! States: Idle → (first byte) Head → Exchange → Idle …; refused → told → Lingering → Over.
//! Keeps: a refused request is the last one of its connection: where the next one begins is what
//! was not understood. A head is waited for only so long, however slowly it drips.
//! Not here: how a connection begins (`begin.rs`), what becomes of a request (`exchange.rs`).
//! Tested by: `tests/`.

use super::exchange::{self, After, Door};
use super::stream::{BUFFER, Buffer, Stream};
use super::wire::framing::Framing;
use super::wire::request::{self, Method, Refusal, no_fields};
use super::wire::rewrite::{self, Origin};
use super::{Http, HttpConfig, key, reply};
use crate::proxy::balancer::session::Shared;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::hash;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFuture;

/// For a client to take a reply, and to close after it.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// What is read of a client that was refused, so that it reads the reason before the reset.
const LINGER_MAX: usize = 256 * 1024;

/// One client and all that is kept for it.
pub(super) struct Client {
    pub(super) stream: Stream,
    /// From the client.
    pub(super) input: Buffer,
    /// From its endpoint.
    pub(super) spare: Buffer,
    /// The head of the request as its endpoint gets it, kept until it is answered.
    pub(super) head: Vec<u8>,
    /// The head of the response as the client gets it.
    pub(super) out: Vec<u8>,
    pub(super) timer: Timer,
    pub(super) origin: Origin,
}

/// What a request asks of its exchange, beyond the head that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) kind: Method,
    pub(super) framing: Framing,
    pub(super) minor: u8,
    pub(super) keep_alive: bool,
    pub(super) expects: bool,
    pub(super) upgrades: bool,
    /// Where the client's cookie says that it was before.
    pub(super) token: Option<u64>,
    /// The hash of its key, if somebody asks for one and it has one.
    pub(super) key: Option<u64>,
    /// The hash of who is counted for its rate.
    pub(super) client: u64,
}

impl Order {
    /// To send it twice is to send it once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.kind != Method::Other && !self.framing.has_content() && !self.upgrades
    }
}

/// One timer for everything: moved only when it rings, or has to ring sooner.
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(super) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now() + FAREWELL)))
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

impl Client {
    /// `input`: what was read of it already.
    pub(super) fn new(stream: Stream, origin: Origin, input: Buffer) -> Self {
        Self {
            stream,
            input,
            spare: Buffer::default(),
            head: Vec::new(),
            out: Vec::new(),
            timer: Timer::new(),
            origin,
        }
    }

    /// Ready once the client has closed its side while nothing of it is left to read.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.input.is_empty() {
            match ready!(self.input.poll_fill(&mut self.stream, BUFFER, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// No buffers while nothing is going on.
    fn release(&mut self) {
        self.input.release();
        self.spare.release();
        for head in [&mut self.head, &mut self.out] {
            if head.capacity() > BUFFER {
                *head = Vec::new();
            }
        }
    }

    /// Sends what is in `out`.
    async fn send(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + FAREWELL;
        let mut sent = 0;
        let Self { stream, out, timer, .. } = self;
        poll_fn(|cx| {
            while sent < out.len() {
                match stream.poll_write_both(cx, (&out[sent..], &[])) {
                    Poll::Ready(written) => sent += written?,
                    Poll::Pending => {
                        ready!(timer.poll(deadline, cx));
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
            stream.poll_flush(cx)
        })
        .await
    }

    /// Closes this side, and reads on for a moment: a reset would take the last reply away.
    async fn linger(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let mut read = 0;
        let Self { stream, input, timer, .. } = self;
        let _ = poll_fn(|cx| stream.poll_shutdown(cx)).await;
        poll_fn(|cx| {
            loop {
                input.consume(usize::MAX);
                match input.poll_fill(stream, BUFFER, cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(count)) => read += count,
                    Poll::Pending => return timer.poll(deadline, cx),
                }
                if read > LINGER_MAX {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
}

/// What came instead of a request, or one.
enum Next {
    Request(Order),
    Refused(Refusal),
    Over,
}

/// Serves one request after the other.
pub(super) async fn run(shared: &Shared, http: &Http, client: &mut Client) {
    // Asked between any two requests: one that waits for all of them, not one for each.
    let mut closing = pin!(shared.closing.cancelled());
    loop {
        // What changes while it runs counts from the next request on.
        let config = shared.config();
        let Some(requests) = &config.http else { return };
        let order = match next(closing.as_mut(), requests, client).await {
            Next::Over => return,
            Next::Refused(refusal) => {
                refuse(http, client, refusal).await;
                return;
            }
            Next::Request(order) => order,
        };
        http.tally.requests.fetch_add(1, Ordering::Relaxed);
        let door = Door { shared, http, config: &config, requests };
        match exchange::run(door, client, order).await {
            After::KeepAlive => {}
            After::Close => {
                client.linger().await;
                return;
            }
            After::Reply { keep_alive } => {
                let sent = client.send().await;
                if sent.is_ok() && !keep_alive {
                    client.linger().await;
                }
                if sent.is_err() || !keep_alive {
                    return;
                }
            }
            After::Refused(refusal) => {
                refuse(http, client, refusal).await;
                return;
            }
            After::Cut => return,
        }
    }
}

async fn refuse(http: &Http, client: &mut Client, refusal: Refusal) {
    http.tally.refused.fetch_add(1, Ordering::Relaxed);
    client.out.clear();
    let status = reply::refusal(&mut client.out, refusal);
    http.answered(status);
    if client.send().await.is_ok() {
        client.linger().await;
    }
}

/// Waits for the next request.
async fn next(
    mut closing: Pin<&mut WaitForCancellationFuture<'_>>,
    config: &HttpConfig,
    client: &mut Client,
) -> Next {
    let idle_since = Instant::now();
    let mut begun_at = (!client.input.is_empty()).then_some(idle_since);
    let mut seen = 0;
    loop {
        if may_be_whole(client.input.unread(), &mut seen) {
            match take(config, client) {
                Ok(Some(order)) => return Next::Request(order),
                Ok(None) => {}
                Err(refusal) => return Next::Refused(refusal),
            }
        }
        let deadline = match begun_at {
            Some(begun_at) => begun_at + config.head_timeout,
            None => idle_since + config.keep_alive,
        };
        let fill = poll_fn(|cx| poll_head(client, config.head_bytes_max, deadline, cx));
        let filled = tokio::select! {
            biased;
            // What has begun to come may still come; nothing more begins.
            () = closing.as_mut(), if begun_at.is_none() => return Next::Over,
            filled = fill => filled,
        };
        match filled {
            Ok(0) => return Next::Over,
            Ok(_) => begun_at = begun_at.or_else(|| Some(Instant::now())),
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::OutOfMemory => Next::Refused(Refusal::HeadTooLong),
                    io::ErrorKind::TimedOut if begun_at.is_some() => {
                        Next::Refused(Refusal::TooSlow)
                    }
                    _ => Next::Over,
                };
            }
        }
    }
}

pub(super) fn poll_head(
    client: &mut Client,
    max: usize,
    deadline: Instant,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let filled = client.input.poll_fill(&mut client.stream, max, cx);
    if filled.is_pending() {
        client.release();
        ready!(client.timer.poll(deadline, cx));
        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
    }
    filled
}

/// Takes a head off what was read; none if it has not come whole.
fn take(config: &HttpConfig, client: &mut Client) -> Result<Option<Order>, Refusal> {
    let mut room = no_fields();
    let limits = (config.fields_max, config.body_bytes_max);
    let Some(head) = request::read(client.input.unread(), &mut room, limits)? else {
        return Ok(None);
    };
    if head.length > config.head_bytes_max {
        return Err(Refusal::HeadTooLong);
    }
    client.head.clear();
    rewrite::request(&mut client.head, &head, client.origin);
    let sender = key::Sender { origin: client.origin, trusted: &config.trusted };
    let key = config.hash_key.as_ref().and_then(|source| key::of(source, &head, sender));
    let order = Order {
        kind: head.kind,
        framing: head.framing,
        minor: head.minor,
        keep_alive: head.keep_alive,
        expects: head.expects,
        upgrades: head.upgrade.is_some(),
        token: config.sticky.as_deref().and_then(|name| exchange::token(head.fields, name)),
        key: key.map(|key| hash(&key)),
        client: key::client(&config.limit_key, &head, sender),
    };
    let length = head.length;
    client.input.consume(length);
    Ok(Some(order))
}

/// Whether it is worth to look at a head: at its first bytes, which may be nonsense, and once the
/// end of one is there. Dripping it byte by byte shall not make anybody read it so often.
pub(super) fn may_be_whole(bytes: &[u8], seen: &mut usize) -> bool {
    let from = seen.saturating_sub(3);
    let is_first = *seen == 0 && !bytes.is_empty();
    *seen = bytes.len();
    let new = bytes.get(from..).unwrap_or_default();
    is_first || new.windows(2).any(|pair| pair == b"\n\n" || pair == b"\n\r")
}
