//! Talks to one client that speaks HTTP/2: takes its streams, and serves them side by side.
//! In: a connection. Out: `ClientStream`s, each with a session of its own.
//! States: Handshake → Open → (closing, idle for too long, or while somebody else needs the place)
//! GOAWAY, streams end → Over; flooded → GOAWAY → Over.
//! All streams are served in the task of their connection: when that ends, they do.
//! Keeps: a client has so many streams, so many bytes under way, and no more.
//! Not here: what becomes of a request (`session.rs`).
//! Tested by: `tests/h2/`.

use super::client::ClientStream;
use super::io::{Io, Watch};
use super::life::Life;
use super::meter::Peer;
use super::outgoing::SEND_MAX;
use super::{CLIENT_CRUMBS, CLIENT_WINDOW, STREAM_WINDOW, STREAMS_MAX, Takes};
use crate::proxy::balancer::session::SETTLED;
use crate::proxy::balancer::session::Shared;
use crate::proxy::http::session::{self, Client, Ends, FAREWELL};
use crate::proxy::http::stream::{Buffer, Stream, Timer};
use crate::proxy::http::wire::rewrite::Origin;
use crate::proxy::http::{Http, HttpConfig, Protocol};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout};

/// Streams that the client reset before anybody saw them: all that it may have. A page that is left
/// takes them back at once; whoever does that again and again is found by `meter.rs`.
const RESETS_MAX: usize = STREAMS_MAX as usize;

/// Who serves.
#[derive(Clone, Copy)]
pub(in crate::proxy::http) struct Server<'a> {
    pub(in crate::proxy::http) shared: &'a Shared,
    pub(in crate::proxy::http) http: &'a Http,
    pub(in crate::proxy::http) origin: Origin,
    pub(in crate::proxy::http) ends: Option<Ends>,
}

/// Serves a client to its end. `before`: what was read of it already.
pub(in crate::proxy::http) async fn serve(
    server: Server<'_>,
    config: &HttpConfig,
    (stream, before): (Stream, Buffer),
) {
    let watch = Watch::new(Peer::Client);
    let io = Io::new(stream, before, Arc::clone(&watch));
    let handshake = timeout(config.head_timeout, builder(config).handshake::<_, Bytes>(io)).await;
    let Ok(Ok(mut connection)) = handshake else {
        server.shared.tally.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let life = Life::new(connection.ping_pong());
    let mut open = Open {
        server,
        connection,
        watch,
        life,
        keep_alive: config.keep_alive,
        streams: FuturesUnordered::new(),
        idle_since: Instant::now(),
        room: None,
        stage: Stage::Serving,
        timer: Timer::new(),
    };
    let mut closing = pin!(server.shared.closing.cancelled());
    poll_fn(|cx| {
        if open.stage == Stage::Serving && closing.as_mut().poll(cx).is_ready() {
            open.drain();
        }
        open.poll(cx)
    })
    .await;
    // What is left of its streams learns that it is gone, and says so to the endpoints.
    let Open { connection, mut streams, .. } = open;
    drop(connection);
    while let Some(()) = streams.next().await {}
}

pub(super) fn builder(config: &HttpConfig) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_concurrent_reset_streams(RESETS_MAX)
        .max_send_buffer_size(SEND_MAX)
        .data_frame_budget(CLIENT_CRUMBS)
        .enable_connect_protocol();
    builder
}

struct Open<'a> {
    server: Server<'a>,
    connection: Connection<Io, Bytes>,
    watch: Arc<Watch>,
    life: Life,
    streams: FuturesUnordered<BoxFuture<'a, ()>>,
    keep_alive: Duration,
    /// When its last stream ended.
    idle_since: Instant,
    /// Ready when it has to make room; there once it has been idle for long.
    room: Option<Pin<Box<Notified<'a>>>>,
    stage: Stage,
    timer: Timer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// It takes no more streams, those that are there end by themselves.
    Draining,
    /// It is told why, and cut then.
    Ending(Instant),
}

impl Open<'_> {
    /// Ready when it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.watch.begin_turn();
        loop {
            while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {
                self.idle_since = Instant::now();
            }
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.begin(request, respond);
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if self.watch.is_flooded() && !matches!(self.stage, Stage::Ending(_)) {
                self.server.http.tally.floods.fetch_add(1, Ordering::Relaxed);
                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.stage = Stage::Ending(Instant::now() + FAREWELL);
                continue;
            }
            let deadline = match (self.stage, self.streams.is_empty()) {
                (Stage::Ending(by), _) => by,
                (Stage::Draining, true) => self.idle_since + FAREWELL,
                (Stage::Serving, true) => match self.poll_idle(cx) {
                    Some(deadline) => deadline,
                    None => {
                        self.drain();
                        continue;
                    }
                },
                (Stage::Serving | Stage::Draining, false) => {
                    match self.life.poll(&self.watch, cx) {
                        Some(deadline) => deadline,
                        None => return Poll::Ready(()),
                    }
                }
            };
            ready!(self.timer.poll(deadline, cx));
            match (self.stage, self.streams.is_empty()) {
                (Stage::Ending(_), _) | (Stage::Draining, true) => return Poll::Ready(()),
                // It is asked whether it lives, or did not say so, or has been idle for long.
                (Stage::Serving, _) | (Stage::Draining, false) => {}
            }
        }
    }

    /// When to look again at one that has no streams; none if it has to go.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        let (now, end) = (Instant::now(), self.idle_since + self.keep_alive);
        if now >= end {
            return None;
        }
        let settled = self.idle_since + SETTLED;
        if now < settled {
            return Some(settled.min(end));
        }
        let shared = self.server.shared;
        let room = self.room.get_or_insert_with(|| Box::pin(shared.room.notified()));
        room.as_mut().poll(cx).is_pending().then_some(end)
    }

    fn begin(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.room = None;
        let Server { shared, http, origin, ends } = self.server;
        let endpoints = endpoints(shared);
        let stream = ClientStream::new(request, respond, &self.watch, endpoints);
        let Some((stream, head)) = stream else {
            http.tally.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut client = Client::new(Stream::H2Client(Box::new(stream)), origin, head.into());
        client.ends = ends;
        self.streams.push(Box::pin(async move {
            session::run(shared, http, &mut client).await;
        }));
    }

    /// No more streams.
    fn drain(&mut self) {
        if self.stage == Stage::Serving {
            self.connection.graceful_shutdown();
            self.stage = Stage::Draining;
            self.idle_since = Instant::now();
        }
    }
}

/// What endpoints take of a request, and how long its body may be. Where some speak HTTP/1.1,
/// nobody knows yet which it will be.
fn endpoints(shared: &Shared) -> (Takes, u64) {
    let config = shared.config.borrow();
    let Some(http) = &config.http else { return (Takes::Length, u64::MAX) };
    let takes = match http.upstream_protocol {
        Protocol::Http2 => Takes::Both,
        Protocol::Http1 | Protocol::Auto => Takes::Either,
    };
    (takes, http.body_bytes_max)
}
