//! Talks to the other nodes: to each one connection that this node dialled, mutually authenticated.
//! In: `MeshConfig`, requests by channel. Out: answers; `Respond` gets peers' requests and link
//! changes.
//! States of a link: Unreachable → Connected → (closed) Reset → Connected | Refused | Unreachable.
//! Keeps: H35, certificate and greeting must name the same node of this cluster; H46, another
//! protocol version is refused in the greeting; H48, a removed member is cut off at once.
//! Not here: what a link's state means (the core judges facts), certificates (`identity`).
//! Tested by: `tests/`.

mod dial;
mod dialled;
mod lanes;
mod listen;
mod peer;
mod served;
mod socket;
mod wire;

#[cfg(test)]
mod tests;

use crate::identity::{Identity, JoinDesk};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::Bytes;
use futures::future::BoxFuture;
use peer::{Peer, Shared};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
pub use wire::BODY_BYTES_MAX;

/// What a request is about. Small and urgent goes first: each channel has its own queue, and
/// what waits in an earlier one is sent before what waits in a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Facts, many times a second.
    Heartbeat,
    /// Raft's messages.
    Raft,
    /// Forwarded proposals and operators' verbs.
    Operate,
}

/// How this node's own connection to a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Requests can be sent.
    Connected,
    /// The machine answers, and nobody listens: the peer's process is gone.
    Refused,
    /// The connection ended a moment ago; the next dial is not decided yet.
    Reset,
    /// No answer, or one that is no peer's.
    Unreachable,
}

/// What a node does with what its peers want.
pub trait Respond: Send + Sync + 'static {
    /// Answers a peer's request, in a task of its own, which is not cut short when the peer is
    /// lost.
    fn request(
        &self,
        from: NodeId,
        channel: Channel,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>>;

    /// Called at once when a link changed, in order for each peer. Must not block.
    fn link_changed(&self, peer: &NodeId, link: LinkState);

    /// Somebody was not let in; the same reason is told once a minute. Must not block.
    fn refused(&self, _from: SocketAddr, _why: &str) {}
}

/// What a mesh needs.
#[derive(Debug)]
pub struct MeshConfig {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// Where peers dial this node.
    pub listen: SocketAddr,
    /// Who the others are, and the `host:port` to dial. This node itself is ignored.
    pub peers: BTreeMap<NodeId, String>,
    /// Lets new nodes in, where the authority is.
    pub join: Option<Arc<JoinDesk>>,
}

/// Connections to all peers. Clones share them; they end with the supervisor.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("node", self.shared.identity.node())
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

