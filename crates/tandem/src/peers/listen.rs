//! Talks to whoever dials this node: peers with a certificate, and nodes that want to join.
//! Out: `served` for a peer, the join desk for a newcomer, nothing for anybody else.
//! Limits: 64 strangers at once with 2 s each, further ones wait in the kernel's backlog: closing
//! them would look like a dead process to a peer (`dial`). Four joins at once, 10 s each.
//! Tested by: `tests/`.

use super::peer::{Peer, Shared, locked};
use super::served::serve;
use super::socket::{tune, words};
use super::wire::{Greeting, codec, stranger, widen};
use crate::identity::{ALPN_JOIN, ALPN_MESH, JoinDesk};
use crate::runtime::supervisor::TaskKind;
use bytes::Bytes;
use futures::{SinkExt, StreamExt as _};
use rustls::server::Acceptor;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tandem_core::ids::NodeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

pub const STRANGERS_MAX: usize = 64;
pub const JOINS_MAX: usize = 4;
const GREETING_MAX: Duration = Duration::from_secs(2);
const JOIN_MAX: Duration = Duration::from_secs(10);
/// Accepting fails when descriptors have run out; trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The same refusal is logged once in this time, however often the other side tries.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// Accepts until the node stops.
pub async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let stopping = shared.supervisor.stopping();
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let accept = async {
        loop {
            let Ok(stranger) = strangers.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, from)) => {
                    let greeting = greet(shared.clone(), stream, from, stranger);
                    shared.supervisor.spawn("peer session", TaskKind::Session, greeting);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = accept => {}
    }
}

async fn greet(
    shared: Arc<Shared>,
    stream: TcpStream,
    from: SocketAddr,
    stranger: OwnedSemaphorePermit,
) {
    let stopping = shared.supervisor.stopping();
    let greeting = timeout(GREETING_MAX, introduce(&shared, stream));
    let guest = tokio::select! {
        biased;
        () = stopping.cancelled() => return,
        guest = greeting => guest.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())),
    };
    drop(stranger);
    match guest {
        Ok(Guest::Peer(peer, framed)) => serve(shared, peer, *framed).await,
        Ok(Guest::Newcomer(stream, place)) => {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                () = welcome(&shared, *stream, from) => {}
            }
            drop(place);
        }
        Err(error) => shared.log_refusal(from, words(&error)),
    }
}

enum Guest {
    Peer(Arc<Peer>, Box<Framed<TlsStream<TcpStream>, LengthDelimitedCodec>>),
    Newcomer(Box<TlsStream<TcpStream>>, OwnedSemaphorePermit),
}

async fn introduce(shared: &Shared, stream: TcpStream) -> io::Result<Guest> {
    tune(&stream)?;
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    if offers(&start, ALPN_JOIN) {
        let Ok(place) = shared.joining.clone().try_acquire_owned() else {
            return Err(io::Error::other("too many nodes join at once"));
        };
        let stream = start.into_stream(shared.identity.join_server()).await?;
        return Ok(Guest::Newcomer(Box::new(stream), place));
    }
    let stream = start.into_stream(shared.identity.mesh_server()).await?;
    let (_, tls) = stream.get_ref();
    if tls.alpn_protocol() != Some(ALPN_MESH) {
        return Err(io::Error::other("it does not ask for the peer protocol"));
    }
    let certified = tls
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|certificate| shared.identity.node_of(certificate));
    let mut framed = Framed::new(stream, codec());
    let frame = framed.next().await.ok_or(ErrorKind::UnexpectedEof)??;
    match judge(shared, &frame, certified).await {
        Ok(peer) => {
            framed.send(shared.hello().encode()).await?;
            widen(framed.codec_mut());
            peer.hear();
            Ok(Guest::Peer(peer, Box::new(framed)))
        }
        Err(why) => {
            framed.send(Greeting::Refused(why.clone()).encode()).await?;
            SinkExt::<Bytes>::close(&mut framed).await?;
            Err(io::Error::other(why))
        }
    }
}

fn offers(start: &StartHandshake<TcpStream>, protocol: &[u8]) -> bool {
    start.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == protocol))
}

async fn judge(
    shared: &Shared,
    frame: &[u8],
    certified: Option<NodeId>,
) -> Result<Arc<Peer>, String> {
    let certified = certified.ok_or("your certificate is not of a node of this cluster")?;
    match Greeting::decode(frame) {
        Ok(Greeting::Hello(hello)) => match shared.objection(&hello, &certified) {
            Some(why) => Err(why),
            None => {
                let peer = shared.peer(&certified).ok_or_else(|| stranger(&certified))?;
                peer.admit(hello.incarnation).await.map(|()| peer)
            }
        },
        Ok(Greeting::Refused(why)) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

async fn welcome(shared: &Shared, stream: TlsStream<TcpStream>, from: SocketAddr) {
    let served = async {
        match &shared.join {
            Some(desk) => desk.clone().serve(stream).await,
            None => JoinDesk::turn_away(stream).await.map(|()| None),
        }
    };
    match timeout(JOIN_MAX, served).await {
        Ok(Ok(Some(node))) => tracing::info!(%node, %from, "a node joined"),
        Ok(Ok(None)) => tracing::warn!(%from, "a node was not let in"),
        Ok(Err(error)) => tracing::warn!(%from, %error, "a node could not join"),
        Err(_) => tracing::warn!(%from, "a node took too long to join"),
    }
}

impl Shared {
    fn log_refusal(&self, from: SocketAddr, why: String) {
        let mut last = locked(&self.refusals);
        let known =
            last.as_ref().is_some_and(|(known, at)| *known == why && at.elapsed() < LOG_AGAIN);
        if !known {
            tracing::warn!(%from, %why, "refused a connection to the peer port");
            self.handler.refused(from, &why);
            *last = Some((why, Instant::now()));
        }
    }
}
