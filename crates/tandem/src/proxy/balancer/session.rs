//! Talks to one client of a balancer and to its endpoint: who it is, where it goes, and its bytes.
//! In: an accepted connection. Out: nothing but counters.
//! States: (PROXY header) → Held → Connected → (one side closes) half open → Ended.
//! Keeps: a connect that fails is tried at another endpoint, since nothing was sent (H43); what
//! breaks later is not: nobody here knows what it meant.
//! Costs: whatever guards a connection looks at it only after `LOOK`, when most are over: until
//! then it is not cut, and outlives the stop of its door.
//! Full: whoever has said nothing yet makes room for others.
//! Not here: who is chosen (`group.rs`), how an endpoint is found (`session/search.rs`), the bytes
//! (`copying.rs`).
//! Tested by: `tests.rs`.

mod encrypted;
mod search;

use super::BalancerConfig;
use super::copying::Copying;
use super::dial::Dialer;
use super::group::{Group, Picked};
use super::header::{self, HEADER_MAX, Parsed};
use super::limiter::{self, Rates};
use super::listener::Tally;
use super::member::Claim;
use super::member::progress::Progress;
use crate::proxy::http::{self, Http, Shows, Stream};
use crate::runtime::clock;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::woken::when_woken;
pub(in crate::proxy) use encrypted::shake_hands;
use search::Search;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Event;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// For a PROXY header, which the neighbour sends with its first packet.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Whoever has been silent for so long may have to make room.
pub(in crate::proxy) const SETTLED: Duration = Duration::from_secs(1);
/// Whoever takes so long to shake hands may have to as well.
pub(in crate::proxy) const LAGGARD: Duration = Duration::from_secs(3);
/// For how long a client is not looked at, and a change is not looked for: what is over before
/// costs no look.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// What a session needs of its balancer.
#[derive(Debug)]
pub(in crate::proxy) struct Shared {
    /// As it is now; a session keeps the one that it began with.
    pub(in crate::proxy) config: watch::Sender<Arc<BalancerConfig>>,
    pub(in crate::proxy) group: Arc<Group>,
    pub(in crate::proxy) dialer: Arc<Dialer>,
    /// What clients are shown of a balancer of connections.
    pub(in crate::proxy) shows: Shows,
    /// For connections that many sessions use.
    pub(in crate::proxy) supervisor: Supervisor,
    pub(in crate::proxy) tally: Tally,
    pub(in crate::proxy) rates: Rates,
    /// Wakes whoever has been silent for longest, to make room for somebody else.
    pub(in crate::proxy) room: Notify,
    /// There if it balances requests and not connections.
    pub(in crate::proxy) http: Option<Http>,
    /// No new sessions.
    pub(in crate::proxy) closing: CancellationToken,
    /// No sessions.
    pub(in crate::proxy) stop: CancellationToken,
}

impl Shared {
    pub(in crate::proxy) fn config(&self) -> Arc<BalancerConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// How many places less are free than shall be: with none, a stranger who opens connections and
    /// says nothing would lock everybody out.
    pub(in crate::proxy) fn lacks_room(&self) -> usize {
        let max = self.config.borrow().sessions_max;
        let taken = usize::try_from(self.tally.sessions.load(Ordering::Relaxed));
        max.div_ceil(16).saturating_sub(max.saturating_sub(taken.unwrap_or(usize::MAX)))
    }

    /// As many of those who have said nothing for long are closed as room is lacking.
    pub(in crate::proxy) fn make_room(&self) {
        (0..self.lacks_room()).for_each(|_| self.room.notify_one());
    }
}

/// Serves one client to its end.
pub(in crate::proxy) async fn serve(shared: &Shared, mut client: TcpStream, from: SocketAddr) {
    let config = shared.config();
    let who = if config.expects_header_from(from.ip()) {
        // Beside a connection that is only copied, it is large.
        match Box::pin(introduction(shared, &mut client)).await {
            Some(said) => said.unwrap_or(from),
            None => return,
        }
    } else {
        from
    };
    if let Some(requests) = &shared.http {
        // Beside a connection that is only copied, it is large.
        Box::pin(http::serve(shared, requests, client, who)).await;
        return;
    }
    // Closed and not held: what is held takes a place from clients that are within their rate.
    if shared.rates.take(limiter::client(who.ip())).is_err() {
        return;
    }
    let tls = shared.shows.config();
    if tls.is_some() || config.encrypts {
        // Beside a connection that is only copied, it is large.
        Box::pin(encrypted::serve(shared, &config, (client, who), tls)).await;
        return;
    }
    let found = endpoint(shared, &config, (&client, who)).await;
    let Some((claim, server)) = found else { return };
    let Stream::Plain(server) = server else {
        // Its endpoint wants that since it came.
        let both = (Stream::Plain(client), server);
        Box::pin(encrypted::copy(shared, &config, both, claim)).await;
        return;
    };
    let now = Instant::now();
    let progress = Progress::new(now);
    let mut copying = Copying::new(client, server, (config.idle_timeout, now));
    let mut looks = None;
    let over = poll_fn(|cx| {
        if !progress.has_lasted() {
            return Poll::Pending;
        }
        let looks = looks.get_or_insert_with(|| Box::pin(look(shared, &claim, &progress)));
        looks.as_mut().poll(cx)
    });
    let ended = copying.run(&progress, over).await;
    if ended.is_err() {
        copying.cut();
    }
    // Both sides see the end first.
    drop(copying);
    note(shared, &claim, ended);
}

/// Ready when a connection ends though neither side has ended it.
async fn look(shared: &Shared, claim: &Claim, progress: &Progress) -> Why {
    // Not whenever a byte moves.
    when_woken(pin!(over(shared, claim, progress))).await
}