impl Mesh {
    /// Listens, and dials every peer from now on.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(
        config: MeshConfig,
        handler: Arc<dyn Respond>,
        supervisor: Supervisor,
    ) -> Result<Self, Error> {
        let listen_error = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let shared = Arc::new(Shared {
            identity: config.identity,
            handler,
            supervisor: supervisor.clone(),
            incarnation: rand::random(),
            address,
            join: config.join,
            joining: Arc::new(Semaphore::new(listen::JOINS_MAX)),
            refusals: Mutex::new(None),
            peers: watch::Sender::new(BTreeMap::new()),
        });
        let mesh = Self { shared: shared.clone() };
        mesh.set_peers(config.peers);
        supervisor.spawn(
            "peers listen",
            TaskKind::Essential,
            listen::listen(shared.clone(), listener),
        );
        supervisor.spawn("peers dial", TaskKind::Essential, dial::dial_all(shared));
        Ok(mesh)
    }

    /// The address that is listened on, with the port that was chosen if it was 0.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Asks a peer and waits for its answer.
    ///
    /// # Errors
    /// There is no connection, it ended, the deadline passed, or the peer could not answer. After
    /// `Disconnected` and `Deadline` it is unknown whether the peer acted.
    pub async fn request(
        &self,
        to: &NodeId,
        channel: Channel,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, Error> {
        let peer = self.shared.peer(to).ok_or_else(|| Error::UnknownPeer { node: to.clone() })?;
        let connection =
            peer.connection().clone().ok_or_else(|| Error::Disconnected { node: to.clone() })?;
        tokio::time::timeout(deadline, connection.request(channel, body))
            .await
            .unwrap_or_else(|_| Err(Error::Deadline { node: to.clone(), after: deadline }))
    }

    /// Adds, removes and moves peers; connections to and from removed ones end at once (H48), of
    /// those that move they stay, and are made anew at either address.
    pub fn set_peers(&self, mut addresses: BTreeMap<NodeId, String>) {
        addresses.remove(self.shared.identity.node());
        self.shared.peers.send_modify(|peers| {
            peers.retain(|node, peer| {
                let stays = addresses.contains_key(node);
                if !stays {
                    peer.removed.cancel();
                }
                stays
            });
            for (node, address) in addresses {
                match peers.get(&node) {
                    Some(peer) => peer.move_to(address),
                    None => {
                        peers.insert(node.clone(), Arc::new(Peer::new(node, address)));
                    }
                }
            }
        });
    }

    /// How the connection to a peer is.
    pub fn link(&self, peer: &NodeId) -> LinkState {
        self.shared.peer(peer).map_or(LinkState::Unreachable, |peer| peer.link().state)
    }

    /// Why there is no connection to a peer, in words for people; none while there is one.
    pub fn trouble(&self, peer: &NodeId) -> Option<String> {
        self.shared.peer(peer).and_then(|peer| peer.link().trouble.clone())
    }

    /// Whether a peer, asked a moment ago, does not count this node as a member (H48).
    pub fn is_stranger_to(&self, peer: &NodeId) -> bool {
        self.shared.peer(peer).is_some_and(|peer| peer.link().stranger)
    }

    /// When anything was last received from a peer, on either connection.
    pub fn last_heard(&self, peer: &NodeId) -> Option<Timestamp> {
        let heard = self.shared.peer(peer)?.heard.load(Ordering::Relaxed);
        (heard > 0).then_some(Timestamp(heard))
    }

    /// Drops the connection to a peer and dials again at once: it may be half open.
    pub fn disconnect(&self, peer: &NodeId) {
        if let Some(peer) = self.shared.peer(peer) {
            peer.disconnect();
        }
    }
}

/// Why there is no mesh, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer port cannot be opened.
    #[error("cannot listen for peers on {address}: {source}; set another address for this node")]
    Listen {
        /// What was tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Not a member.
    #[error("{node} is not a member of this cluster")]
    UnknownPeer {
        /// Who was asked for.
        node: NodeId,
    },
    /// There is no connection, or it ended before the answer.
    #[error("there is no connection to {node}")]
    Disconnected {
        /// Who was asked.
        node: NodeId,
    },
    /// No answer in time.
    #[error("{node} did not answer within {after:?}")]
    Deadline {
        /// Who was asked.
        node: NodeId,
        /// How long was waited.
        after: Duration,
    },
    /// A request that cannot be sent.
    #[error("a request of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The peer has too many requests of ours in hand.
    #[error("{node} is busy with earlier requests")]
    Busy {
        /// Who was asked.
        node: NodeId,
    },
    /// The peer's release does not know this kind of request.
    #[error("{node} does not know channel {channel}; it runs another release")]
    UnknownChannel {
        /// Who was asked.
        node: NodeId,
        /// As sent.
        channel: u8,
    },
    /// The peer's handler said no.
    #[error("{node} refused: {message}")]
    Failed {
        /// Who was asked.
        node: NodeId,
        /// Its words.
        message: String,
    },
}

impl Error {
    /// Whether the same request may succeed later without anybody's doing.
    pub fn may_pass_by_itself(&self) -> bool {
        match self {
            Self::Disconnected { .. } | Self::Deadline { .. } | Self::Busy { .. } => true,
            Self::Listen { .. }
            | Self::UnknownPeer { .. }
            | Self::TooLarge { .. }
            | Self::UnknownChannel { .. }
            | Self::Failed { .. } => false,
        }
    }
}
