//! Talks to the peers that call this node.
//! In: bytes. Out: bytes, or the reason why they had no effect, as text for the caller's log.
//! Keeps: nothing reaches Raft before its sender was checked (`origin.rs`); H48, whoever asks for
//! a vote and is no member is told so.
//! Tested by: `tests/refusals.rs`, `tests/membership.rs`.

use super::Consensus;
use super::types::{LogId, Snapshot, SnapshotMeta, Vote};
use super::wire::{self, Message, Piece, Request, Response};
use bytes::{Bytes, BytesMut};
use openraft::async_runtime::WatchReceiver;
use std::sync::PoisonError;
use tandem_core::ids::NodeId;
use tokio::time::Instant;

/// The agreed state is small; more than this is a mistake.
const SNAPSHOT_BYTES_MAX: u64 = 256 << 20;

/// Why a request had no effect.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the request is no message: {0}")]
    Garbage(wire::Garbage),
    #[error("{0}")]
    Origin(super::origin::Refused),
    #[error("this node has just started and does not vote yet")]
    JustStarted,
    #[error("a piece of a snapshot at {offset}, of {total} bytes, does not continue what is here")]
    Piece { offset: u64, total: u64 },
    #[error("Raft has stopped on this node")]
    Stopped,
}

/// A snapshot that is arriving.
#[derive(Debug)]
pub struct Assembly {
    from: NodeId,
    meta: SnapshotMeta,
    vote: Vote,
    bytes: BytesMut,
}

impl Consensus {
    /// Answers a peer's request: Raft's own messages and what only a leader can do.
    ///
    /// # Errors
    /// Why the request had no effect.
    pub async fn handle(&self, from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let response = self.answer(&from, &body).await.map_err(|refused| refused.to_string())?;
        let message = Message { origin: self.inner.caller.origins.own(), body: response };
        wire::encode(&message).map(Bytes::from).map_err(|error| error.to_string())
    }

    async fn answer(&self, from: &NodeId, body: &[u8]) -> Result<Response, Refused> {
        let message: Message<Request> = wire::decode(body).map_err(Refused::Garbage)?;
        let origins = &self.inner.caller.origins;
        origins.check_request(from, &message.origin).await.map_err(Refused::Origin)?;
        let raft = &self.inner.raft;
        match message.body {
            Request::Append(request) => {
                let response = raft.append_entries(request).await.map_err(|_| Refused::Stopped)?;
                Ok(Response::Append(response))
            }
            Request::Vote(request) => {
                if !request.leadership_transfer {
                    self.check_first_lease()?;
                }
                let response = raft.vote(request).await.map_err(|_| Refused::Stopped)?;
                Ok(Response::Vote { response, gone: self.gone_since(from) })
            }
            Request::PreVote(request) => {
                self.check_first_lease()?;
                let response = raft.pre_vote(request).await.map_err(|_| Refused::Stopped)?;
                Ok(Response::Vote { response, gone: self.gone_since(from) })
            }
            Request::Transfer(request) => {
                let response =
                    raft.handle_transfer_leader(request).await.map_err(|_| Refused::Stopped)?;
                Ok(Response::Transfer(response))
            }
            Request::Snapshot(piece) => self.take_piece(from, piece).await,
            Request::Removed(since) => {
                self.inner.caller.note_gone(since);
                Ok(Response::Noted)
            }
            Request::Lead { task, within } => {
                let outcome = self.lead(task, Instant::now() + within).await;
                Ok(Response::Outcome(outcome))
            }
        }
    }

    fn check_first_lease(&self) -> Result<(), Refused> {
        match self.inner.votes_from {
            Some(votes_from) if Instant::now() < votes_from => Err(Refused::JustStarted),
            Some(_) | None => Ok(()),
        }
    }

    /// A vote is granted to a non-member all the same: a node that lags behind may not know of a
    /// new voter yet, and that voter may be the only one that can be elected.
    fn gone_since(&self, candidate: &NodeId) -> Option<LogId> {
        let metrics = self.inner.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let committed = &metrics.committed_membership_config;
        if committed.get_node(candidate).is_some() { None } else { committed.log_id().clone() }
    }

    async fn take_piece(&self, from: &NodeId, piece: Piece) -> Result<Response, Refused> {
        let Some((meta, vote, bytes)) = self.assemble(from, piece)? else {
            return Ok(Response::Snapshot(None));
        };
        let snapshot = Snapshot { meta, snapshot: bytes };
        let installed = self.inner.raft.install_full_snapshot(vote, snapshot).await;
        Ok(Response::Snapshot(Some(installed.map_err(|_| Refused::Stopped)?)))
    }

    fn assemble(
        &self,
        from: &NodeId,
        piece: Piece,
    ) -> Result<Option<(SnapshotMeta, Vote, Bytes)>, Refused> {
        let Piece { vote, meta, offset, total, bytes } = piece;
        let mut slot = self.inner.assembly.lock().unwrap_or_else(PoisonError::into_inner);
        if offset == 0 {
            let (from, bytes) = (from.clone(), BytesMut::new());
            *slot = Some(Assembly { from, meta: meta.clone(), vote: vote.clone(), bytes });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        let continues = slot.as_ref().is_some_and(|assembly| {
            assembly.from == *from
                && assembly.meta == meta
                && assembly.vote == vote
                && assembly.bytes.len() as u64 == offset
        });
        let Some(assembly) =
            slot.as_mut().filter(|_| continues && end <= total && total <= SNAPSHOT_BYTES_MAX)
        else {
            *slot = None;
            return Err(Refused::Piece { offset, total });
        };
        assembly.bytes.extend_from_slice(&bytes);
        if end < total {
            return Ok(None);
        }
        Ok(slot.take().map(|done| (done.meta, done.vote, done.bytes.freeze())))
    }
}
