//! Talks to one client of an HTTP service: request after request until one side has enough.
//! In: what speaks HTTP/1.1. Out: nothing but counters.
//! States: Idle → (first byte) Head → Exchange → Idle …; refused → told → Lingering → Over; Idle →
//! (the door closes, somebody needs the room, too long) Over.
//! Keeps: a refused request is the last one of its connection: where the next one begins is what
//! was not understood. A head is waited for only so long, however slowly it drips.
//! Not here: how a connection begins (`begin.rs`), what becomes of a request (`exchange.rs`).
//! Tested by: `tests/`.

use super::begin::LAST_WORD;
use super::exchange::{self, After, Door};
use super::stream::{BUFFER, Buffer, Stream, Timer};
use super::transfer::Kept;
use super::wire::framing::Framing;
use super::wire::request::{self, Method, Refusal, no_fields};
use super::wire::rewrite::{self, Origin};
use super::{Http, HttpConfig, key, reply};
use crate::proxy::balancer::session::{SETTLED, Shared, makes_room};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::hash;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFuture;

/// For a client to take a reply, and to close after it.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// How long a client that still sends is read from after its reply, as with nginx: a reset would
/// take away a reply that it reads only once it has sent everything.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// Empty lines before a request that are passed over: some clients end a body with one.
const EMPTY_LINES_MAX: u32 = 4;

/// One client and all that is kept for it.
pub(super) struct Client {
    pub(super) stream: Stream,
    /// From the client.
    pub(super) input: Buffer,
    /// From its endpoint.
    pub(super) spare: Buffer,
    /// The head of the request as its endpoint gets it, kept until it is answered.
    pub(super) head: Vec<u8>,
    /// What of its body may have to be sent once more.
    pub(super) kept: Kept,
    /// The head of the response as the client gets it.
    pub(super) out: Vec<u8>,
    pub(super) timer: Timer,
    pub(super) origin: Origin,
    /// What endpoints are told of it, where they are.
    pub(super) ends: Option<Ends>,
}

/// Where a client is, and where it came to.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// What a request asks of its exchange, beyond the head that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) kind: Method,
    pub(super) framing: Framing,
    /// How long the head that goes on is, before its door says more in it.
    pub(super) head_end: usize,
    pub(super) minor: u8,
    pub(super) keep_alive: bool,
    pub(super) expects: bool,
    pub(super) upgrades: bool,
    /// Where the client's cookie says that it was before.
    pub(super) token: Option<u64>,
    /// The hash of its key, if somebody asks for one and it has one.
    pub(super) key: Option<u64>,
    /// Why its reader could find another key.
    pub(super) doubt: Option<key::Doubt>,
    /// The hash of who is counted for its rate.
    pub(super) client: u64,
}

