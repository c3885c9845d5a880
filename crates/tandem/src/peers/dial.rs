//! Talks to each peer's port: dials until it answers, and again as soon as a connection ends.
//! In: the peers and their addresses. Out: `Dialled`, and a link state that is evidence.
//! Limits: 1 s to connect, 2 s for TLS and greeting; pauses of 0, 20, 50, then 100 ms.
//! A process that was killed closes its connections and its port at once: end of stream, then a
//! refused dial, is known within milliseconds and needs no timer.
//! Tested by: `tests/`.

use super::LinkState;
use super::dialled::Dialled;
use super::peer::{Peer, Shared};
use super::socket::{Counted, tune, words};
use super::wire::{Greeting, codec, stranger, widen};
use crate::runtime::supervisor::TaskKind;
use futures::stream::FuturesUnordered;
use futures::{SinkExt as _, StreamExt as _};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

const CONNECT_MAX: Duration = Duration::from_secs(1);
const GREETING_MAX: Duration = Duration::from_secs(2);
/// A name server must not hold up a dial for longer; the last known addresses do.
const RESOLVE_MAX: Duration = Duration::from_millis(300);
const RESOLVE_AGAIN: Duration = Duration::from_secs(5);
const PAUSES_MS: [u64; 4] = [0, 20, 50, 100];
/// A peer that answers with a refusal is alive; asking it ten times a second helps nobody.
const PAUSE_REJECTED: Duration = Duration::from_millis(500);
/// A dying process closes its sockets one by one: the port may be closed a moment after the
/// connection. (Measured: with a pause of 20 ms a kill was mostly known after 22 ms.)
const PAUSE_CLOSED_EARLY: Duration = Duration::from_millis(5);
/// A connection that lasted this long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(1);
/// Two connections that end unanswered within this time are a relay in front of a closed port.
const CLOSED_EARLY_WINDOW: Duration = Duration::from_millis(200);

type Stream = Framed<TlsStream<Counted>, LengthDelimitedCodec>;

/// Keeps one dialling loop for each peer. All in one task: a panic in any stops the node, rather
/// than leaving it deaf to one peer.
pub async fn dial_all(shared: Arc<Shared>) {
    let stopping = shared.supervisor.stopping();
    let mut changes = shared.peers.subscribe();
    let mut loops = FuturesUnordered::new();
    loop {
        for peer in changes.borrow_and_update().values() {
            if !peer.dialled.swap(true, Ordering::Relaxed) {
                loops.push(keep(shared.clone(), peer.clone()));
            }
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            Ok(()) = changes.changed() => {}
            Some(()) = loops.next() => {}
        }
    }
    for peer in shared.peers.borrow().values() {
        if let Some(connection) = peer.connection().take() {
            connection.close();
        }
    }
}

async fn keep(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut dialler = Dialler::new(shared, peer.clone());
    let forever = async {
        loop {
            dialler.pause().await;
            let outcome = dialler.dial().await;
            dialler.settle(outcome).await;
        }
    };
    tokio::select! {
        biased;
        () = peer.removed.cancelled() => {}
        () = forever => {}
    }
    if let Some(connection) = peer.connection().take() {
        connection.close();
    }
}

/// How a dial went.
enum Outcome {
    Connected(Box<Stream>),
    /// Nobody listens.
    Refused,
    /// Closed before a single byte came back.
    ClosedEarly,
    /// No answer, or the connection was lost on the way.
    Unreachable(String),
    /// A peer answers, and one of the two does not want the other.
    Rejected(String),
    /// It does not count this node as a member.
    Stranger(String),
}

struct Dialler {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    /// Dials since the last connection.
    dials: usize,
    /// Connections in a row that were not good ones.
    short_lived: usize,
    rejected: bool,
    closed_early: Option<Instant>,
    addresses: BTreeMap<String, Addresses>,
}

