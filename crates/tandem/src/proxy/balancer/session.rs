//! Talks to one client of a balancer and to its endpoint: who it is, where it goes, and its bytes.
//! In: an accepted connection. Out: nothing but counters.
//! States: (PROXY header) → Held → Connected → (one side closes) half open → Ended.
//! Keeps: a connect that fails is tried at another endpoint, since nothing was sent (H43); what
//! breaks later is not: nobody here knows what it meant.
//! Not here: who is chosen (`group.rs`).
//! Tested by: `tests.rs`.

use super::BalancerConfig;
use super::group::{Claim, Group};
use super::header::{self, HEADER_MAX, Parsed};
use super::listener::Tally;
use crate::proxy::flow::Flow;
use crate::proxy::http::{self, Http, Stream};
use crate::runtime::clock;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Event;
use tandem_core::clustering::load_balanced::rendezvous;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// For a PROXY header, which the neighbour sends with its first packet.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client waits at least before all endpoints that failed are tried again.
const RETRY: Duration = Duration::from_millis(100);

/// What a session needs of its balancer.
#[derive(Debug)]
pub(in crate::proxy) struct Shared {
    pub(in crate::proxy) config: BalancerConfig,
    pub(in crate::proxy) group: std::sync::Arc<Group>,
    pub(in crate::proxy) tally: Tally,
    /// There if it balances requests and not connections.
    pub(in crate::proxy) http: Option<Http>,
    /// No new sessions.
    pub(in crate::proxy) closing: CancellationToken,
    /// No sessions.
    pub(in crate::proxy) stop: CancellationToken,
}

/// Serves one client to its end.
pub(in crate::proxy) async fn serve(shared: &Shared, mut client: TcpStream, from: SocketAddr) {
    let _ = client.set_nodelay(true);
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let who = if shared.config.accept_proxy {
        match timeout(HEADER_TIMEOUT, read_header(&mut client)).await {
            Ok(Ok(said)) => said.unwrap_or(from),
            Ok(Err(_)) | Err(_) => {
                count(&shared.tally.refused);
                return;
            }
        }
    } else {
        from
    };
    if let Some(requests) = &shared.http {
        http::serve(shared, requests, Stream::Plain(client), who).await;
        return;
    }
    let held = HeldCount::new(&shared.tally.held);
    let found = tokio::select! {
        biased;
        () = shared.closing.cancelled() => return,
        found = timeout(shared.config.hold_max, reach(shared, who)) => found,
        () = left(&client) => return,
    };
    drop(held);
    let Ok((claim, mut server)) = found else {
        count(&shared.tally.expired);
        return;
    };
    let Ok(to) = client.local_addr() else { return };
    if let Some(version) = shared.config.send_proxy
        && server.write_all(&header::write(version, who, to)).await.is_err()
    {
        shared.group.note(&claim.0, Event::WorkFailed);
        return;
    }
    let mut session = Copying::new(client, server, shared.config.idle_timeout);
    let end = tokio::select! {
        biased;
        () = shared.stop.cancelled() => return,
        end = poll_fn(|cx| session.poll(cx)) => end,
    };
    // An endpoint that takes connections and drops them without a word does no work.
    let broke = matches!(end, Err(Side::Server)) && !session.server_spoke;
    shared.group.note(&claim.0, if broke { Event::WorkFailed } else { Event::WorkSucceeded });
}

/// One of the held, until dropped.
pub(in crate::proxy) struct HeldCount<'a>(&'a AtomicU64);

impl<'a> HeldCount<'a> {
    pub(in crate::proxy) fn new(held: &'a AtomicU64) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self(held)
    }
}