/// Why a connection ends that neither side has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Its endpoint gets no more work, and had time enough; or nobody is there any more who had it.
    Cut,
    /// What it belongs to is somebody else's.
    Moved,
    /// Its door is closed.
    Closed,
}

/// Ready when a connection ends though neither side has ended it.
async fn over(shared: &Shared, claim: &Claim, progress: &Progress) -> Why {
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => Why::Closed,
        _ = claim.over(progress) => Why::Cut,
        () = moved(shared, claim) => Why::Moved,
    }
}

/// Takes note of how a connection ended.
fn note(shared: &Shared, claim: &Claim, ended: Result<bool, Why>) {
    match ended {
        Ok(true) => shared.group.note(&claim.0, Event::WorkSucceeded),
        // An endpoint that takes connections and drops them without a word does no work.
        Ok(false) => {
            claim.0.failed_because("it drops connections without a word");
            shared.group.note(&claim.0, Event::WorkFailed);
        }
        Err(Why::Cut) => claim.0.was_cut(),
        Err(Why::Moved | Why::Closed) => {}
    }
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

/// Ready when somebody else needs the place of whoever has been silent for longest. Who says one
/// thing after the other does not even wait for it: that would cost each request two locks.
pub(in crate::proxy) async fn makes_room(shared: &Shared, settled: Instant) {
    sleep_until(settled).await;
    loop {
        shared.room.notified().await;
        // Others may have made room since.
        if shared.lacks_room() > 0 {
            return;
        }
    }
}

/// False where the client says nothing, and makes room.
async fn speaks(shared: &Shared, client: &TcpStream) -> bool {
    tokio::select! {
        biased;
        read = client.readable() => read.is_ok(),
        () = makes_room(shared, Instant::now() + SETTLED) => false,
    }
}

/// Who the client is by its PROXY header; inside, none: the one that it comes from. None where it
/// is refused, or makes room.
async fn introduction(shared: &Shared, client: &mut TcpStream) -> Option<Option<SocketAddr>> {
    let read = tokio::select! {
        biased;
        read = timeout(HEADER_TIMEOUT, read_header(client)) => read,
        () = makes_room(shared, Instant::now() + SETTLED) => return None,
    };
    let said = read.ok().and_then(Result::ok);
    if said.is_none() {
        shared.tally.refused.fetch_add(1, Ordering::Relaxed);
    }
    said
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
    // Most have one at once: they need no look.
    sleep(LOOK).await;
    let mut byte = [0];
    loop {
        match client.peek(&mut byte).await {
            Ok(0) | Err(_) => return,
            // It spoke first and waits for an answer: from here on only its reset would be seen.
            Ok(_) => std::future::pending().await,
        }
    }
}

/// Ready once somebody else is known to own what the connection belongs to: whoever has it works on
/// that no more. Never where work has no owners.
async fn moved(shared: &Shared, claim: &Claim) {
    let Some(routed) = claim.1 else { return std::future::pending().await };
    let mut changed = shared.group.changed();
    loop {
        let owner = shared.group.owner(routed);
        if owner.is_some_and(|owned| owned.address != claim.0.address) {
            return;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Ready once the endpoint gets no more work: a copy that was moved may be behind a cut, and would
/// be waited for until time is up.
async fn withdrawn(shared: &Shared, claim: &Claim) {
    let mut changed = shared.group.changed();
    while !claim.0.is_leaving() {
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Ready once an endpoint that is still to take a connection is the wrong one for it.
pub(in crate::proxy) async fn goes_elsewhere(shared: &Shared, claim: &Claim) {
    // Most take a connection at once: they need no look.
    sleep(LOOK).await;
    wrong(shared, claim).await;
}

/// The same, looked at from the beginning.
async fn wrong(shared: &Shared, claim: &Claim) {
    tokio::select! {
        biased;
        () = withdrawn(shared, claim) => {}
        () = moved(shared, claim) => {}
        _ = claim.cut() => {}
    }
}

/// Finds an endpoint that takes the connection, while the client waits for it.
async fn endpoint(
    shared: &Shared,
    config: &BalancerConfig,
    (client, who): (&TcpStream, SocketAddr),
) -> Option<(Claim, Stream)> {
    let _held = HeldCount::new(&shared.tally.held);
    let mut search = Search::new(shared, config, (client, who));
    let mut picked = Some(search.ask());
    if let Some(Picked::Place(claim)) = picked {
        // Nearly always the first one takes it: what guards a longer wait costs more than that.
        let first = search.connect(claim).await;
        if first.is_some() {
            return first;
        }
        picked = None;
    }
    // Beside a connection that is only copied, it is large.
    Box::pin(hold(shared, config, (client, search, picked))).await
}

/// Waits for an endpoint for as long as the client does, and may.
async fn hold(
    shared: &Shared,
    config: &BalancerConfig,
    (client, search, picked): (&TcpStream, Search<'_>, Option<Picked>),
) -> Option<(Claim, Stream)> {
    let found = tokio::select! {
        biased;
        () = shared.closing.cancelled() => return None,
        found = timeout(config.hold_max, search.go_on(picked)) => found.ok().flatten(),
        () = left(client) => return None,
    };
    if found.is_none() {
        shared.tally.expired.fetch_add(1, Ordering::Relaxed);
    }
    found
}

/// Until somebody may have come into service; false where nothing but time has passed.
pub(in crate::proxy) async fn wait(shared: &Shared, changed: &mut watch::Receiver<()>) -> bool {
    let next = shared.group.deadline().map(|at| Instant::now() + at.since(clock::now()));
    let change = changed.changed();
    match next {
        Some(next) => timeout_at(next.max(Instant::now() + LOOK), change).await.is_ok(),
        None => {
            _ = change.await;
            true
        }
    }
}