impl Dialler {
    fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        let addresses = BTreeMap::new();
        Self {
            shared,
            peer,
            dials: 0,
            short_lived: 0,
            rejected: false,
            closed_early: None,
            addresses,
        }
    }

    async fn pause(&self) {
        let steady = PAUSES_MS.len() - 1;
        let mut pause = Duration::from_millis(PAUSES_MS[self.dials.min(steady)]);
        if self.rejected {
            pause = PAUSE_REJECTED;
        } else if self.closed_early.is_some() && self.dials < steady {
            pause = pause.min(PAUSE_CLOSED_EARLY);
        }
        if self.dials >= steady || self.rejected {
            // Nodes that lost the same peer must not dial it in step.
            pause = pause.mul_f64(rand::random_range(0.8..1.2));
        }
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.peer.redial.notified() => {}
            }
        }
    }

    /// Where a peer has moved to and where it was: one after the other, since of two connections to
    /// one process it keeps the later. It is gone only where it is at neither.
    async fn dial(&mut self) -> Outcome {
        self.dials += 1;
        let (named, before) = self.peer.addresses();
        let Some(before) = before else { return self.dial_at(&named).await };
        let there = self.dial_at(&before).await;
        if matches!(there, Outcome::Connected(_)) {
            return there;
        }
        match self.dial_at(&named).await {
            Outcome::Refused => there,
            outcome => outcome,
        }
    }

    async fn dial_at(&mut self, address: &str) -> Outcome {
        let retry = self.dials > 2;
        let known = self.addresses.entry(address.to_owned()).or_default();
        let connect = async {
            let addresses = known.of(address, retry).await?;
            io::Result::Ok(connect(addresses).await)
        };
        let stream = match timeout(CONNECT_MAX, connect).await {
            Ok(Ok(Ok(stream))) => stream,
            Ok(Ok(Err(outcome))) => return outcome,
            Ok(Err(error)) => return unreachable(&address, &error),
            Err(_) => return unreachable(&address, &"no answer"),
        };
        if let Err(error) = tune(&stream) {
            return unreachable(&address, &error);
        }
        let Ok(outcome) = timeout(GREETING_MAX, greet(&self.shared, &self.peer, stream)).await
        else {
            return unreachable(&address, &"it accepts connections and does not answer");
        };
        if matches!(outcome, Outcome::Connected(_)) {
            self.peer.answers_at(address);
            self.addresses.retain(|other, _| other == address);
        }
        outcome
    }

    /// Says what the outcome means, and stays as long as a connection lasts.
    async fn settle(&mut self, outcome: Outcome) {
        let before = self.closed_early.take();
        self.rejected = matches!(outcome, Outcome::Rejected(_) | Outcome::Stranger(_));
        let set = |state, trouble| self.shared.set_link(&self.peer, state, trouble);
        match outcome {
            Outcome::Connected(stream) => return self.stay(*stream).await,
            Outcome::Refused => set(LinkState::Refused, None),
            Outcome::Unreachable(why) | Outcome::Rejected(why) => {
                set(LinkState::Unreachable, Some(why));
            }
            Outcome::Stranger(why) => {
                set(LinkState::Unreachable, Some(format!("it refused: {why}")));
                self.peer.link().stranger = true;
            }
            Outcome::ClosedEarly => {
                match before.map(|at| at.elapsed()) {
                    Some(apart) if apart <= CLOSED_EARLY_WINDOW => set(LinkState::Refused, None),
                    Some(_) => set(
                        LinkState::Unreachable,
                        Some("it closes connections without a word".into()),
                    ),
                    None => {}
                }
                self.closed_early = Some(Instant::now());
            }
        }
    }

    async fn stay(&mut self, stream: Stream) {
        let since = Instant::now();
        let (connection, outbox) = Dialled::new(self.peer.node.clone());
        self.peer.hear();
        *self.peer.connection() = Some(connection.clone());
        self.shared.supervisor.spawn(
            "peer connection",
            TaskKind::Session,
            connection.clone().run(stream, outbox, self.peer.clone()),
        );
        self.shared.set_link(&self.peer, LinkState::Connected, None);
        connection.closed().await;
        self.peer.connection().take();
        self.shared.set_link(&self.peer, LinkState::Reset, None);
        // The first dial after a connection comes without a pause; connections that end as soon as
        // they begin come ever slower.
        let good = since.elapsed() >= GOOD_AFTER;
        self.dials = if good { 0 } else { self.short_lived };
        self.short_lived = if good { 0 } else { self.short_lived + 1 };
    }
}