impl Drop for HeldCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads a header and not one byte more: looks first, then takes what it found.
async fn read_header(client: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut bytes = [0; HEADER_MAX];
    let mut seen = 0;
    loop {
        let peeked = client.peek(&mut bytes).await?;
        match header::parse(&bytes[..peeked]) {
            Parsed::Header(length, said) => {
                client.read_exact(&mut bytes[..length]).await?;
                return Ok(said);
            }
            Parsed::Incomplete if peeked > seen => seen = peeked,
            // The same bytes again: a peek does not wait for more. Or the client closed its side.
            Parsed::Incomplete if peeked > 0 => sleep(Duration::from_millis(5)).await,
            Parsed::Incomplete | Parsed::Refused => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Ready once the client has closed its connection before it had an endpoint.
async fn left(client: &TcpStream) {
    let mut byte = [0];
    loop {
        match client.peek(&mut byte).await {
            Ok(0) | Err(_) => return,
            // It spoke first and waits for an answer: from here on only its reset would be seen.
            Ok(_) => std::future::pending().await,
        }
    }
}

/// Finds an endpoint that takes the connection.
async fn reach(shared: &Shared, who: SocketAddr) -> (Claim, TcpStream) {
    let key = rendezvous::hash(who.ip().to_canonical().to_string().as_bytes());
    let mut changed = shared.group.changed();
    let mut failed: Vec<SocketAddr> = Vec::new();
    loop {
        changed.mark_unchanged();
        let Some(claim) = shared.group.choose(key, &failed) else {
            wait(shared, &mut changed).await;
            continue;
        };
        let address = claim.0.address;
        if failed.contains(&address) {
            // Everyone was tried: once more, after a pause.
            failed.clear();
            drop(claim);
            sleep(RETRY).await;
            continue;
        }
        let begun = Instant::now();
        match timeout(shared.config.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(server)) => {
                let _ = server.set_nodelay(true);
                claim.0.answered_in(begun.elapsed());
                return (claim, server);
            }
            Ok(Err(_)) | Err(_) => {
                shared.group.note(&claim.0, Event::WorkFailed);
                shared.tally.retried.fetch_add(1, Ordering::Relaxed);
                failed.push(address);
            }
        }
    }
}

/// Until somebody may have come into service.
pub(in crate::proxy) async fn wait(
    shared: &Shared,
    changed: &mut tokio::sync::watch::Receiver<()>,
) {
    let next = shared.group.deadline().map(|at| Instant::now() + at.since(clock::now()));
    let change = changed.changed();
    match next {
        Some(next) => _ = timeout_at(next.max(Instant::now() + RETRY), change).await,
        None => _ = change.await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Both directions of a connection.
struct Copying {
    client: TcpStream,
    server: TcpStream,
    /// None once that direction is over.
    up: Option<Flow>,
    down: Option<Flow>,
    server_spoke: bool,
    idle: Pin<Box<Sleep>>,
    idle_timeout: Duration,
    moved_at: Instant,
}

impl Copying {
    fn new(client: TcpStream, server: TcpStream, idle_timeout: Duration) -> Self {
        Self {
            client,
            server,
            up: Some(Flow::holding(Vec::new())),
            down: Some(Flow::holding(Vec::new())),
            server_spoke: false,
            idle: Box::pin(sleep(idle_timeout)),
            idle_timeout,
            moved_at: Instant::now(),
        }
    }

    /// Ready when both directions are over, one side broke, or nothing moved for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Side>> {
        let mut moved = false;
        if let Some(flow) = &mut self.up {
            let end = copy(
                flow,
                (&mut self.client, Side::Client),
                (&mut self.server, Side::Server),
                cx,
                &mut moved,
            );
            if let Poll::Ready(end) = end {
                end?;
                self.up = None;
            }
        }
        let before = moved;
        moved = false;
        if let Some(flow) = &mut self.down {
            let end = copy(
                flow,
                (&mut self.server, Side::Server),
                (&mut self.client, Side::Client),
                cx,
                &mut moved,
            );
            self.server_spoke |= moved;
            if let Poll::Ready(end) = end {
                end?;
                self.down = None;
            }
        }
        if self.up.is_none() && self.down.is_none() {
            return Poll::Ready(Ok(()));
        }
        self.poll_idle(moved || before, cx)
    }

    /// The timer is moved only when it rings: a byte costs no more than a look at the clock.
    fn poll_idle(&mut self, moved: bool, cx: &mut Context<'_>) -> Poll<Result<(), Side>> {
        if moved {
            self.moved_at = Instant::now();
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            let deadline = self.moved_at + self.idle_timeout;
            if deadline <= Instant::now() {
                return Poll::Ready(Ok(()));
            }
            self.idle.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// Copies until `from` closed its side, which `to` is then told.
fn copy(
    flow: &mut Flow,
    (from, reading): (&mut TcpStream, Side),
    (to, writing): (&mut TcpStream, Side),
    cx: &mut Context<'_>,
    moved: &mut bool,
) -> Poll<Result<(), Side>> {
    loop {
        if !flow.is_empty() {
            *moved = true;
            ready!(flow.poll_drain(to, cx)).map_err(|_| writing)?;
        }
        let read = ready!(flow.poll_fill(from, cx)).map_err(|_| reading)?;
        if read == 0 {
            ready!(Pin::new(to).poll_shutdown(cx)).map_err(|_| writing)?;
            return Poll::Ready(Ok(()));
        }
    }
}
