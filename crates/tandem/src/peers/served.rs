//! Talks over one connection that a peer dialled: hands its requests on, sends the answers.
//! In: frames. Out: calls of `Respond`, each in a task of its own.
//! Limits: 256 requests and 64 MiB in hand per connection, more are answered "busy"; a peer has one
//! such connection, a newer one ends the older.
//! Tested by: `tests/`.

use super::Channel;
use super::lanes::{Lanes, lanes};
use super::peer::{Peer, Shared};
use super::wire::{BODY_BYTES_MAX, Failure, Header};
use crate::runtime::supervisor::TaskKind;
use bytes::Bytes;
use futures::StreamExt as _;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

pub const REQUESTS_MAX: usize = 256;
const KIB: usize = 1 << 10;
/// Two requests of full size.
const KIB_MAX: usize = 64 << 10;

/// Answers a peer's requests until its connection ends.
pub async fn serve<S>(shared: Arc<Shared>, peer: Arc<Peer>, framed: Framed<S, LengthDelimitedCodec>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stopping = shared.supervisor.stopping();
    let closed = peer.serve_only();
    let _end = closed.clone().drop_guard();
    let (lanes, outbox) = lanes();
    let desk = Desk {
        shared,
        peer,
        lanes,
        closed: closed.clone(),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        room: Arc::new(Semaphore::new(KIB_MAX)),
    };
    let (sink, mut frames) = framed.split();
    let read = async {
        while let Some(Ok(frame)) = frames.next().await {
            desk.peer.hear();
            match Header::split(frame) {
                Ok((Header::Request { id, channel }, body)) => desk.take(id, channel, body).await,
                Ok(_) | Err(_) => {
                    tracing::warn!(peer = %desk.peer.node, "a request that is none; closing");
                    break;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = closed.cancelled() => {}
        () = read => {}
        _ = outbox.drain_into(sink) => {}
    }
}

struct Desk {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    lanes: Lanes,
    closed: CancellationToken,
    requests: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Desk {
    async fn take(&self, id: u64, number: u8, body: Bytes) {
        let Some(channel) = Channel::from_number(number) else {
            return self.fail(Channel::Operate, id, Failure::UnknownChannel(number)).await;
        };
        let Some(in_hand) = self.reserve(body.len()) else {
            return self.fail(channel, id, Failure::Busy).await;
        };
        let handler = self.shared.handler.clone();
        let (node, lanes, closed) =
            (self.peer.node.clone(), self.lanes.clone(), self.closed.clone());
        self.shared.supervisor.spawn("peer request", TaskKind::Session, async move {
            let frame = match handler.request(node, channel, body).await {
                Ok(body) if body.len() <= BODY_BYTES_MAX => Header::Response { id }.frame(&body),
                Ok(body) => failure(id, Failure::of_handler(&too_large(body.len()))),
                Err(message) => failure(id, Failure::of_handler(&message)),
            };
            tokio::select! {
                _ = lanes.send(channel, frame) => {}
                () = closed.cancelled() => {}
            }
            drop(in_hand);
        });
    }

    fn reserve(&self, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let kib = u32::try_from(bytes / KIB + 1).ok()?;
        let request = self.requests.clone().try_acquire_owned().ok()?;
        let room = self.room.clone().try_acquire_many_owned(kib).ok()?;
        Some([request, room])
    }

    /// Waits while the queue is full: a peer that does not read its answers is not read either.
    async fn fail(&self, channel: Channel, id: u64, why: Failure) {
        let _ = self.lanes.send(channel, failure(id, why)).await;
    }
}

fn failure(id: u64, failure: Failure) -> Bytes {
    Header::Failed { id, failure }.frame(&[])
}

fn too_large(bytes: usize) -> String {
    format!("its answer of {bytes} bytes is over the limit of {BODY_BYTES_MAX}")
}
