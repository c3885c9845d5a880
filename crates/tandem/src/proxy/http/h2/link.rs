//! Talks to endpoints over connections of HTTP/2, each of which carries many requests at once.
//! In: an address. Out: an `EndpointStream` on a connection that has room.
//! States of a connection: Opening → Open → (idle, GOAWAY, or broken) → Over.
//! Keeps: while one is being opened nobody opens another one to the same address: who comes
//! meanwhile waits for it, and learns why it failed. Connections that are no longer wanted take no
//! more requests, and end when those that they have do; so do those that are worn (`meter.rs`).
//! Not here: connecting (`balancer/dial.rs`), requests (`endpoint.rs`).
//! Tested by: `tests/h2/endpoints.rs`.

use super::endpoint::EndpointStream;
use super::io::{Io, Watch};
use super::life::Life;
use super::meter::Peer;
use super::outgoing::SEND_MAX;
use super::{ALPN, ENDPOINT_CRUMBS, ENDPOINT_RESETS, STREAM_WINDOW, STREAMS_MAX};
use crate::proxy::http::stream::{Buffer, Stream, Timer};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Every stream may fill its own window: one that nobody reads keeps no other one waiting.
const ENDPOINT_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX;
/// So many are opened for one request, if nothing is left of each when its turn comes.
const GONE_MAX: u32 = 3;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: SocketAddr,
    is_encrypted: bool,
    send: SendRequest<Bytes>,
    in_flight: AtomicU32,
    /// To any request: until then nobody knows that its endpoint serves at all.
    has_answered: AtomicBool,
    pub(super) watch: Arc<Watch>,
    idle_since: Mutex<Instant>,
}

impl Link {
    pub(super) const fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }

    pub(super) fn asked(&self) {
        self.watch.asked();
    }

    pub(super) fn answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.watch.served();
    }

    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    pub(super) fn freed(&self) {
        *lock(&self.idle_since) = Instant::now();
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many streams it has at once.
    fn streams_max(&self) -> u32 {
        let max = u32::try_from(self.send.current_max_send_streams()).unwrap_or(STREAMS_MAX);
        if self.watch.is_worn() { 0 } else { max.min(STREAMS_MAX) }
    }

    /// It takes none, though it has none.
    fn takes_nothing(&self) -> bool {
        self.streams_max() == 0 && self.in_flight.load(Ordering::Acquire) == 0
    }

    /// A stream, if it has room for one; an error if it never will.
    fn stream(self: &Arc<Self>) -> Result<Option<EndpointStream>, h2::Error> {
        let mut send = self.send.clone();
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(ready) = send.poll_ready(&mut nobody) {
            ready?;
        }
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        if before >= self.streams_max() {
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
            return Ok(None);
        }
        let was_idle = before == 0 && self.has_answered();
        Ok(Some(EndpointStream::new(Arc::clone(self), send, was_idle)))
    }

    fn is_wanted(&self, idle_timeout: Duration) -> bool {
        let is_idle = self.in_flight.load(Ordering::Acquire) == 0;
        !is_idle || lock(&self.idle_since).elapsed() < idle_timeout
    }
}

/// What was found: true if it speaks HTTP/2.
type Outcome = Option<Result<bool, Arc<str>>>;

#[derive(Debug, Default)]
struct State {
    generation: u64,
    open: BTreeMap<SocketAddr, Vec<Arc<Link>>>,
    opening: BTreeMap<SocketAddr, watch::Receiver<Outcome>>,
    /// Asked what they speak, these said HTTP/1.1.
    old: BTreeSet<SocketAddr>,
}

/// The connections of one balancer.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy::http) struct Links(Arc<Mutex<State>>);

/// How one is opened.
pub(in crate::proxy::http) struct Opening<F> {
    pub(in crate::proxy::http) supervisor: Supervisor,
    pub(in crate::proxy::http) connect: F,
    pub(in crate::proxy::http) within: Duration,
    pub(in crate::proxy::http) head_bytes_max: usize,
}

impl Links {
    /// A stream on a connection that is there.
    pub(in crate::proxy::http) fn take(&self, address: SocketAddr) -> Option<Stream> {
        let mut state = lock(&self.0);
        let links = state.open.get_mut(&address)?;
        let mut found = None;
        links.retain(|link| {
            if found.is_some() {
                return true;
            }
            let stream = link.stream();
            // What takes nothing and has nothing is no use: a new one may be told otherwise.
            let is_alive = stream.is_ok() && !link.takes_nothing();
            found = stream.ok().flatten();
            is_alive
        });
        drop(state);
        found.map(|stream| Stream::H2Endpoint(Box::new(stream)))
    }

