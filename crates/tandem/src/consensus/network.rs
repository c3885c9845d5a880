//! Talks to the peers for openraft, over whatever carries bytes.
//! In: openraft's calls. Out: `RaftTransport::call`.
//! Keeps: no answer counts as a grant or an acknowledgement before its sender was checked
//! (`origin.rs`); pre-vote and leadership transfer are real calls, not openraft's defaults.
//! Not here: connections (`peers`), the receiving side (`serve.rs`).

use super::origin::Origins;
use super::types::{LogId, Member, Snapshot, TypeConfig, Vote};
use super::wire::{self, Message, Piece, Request, Response};
use super::{RaftTransport, TransportError};
use bytes::Bytes;
use futures::FutureExt;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::sync::watch;

/// A snapshot travels in pieces of this size; one piece in practice.
const PIECE_BYTES_MAX: usize = 4 << 20;

/// How long a follower may take to have entries on disk before they are sent again. openraft's own
/// limit is one heartbeat: a disk that stalls for longer would get the same entries again and
/// again.
const APPEND_WITHIN: Duration = Duration::from_secs(1);

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the answer is no message")]
    Garbage(#[source] wire::Garbage),
    #[error(transparent)]
    Origin(super::origin::Refused),
    #[error("the answer is to another question")]
    Mismatch,
}

impl CallError {
    /// Whether the request surely had no effect.
    pub fn surely_ignored(&self) -> bool {
        match self {
            Self::Transport(TransportError::Unreachable | TransportError::Refused(_)) => true,
            Self::Transport(TransportError::Timeout)
            | Self::Garbage(_)
            | Self::Origin(_)
            | Self::Mismatch => false,
        }
    }
}

/// Calls peers. Shared by openraft's clients and by this node's own calls.
pub struct Caller {
    pub me: NodeId,
    pub transport: Arc<dyn RaftTransport>,
    pub origins: Arc<Origins>,
    /// Told by a peer: this node is no member any more, since that entry.
    pub gone: watch::Sender<Option<LogId>>,
}

impl Caller {
    pub async fn call(
        &self,
        to: &NodeId,
        body: Request,
        deadline: Duration,
    ) -> Result<Response, CallError> {
        let message = Message { origin: self.origins.own(), body };
        let bytes = Bytes::from(wire::encode(&message).map_err(CallError::Garbage)?);
        let answer = self.transport.call(to.clone(), bytes, deadline).await?;
        let message: Message<Response> = wire::decode(&answer).map_err(CallError::Garbage)?;
        self.origins.check(to, &message.origin).await.map_err(CallError::Origin)?;
        Ok(message.body)
    }

    /// Believes the newest of what was told.
    pub fn note_gone(&self, since: LogId) {
        self.gone.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| *known < since);
            if newer {
                *known = Some(since);
            }
            newer
        });
    }
}

/// Makes openraft's clients.
pub struct Network(pub Arc<Caller>);

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, _: &Member) -> Client {
        Client { caller: Arc::clone(&self.0), target }
    }
}

/// openraft's way to one peer.
pub struct Client {
    caller: Arc<Caller>,
    target: NodeId,
}

type RpcError = RPCError<TypeConfig>;

impl Client {
    async fn call(
        &self,
        body: Request,
        within: Duration,
        action: RPCTypes,
    ) -> Result<Response, RpcError> {
        self.caller.call(&self.target, body, within).await.map_err(|error| match error {
            CallError::Transport(TransportError::Timeout) => RPCError::Timeout(Timeout {
                action,
                id: self.caller.me.clone(),
                target: self.target.clone(),
                timeout: within,
            }),
            // openraft waits before it tries again.
            CallError::Transport(_)
            | CallError::Garbage(_)
            | CallError::Origin(_)
            | CallError::Mismatch => RPCError::Unreachable(Unreachable::new(&error)),
        })
    }

    async fn ask(
        &self,
        body: Request,
        within: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.call(body, within, RPCTypes::Vote).await? {
            Response::Vote { response, gone } => {
                if let Some(since) = gone {
                    self.caller.note_gone(since);
                }
                Ok(response)
            }
            _ => Err(mismatch()),
        }
    }
}

fn mismatch() -> RpcError {
    RPCError::Network(NetworkError::new(&CallError::Mismatch))
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let within = if rpc.entries.is_empty() { option.hard_ttl() } else { APPEND_WITHIN };
        match self.call(Request::Append(rpc), within, RPCTypes::AppendEntries).await? {
            Response::Append(response) => Ok(response),
            _ => Err(mismatch()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(Request::Vote(rpc), option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(Request::PreVote(rpc), option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = self.send_pieces(vote, snapshot, option.hard_ttl()).fuse();
        let cancel = cancel.fuse();
        futures::pin_mut!(send, cancel);
        futures::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let within = option.hard_ttl();
        match self.call(Request::Transfer(request), within, RPCTypes::TransferLeader).await? {
            Response::Transfer(response) => Ok(response),
            _ => Err(mismatch()),
        }
    }
}

impl Client {
    async fn send_pieces(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        within: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, RpcError> {
        let total = snapshot.snapshot.len();
        let mut offset = 0;
        loop {
            let end = total.min(offset + PIECE_BYTES_MAX);
            let piece = Piece {
                vote: vote.clone(),
                meta: snapshot.meta.clone(),
                offset: offset as u64,
                total: total as u64,
                bytes: snapshot.snapshot.slice(offset..end),
            };
            let request = Request::Snapshot(piece);
            match self.call(request, within, RPCTypes::InstallSnapshot).await? {
                Response::Snapshot(Some(response)) => return Ok(response),
                Response::Snapshot(None) if end < total => offset = end,
                _ => return Err(mismatch()),
            }
        }
    }
}
