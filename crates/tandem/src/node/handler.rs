//! Answers the other nodes: heartbeats, Raft's messages, requests of controllers and operators.
//! In: bytes of a peer. Out: bytes, or a refusal in words.

use crate::consensus::{Consensus, RaftTransport, TransportError};
use crate::driver::asks::Asks;
use crate::driver::hub::Hub;
use crate::driver::wire::{Beat, Request, Response, decode, encode};
use crate::peers::{Channel, Error, LinkState, Mesh, Respond};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::{Draft, EventLog};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tandem_core::ids::{NodeId, ServiceId};

/// Carries out what an operator asked for through another node.
pub type Operate = Arc<dyn Fn(String) -> BoxFuture<'static, Response> + Send + Sync>;
/// Carries out a wish for one of this node's instances.
pub type Local =
    Arc<dyn Fn(ServiceId, crate::driver::wire::Wish) -> BoxFuture<'static, Response> + Send + Sync>;

/// What this node answers with. Parts that start later are filled in once.
pub struct Reception {
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// Raft.
    pub consensus: OnceLock<Consensus>,
    /// Where promises are asked for, per service.
    pub asks: Arc<Asks>,
    /// Operators' verbs.
    pub operate: OnceLock<Operate>,
    /// Wishes for own instances.
    pub local: OnceLock<Local>,
    /// What happened, for operators.
    pub events: EventLog,
}

impl std::fmt::Debug for Reception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reception").finish_non_exhaustive()
    }
}

impl Respond for Reception {
    fn request(
        &self,
        from: NodeId,
        channel: Channel,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        match channel {
            Channel::Heartbeat => {
                let answer = self.heartbeat(&from, &body);
                futures::future::ready(answer).boxed()
            }
            Channel::Raft => match self.consensus.get().cloned() {
                Some(consensus) => async move { consensus.handle(from, body).await }.boxed(),
                None => futures::future::ready(Err("starting".to_string())).boxed(),
            },
            Channel::Operate => self.operate(&body),
        }
    }

    fn link_changed(&self, peer: &NodeId, link: LinkState) {
        self.hub.refused(peer, link == LinkState::Refused);
    }

    fn refused(&self, from: SocketAddr, why: &str) {
        let event = Draft::new(EventKind::PeerRefused, format!("{from} was not let in: {why}"));
        self.events.record(event.field("from", from.to_string()));
    }
}

impl Reception {
    fn heartbeat(&self, from: &NodeId, body: &[u8]) -> Result<Bytes, String> {
        let beat: Beat = decode(body)?;
        if beat.facts.node != *from {
            return Err(format!("{from} speaks for {}", beat.facts.node));
        }
        self.hub.heard(beat.facts);
        if !self.hub.speaks() {
            return Err("starting".to_owned());
        }
        // Before the own facts are read: an answer that does not tell a promise yet must be known
        // to whoever makes that promise, since a lease may rest on it.
        self.hub.answered(from);
        let facts = self.hub.own_to(from);
        Ok(encode(&Beat { facts }))
    }

    fn operate(&self, body: &[u8]) -> BoxFuture<'static, Result<Bytes, String>> {
        match decode::<Request>(body) {
            Ok(Request::Recruit { service, term }) => {
                let Some(asks) = self.asks.of(&service) else {
                    return futures::future::ready(Err("no such service".to_string())).boxed();
                };
                async move {
                    asks.send(term).await.map_err(|_| "stopping".to_string())?;
                    Ok(encode(&Response::Taken))
                }
                .boxed()
            }
            Ok(Request::Local { service, wish }) => match self.local.get().cloned() {
                Some(local) => async move { Ok(encode(&local(service, wish).await)) }.boxed(),
                None => futures::future::ready(Err("starting".to_string())).boxed(),
            },
            Ok(Request::Operate { verb, .. }) => match self.operate.get().cloned() {
                Some(operate) => async move { Ok(encode(&operate(verb).await)) }.boxed(),
                None => futures::future::ready(Err("starting".to_string())).boxed(),
            },
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }
}

/// Raft's messages over the mesh, which starts after Raft does.
#[derive(Debug, Default)]
pub struct RaftOverMesh(pub OnceLock<Mesh>);

impl RaftTransport for RaftOverMesh {
    fn call(
        &self,
        to: NodeId,
        body: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let mesh = self.0.get().cloned();
        async move {
            let mesh = mesh.ok_or(TransportError::Unreachable)?;
            mesh.request(&to, Channel::Raft, body, deadline).await.map_err(|error| match error {
                Error::Deadline { .. } => TransportError::Timeout,
                Error::Failed { .. } => TransportError::Refused(error.to_string()),
                _ => TransportError::Unreachable,
            })
        }
        .boxed()
    }
}