impl Order {
    /// To send it twice is to send it once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.kind != Method::Other && !self.framing.has_content() && !self.upgrades
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
            kept: Kept::default(),
            out: Vec::new(),
            timer: Timer::new(),
            origin,
            ends: None,
        }
    }

    /// Ready once the client has closed its side, however much of it is left to read: nobody waits
    /// for an answer any more. One that has sent a bufferful ahead is looked after only where it
    /// can say that it left without all that being read.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.input.unread().len() < BUFFER {
            match ready!(self.input.poll_fill(&mut self.stream, BUFFER, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        self.stream.poll_gone(cx)
    }

    /// No buffers while nothing is going on.
    fn release(&mut self) {
        self.input.release();
        self.spare.release();
        self.kept = Kept::default();
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
            match stream.poll_flush(cx) {
                Poll::Ready(flushed) => Poll::Ready(flushed),
                Poll::Pending => {
                    ready!(timer.poll(deadline, cx));
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
            }
        })
        .await
    }

    /// Closes this side, and reads on for a moment: a reset would take the last reply away. `max`:
    /// for whoever still sends.
    async fn linger(&mut self, max: Duration) {
        let begun = Instant::now();
        let mut silent_since = begun;
        let Self { stream, input, timer, .. } = self;
        poll_fn(|cx| match stream.poll_shutdown(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => timer.poll(begun + FAREWELL, cx),
        })
        .await;
        poll_fn(|cx| {
            loop {
                input.consume(usize::MAX);
                match input.poll_fill(stream, BUFFER, cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) => silent_since = Instant::now(),
                    Poll::Pending => return timer.poll(silent_since + FAREWELL, cx),
                }
                if silent_since - begun > max {
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
        let next = next(closing.as_mut(), shared, client).await;
        // What changes while it runs counts from the next request on.
        let config = shared.config();
        let Some(requests) = &config.http else { return };
        let order = match next {
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
                client.linger(LINGER_MAX).await;
                return;
            }
            After::Reply { keep_alive } => {
                let sent = client.send().await;
                if sent.is_ok() && !keep_alive {
                    client.linger(LINGER_MAX).await;
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
            After::Reset => {
                client.stream.reset_when_dropped();
                return;
            }
        }
        if client.stream.is_one_request() {
            // What came beside it, ahead of a change of protocol that was refused, is no other one.
            return;
        }
    }
}

async fn refuse(http: &Http, client: &mut Client, refusal: Refusal) {
    http.tally.refused.fetch_add(1, Ordering::Relaxed);
    client.out.clear();
    http.answered(reply::refusal(&mut client.out, refusal));
    // Whoever was too slow has had its time: it shall not keep its place by dripping on.
    let max = if refusal == Refusal::TooSlow { FAREWELL } else { LINGER_MAX };
    if client.send().await.is_ok() {
        client.linger(max).await;
    }
}

/// When the wait for a request is over.
struct Wait {
    idle_since: Instant,
    /// When the first byte of a request had come.
    begun_at: Option<Instant>,
    /// The door closes.
    closing_since: Option<Instant>,
}

impl Wait {
    fn new(is_begun: bool) -> Self {
        let idle_since = Instant::now();
        Self { idle_since, begun_at: is_begun.then_some(idle_since), closing_since: None }
    }

    fn deadline(&self, config: &HttpConfig) -> Instant {
        // What has begun to come may still come; not much more begins.
        match (self.begun_at, self.closing_since) {
            (Some(begun_at), _) => begun_at + config.head_timeout,
            (None, Some(since)) => since + LAST_WORD.min(config.keep_alive),
            (None, None) => self.idle_since + config.keep_alive,
        }
    }
}

/// Waits for the next request.
async fn next(
    mut closing: Pin<&mut WaitForCancellationFuture<'_>>,
    shared: &Shared,
    client: &mut Client,
) -> Next {
    let mut config = shared.config();
    let mut wait = Wait::new(!client.input.is_empty());
    let (mut seen, mut empty_lines) = (0, 0);
    loop {
        let Some(requests) = &config.http else { return Next::Over };
        if wait.begun_at.is_some() && is_empty_line(client, &mut empty_lines) {
            // Nothing has begun yet.
            wait = Wait { begun_at: (!client.input.is_empty()).then(Instant::now), ..wait };
            seen = 0;
        }
        if may_be_whole(client.input.unread(), &mut seen) {
            match take(requests, client) {
                Ok(Some(order)) => return Next::Request(order),
                Ok(None) => {}
                Err(refusal) => return Next::Refused(refusal),
            }
        }
        let (deadline, is_idle) = (wait.deadline(requests), wait.begun_at.is_none());
        let settled = wait.idle_since + SETTLED;
        let fill = poll_fn(|cx| poll_head(client, requests.head_bytes_max, deadline, cx));
        let filled = tokio::select! {
            biased;
            () = closing.as_mut(), if is_idle && wait.closing_since.is_none() => {
                wait.closing_since = Some(Instant::now());
                continue;
            }
            filled = fill => filled,
            () = makes_room(shared, settled), if is_idle => return Next::Over,
        };
        match filled {
            Ok(0) => return Next::Over,
            Ok(_) if is_idle => {
                wait.begun_at = Some(Instant::now());
                // It was idle for long, perhaps.
                config = shared.config();
            }
            Ok(_) => {}
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::OutOfMemory => Next::Refused(Refusal::HeadTooLong),
                    io::ErrorKind::TimedOut if !is_idle => Next::Refused(Refusal::TooSlow),
                    _ => Next::Over,
                };
            }
        }
    }
}

/// Passes over empty lines before a request, if there are not too many.
fn is_empty_line(client: &mut Client, lines: &mut u32) -> bool {
    let before = *lines;
    while *lines < EMPTY_LINES_MAX && client.input.unread().starts_with(b"\r\n") {
        client.input.consume(2);
        *lines += 1;
    }
    *lines > before
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
    client.origin.is_trusted = config.trusted.iter().any(|it| it.contains(client.origin.ip));
    rewrite::request(&mut client.head, &head, client.origin);
    let sender = key::Sender { origin: client.origin, trusted: &config.trusted };
    let key = config.hash_key.as_ref().and_then(|source| key::of(source, &head, sender));
    let order = Order {
        kind: head.kind,
        framing: head.framing,
        head_end: client.head.len(),
        minor: head.minor,
        keep_alive: head.keep_alive,
        expects: head.expects,
        upgrades: head.upgrade.is_some(),
        token: config.sticky.as_deref().and_then(|name| key::token(head.fields, name)),
        key: key.map(|key| hash(&key)),
        doubt: config.hash_key.as_ref().and_then(|source| key::doubt(source, &head)),
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