    /// An endpoint that was asked what it speaks speaks HTTP/1.1.
    pub(in crate::proxy::http) fn is_old(&self, address: SocketAddr) -> bool {
        lock(&self.0).old.contains(&address)
    }

    /// It does so no more.
    pub(in crate::proxy::http) fn ask_again(&self, address: SocketAddr) {
        lock(&self.0).old.remove(&address);
    }

    /// A stream on one that is opened for it, or for somebody who came before; none if the endpoint
    /// speaks HTTP/1.1.
    ///
    /// # Errors
    /// Why there is none, for operators.
    pub(in crate::proxy::http) async fn open<F>(
        &self,
        address: SocketAddr,
        opening: impl Fn() -> Opening<F>,
    ) -> Result<Option<Stream>, String>
    where
        F: Future<Output = std::io::Result<Stream>> + Send + 'static,
    {
        let mut gone = 0;
        // Others may fill each: one waits for as long as its client does. Too many may be gone.
        loop {
            if let Some(stream) = self.take(address) {
                return Ok(Some(stream));
            }
            if gone == GONE_MAX {
                return Err("its connections take no requests".to_owned());
            }
            gone += u32::from(!self.has_any(address));
            let mut outcome = self.opening(address, &opening);
            let outcome = match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone(),
                Err(_) => return Err("nobody opens connections any more".to_owned()),
            };
            match outcome {
                Some(Err(why)) => return Err(why.to_string()),
                Some(Ok(false)) => return Ok(None),
                Some(Ok(true)) | None => {}
            }
        }
    }

    fn has_any(&self, address: SocketAddr) -> bool {
        lock(&self.0).open.get(&address).is_some_and(|links| !links.is_empty())
    }

    /// How one is opened, by whoever began.
    fn opening<F>(
        &self,
        address: SocketAddr,
        opening: &impl Fn() -> Opening<F>,
    ) -> watch::Receiver<Outcome>
    where
        F: Future<Output = std::io::Result<Stream>> + Send + 'static,
    {
        let mut state = lock(&self.0);
        if let Some(outcome) = state.opening.get(&address)
            // Whoever opens it still does: it may have ended by a panic.
            && outcome.has_changed().is_ok()
        {
            return outcome.clone();
        }
        let (tell, outcome) = watch::channel(None);
        let opening = opening();
        state.opening.insert(address, outcome.clone());
        let (links, supervisor) = (self.clone(), opening.supervisor.clone());
        supervisor.spawn("http2 endpoint", TaskKind::Session, async move {
            links.run(address, opening, tell).await;
        });
        outcome
    }

    /// Opens a connection, and drives it to its end.
    async fn run<F>(self, address: SocketAddr, opening: Opening<F>, tell: watch::Sender<Outcome>)
    where
        F: Future<Output = std::io::Result<Stream>> + Send + 'static,
    {
        let Opening { supervisor, connect, within, head_bytes_max } = opening;
        let generation = lock(&self.0).generation;
        let opened = timeout(within, begin(connect, head_bytes_max)).await;
        let begun = {
            let mut state = lock(&self.0);
            state.opening.remove(&address);
            match opened {
                // Who waits for it opens one as they are opened now, however this went.
                _ if state.generation != generation => Ok((true, None)),
                Ok(Ok(None)) => {
                    state.old.insert(address);
                    Ok((false, None))
                }
                Ok(Ok(Some(Begun { send, driver, is_encrypted }))) => {
                    let link = Link {
                        address,
                        is_encrypted,
                        send,
                        in_flight: AtomicU32::new(0),
                        has_answered: AtomicBool::new(false),
                        watch: Arc::clone(&driver.watch),
                        idle_since: Mutex::new(Instant::now()),
                    };
                    state.open.entry(address).or_default().push(Arc::new(link));
                    Ok((true, Some(driver)))
                }
                Ok(Err(why)) => Err(why),
                Err(_) => Err("no answer in time".to_owned()),
            }
        };
        match begun {
            Ok((is_http2, driver)) => {
                tell.send_replace(Some(Ok(is_http2)));
                // From here on it lives as long as somebody wants it, and not the other way round.
                drop((self, tell));
                let Some(mut driver) = driver else { return };
                tokio::select! {
                    () = supervisor.stopping().cancelled_owned() => {}
                    () = poll_fn(|cx| driver.poll(cx)) => {}
                }
            }
            Err(why) => _ = tell.send_replace(Some(Err(why.into()))),
        }
    }

    /// Lets all go: requests that are under way end, no others begin on them.
    pub(in crate::proxy::http) fn clear(&self) {
        let mut state = lock(&self.0);
        state.generation += 1;
        state.old.clear();
        let open = std::mem::take(&mut state.open);
        drop(state);
        drop(open);
    }

    /// Lets those go that are idle for too long, gone, or nobody's.
    pub(in crate::proxy::http) fn sweep(&self, addresses: &[SocketAddr], idle_timeout: Duration) {
        let mut gone = Vec::new();
        let mut state = lock(&self.0);
        state.open.retain(|address, links| {
            let known = addresses.contains(address);
            gone.extend(links.extract_if(.., |link| !known || !link.is_wanted(idle_timeout)));
            !links.is_empty()
        });
        state.old.retain(|address| addresses.contains(address));
        drop(state);
        drop(gone);
    }
}

