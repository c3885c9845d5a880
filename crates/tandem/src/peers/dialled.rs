//! Talks over one connection that this node dialled: sends requests, hands each its answer.
//! In: requests. Out: answers, or `Disconnected` for all of them at the moment it ends.
//! Limits: `lanes`. An answer that nobody waits for any more is dropped.
//! Tested by: `tests/`.

use super::lanes::{Lanes, Outbox, lanes};
use super::peer::{Peer, locked};
use super::wire::{BODY_BYTES_MAX, Failure, Header};
use super::{Channel, Error};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tandem_core::ids::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

type Answer = Result<Bytes, Failure>;

/// The handle of a connection; its task holds the stream.
pub struct Dialled {
    node: NodeId,
    lanes: Lanes,
    next_id: AtomicU64,
    /// None once the connection ended: nobody may begin to wait any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    closed: CancellationToken,
}

impl Dialled {
    pub fn new(node: NodeId) -> (Arc<Self>, Outbox) {
        let (lanes, outbox) = lanes();
        let dialled = Self {
            node,
            lanes,
            next_id: AtomicU64::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
            closed: CancellationToken::new(),
        };
        (Arc::new(dialled), outbox)
    }

    /// Sends a request and waits for its answer; the caller sets the deadline.
    pub async fn request(&self, channel: Channel, body: Bytes) -> Result<Bytes, Error> {
        let node = || self.node.clone();
        if body.len() > BODY_BYTES_MAX {
            return Err(Error::TooLarge { bytes: body.len(), bytes_max: BODY_BYTES_MAX });
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer_in, answer) = oneshot::channel();
        match locked(&self.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, answer_in),
            None => return Err(Error::Disconnected { node: node() }),
        };
        let _forget = Forget { dialled: self, id };
        let frame = Header::Request { id, channel: channel.number() }.frame(&body);
        drop(body);
        let answer = async {
            self.lanes.send(channel, frame).await.ok()?;
            answer.await.ok()
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = self.closed.cancelled() => None,
        };
        match answer {
            Some(Ok(body)) => Ok(body),
            Some(Err(Failure::Handler(message))) => Err(Error::Failed { node: node(), message }),
            Some(Err(Failure::Busy)) => Err(Error::Busy { node: node() }),
            Some(Err(Failure::UnknownChannel(channel))) => {
                Err(Error::UnknownChannel { node: node(), channel })
            }
            None => Err(Error::Disconnected { node: node() }),
        }
    }

    /// Ends the connection and every request on it.
    pub fn close(&self) {
        self.closed.cancel();
        locked(&self.waiting).take();
    }

    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Carries frames until the connection ends, one way or another.
    pub async fn run<S>(
        self: Arc<Self>,
        framed: Framed<S, LengthDelimitedCodec>,
        outbox: Outbox,
        peer: Arc<Peer>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _end = CloseOnDrop(self.clone());
        let (sink, mut frames) = framed.split();
        let read = async {
            while let Some(Ok(frame)) = frames.next().await {
                peer.hear();
                if !self.deliver(frame) {
                    tracing::warn!(peer = %self.node, "an answer that is none; reconnecting");
                    break;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => {}
            () = read => {}
            _ = outbox.drain_into(sink) => {}
        }
    }

    /// False if the peer does not keep to the protocol.
    fn deliver(&self, frame: BytesMut) -> bool {
        let (id, answer) = match Header::split(frame) {
            Ok((Header::Response { id }, body)) => (id, Ok(body)),
            Ok((Header::Failed { id, failure }, _)) => (id, Err(failure)),
            Ok((Header::Request { .. }, _)) | Err(_) => return false,
        };
        let waiter = locked(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(waiter) = waiter {
            let _ = waiter.send(answer);
        }
        true
    }
}

/// A request that was given up leaves nothing behind.
struct Forget<'a> {
    dialled: &'a Dialled,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = locked(&self.dialled.waiting).as_mut() {
            waiting.remove(&self.id);
        }
    }
}

/// However the task ends, nobody waits on it longer.
struct CloseOnDrop(Arc<Dialled>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