/// What a `host:port` stands for. Known addresses are dialled without asking: right after a
/// connection ended every millisecond counts, and the name server may have failed with the peer.
#[derive(Default)]
struct Addresses {
    known: Vec<SocketAddr>,
    asked: Option<Instant>,
}

impl Addresses {
    async fn of(&mut self, name: &str, retry: bool) -> io::Result<&[SocketAddr]> {
        let stale = retry && self.asked.is_none_or(|at| at.elapsed() >= RESOLVE_AGAIN);
        if self.known.is_empty() || stale {
            self.asked = Some(Instant::now());
            let found = timeout(RESOLVE_MAX, lookup_host(name))
                .await
                .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
            match found {
                Ok(found) => self.known = found.collect(),
                Err(error) if self.known.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(&self.known)
    }
}

/// Dials all addresses of a peer at once and takes the first that answers.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Outcome> {
    let mut dials: FuturesUnordered<_> = addresses
        .iter()
        .map(|address| async move { (address, TcpStream::connect(address).await) })
        .collect();
    let (mut refused, mut closed, mut other) = (false, false, None);
    while let Some((address, result)) = dials.next().await {
        let error = match result {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::ConnectionRefused => refused = true,
            ErrorKind::ConnectionReset => closed = true,
            // A family of addresses that this machine does not have says nothing about the peer.
            ErrorKind::AddrNotAvailable | ErrorKind::NetworkUnreachable if addresses.len() > 1 => {}
            _ => other = Some(unreachable(address, &error)),
        }
    }
    Err(match other {
        Some(other) => other,
        None if refused => Outcome::Refused,
        None if closed => Outcome::ClosedEarly,
        None => Outcome::Unreachable("its name has no address that can be reached".into()),
    })
}

fn unreachable(address: &dyn std::fmt::Display, why: &dyn std::fmt::Display) -> Outcome {
    Outcome::Unreachable(format!("{address}: {why}"))
}

async fn greet(shared: &Shared, peer: &Peer, stream: TcpStream) -> Outcome {
    let name = match shared.identity.server_name(&peer.node) {
        Ok(name) => name,
        Err(error) => return Outcome::Rejected(error.to_string()),
    };
    let connector = TlsConnector::from(shared.identity.mesh_client());
    let stream = match connector.connect(name, Counted::new(stream)).into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) if !stream.answered() && is_end(&error) => {
            return Outcome::ClosedEarly;
        }
        Err((error, _)) => return lost(&error),
    };
    let certified = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    if certified.and_then(|c| shared.identity.node_of(c)).as_ref() != Some(&peer.node) {
        return Outcome::Rejected("its certificate is of another node".into());
    }
    let mut framed = Framed::new(stream, codec());
    if let Err(error) = framed.send(shared.hello().encode()).await {
        return lost(&error);
    }
    let greeting = match framed.next().await {
        Some(Ok(frame)) => Greeting::decode(&frame),
        Some(Err(error)) => return lost(&error),
        None => return Outcome::Unreachable("it closed the connection in the greeting".into()),
    };
    match greeting {
        Ok(Greeting::Hello(hello)) => match shared.objection(&hello, &peer.node) {
            Some(why) => Outcome::Rejected(why),
            None => match peer.admit(hello.incarnation).await {
                Ok(()) => {
                    widen(framed.codec_mut());
                    Outcome::Connected(Box::new(framed))
                }
                Err(why) => Outcome::Rejected(why),
            },
        },
        Ok(Greeting::Refused(why)) if why == stranger(shared.identity.node()) => {
            Outcome::Stranger(why)
        }
        Ok(Greeting::Refused(why)) => Outcome::Rejected(format!("it refused: {why}")),
        Err(error) => Outcome::Rejected(error.to_string()),
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}

fn lost(error: &io::Error) -> Outcome {
    if is_end(error) {
        Outcome::Unreachable(format!("the connection was lost in the greeting: {error}"))
    } else {
        Outcome::Rejected(words(error))
    }
}