struct Begun {
    send: SendRequest<Bytes>,
    driver: Driver,
    is_encrypted: bool,
}

/// None if it was asked what it speaks, and did not say HTTP/2.
async fn begin(
    connect: impl Future<Output = std::io::Result<Stream>>,
    head_bytes_max: usize,
) -> Result<Option<Begun>, String> {
    let stream = connect.await.map_err(|error| error.to_string())?;
    if stream.is_encrypted() && stream.protocol() != Some(ALPN) {
        return Ok(None);
    }
    let is_encrypted = stream.is_encrypted();
    let watch = Watch::new(Peer::Endpoint);
    let io = Io::new(stream, Buffer::default(), Arc::clone(&watch));
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(ENDPOINT_WINDOW)
        .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_MAX)
        .data_frame_budget(ENDPOINT_CRUMBS)
        .max_concurrent_reset_streams(ENDPOINT_RESETS)
        .max_local_error_reset_streams(None)
        // How many it takes at once is not guessed: that would break its rules, or be refused.
        .initial_max_send_streams(0)
        .enable_push(false);
    let (send, mut connection) =
        builder.handshake::<_, Bytes>(io).await.map_err(|error| error.to_string())?;
    let life = Life::new(connection.ping_pong());
    let mut driver = Driver { connection, life, watch, timer: Timer::new() };
    // Its settings come first, and only from somebody who speaks HTTP/2.
    poll_fn(|cx| match driver.poll(cx) {
        Poll::Ready(()) => Poll::Ready(Err("it does not speak HTTP/2".to_owned())),
        Poll::Pending if send.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok(Some(Begun { send, driver, is_encrypted }))
}

/// Moves the frames of one connection.
struct Driver {
    connection: Connection<Io, Bytes>,
    life: Life,
    watch: Arc<Watch>,
    timer: Timer,
}

impl Driver {
    /// Ready when it is over: nobody wants it, or it broke.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.watch.begin_turn();
        loop {
            if Pin::new(&mut self.connection).poll(cx).is_ready() || self.watch.is_flooded() {
                return Poll::Ready(());
            }
            let Some(deadline) = self.life.poll(&self.watch, cx) else { return Poll::Ready(()) };
            ready!(self.timer.poll(deadline, cx));
        }
    }
}

/// Speaks to an endpoint on a connection for one question only.
///
/// # Errors
/// Why that did not begin, or what `ask` says.
pub(in crate::proxy) async fn once<T>(
    stream: Stream,
    address: SocketAddr,
    ask: impl AsyncFnOnce(Stream) -> Result<T, String>,
) -> Result<T, String> {
    let connect = std::future::ready(Ok(stream));
    let begun = begin(connect, 16 * 1024).await?;
    let Begun { send, mut driver, is_encrypted } = begun.ok_or("it does not speak HTTP/2")?;
    let watch = Arc::clone(&driver.watch);
    let link = Arc::new(Link {
        address,
        is_encrypted,
        send,
        in_flight: AtomicU32::new(0),
        has_answered: AtomicBool::new(false),
        watch,
        idle_since: Mutex::new(Instant::now()),
    });
    let stream = link.stream().map_err(|error| error.to_string())?.ok_or("it takes no requests")?;
    let asked = ask(Stream::H2Endpoint(Box::new(stream)));
    tokio::select! {
        biased;
        asked = asked => asked,
        () = poll_fn(|cx| driver.poll(cx)) => Err("it closed the check's connection".to_owned()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves a value half changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
