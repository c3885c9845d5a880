//! Talks to the rest of the mesh through what its tasks share: who the peers are, how their links
//! are.
//! Keeps: H35, a greeting must name the node of its certificate and this cluster; H48, a removed
//! peer's token ends whatever belongs to it.
//! Tested by: `tests/`.

use super::dialled::Dialled;
use super::wire::{Greeting, Hello};
use super::{LinkState, Respond};
use crate::identity::{Identity, JoinDesk};
use crate::runtime::clock;
use crate::runtime::supervisor::Supervisor;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tandem_core::ids::NodeId;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// What all tasks of a mesh share.
pub(super) struct Shared {
    pub identity: Arc<Identity>,
    pub handler: Arc<dyn Respond>,
    pub supervisor: Supervisor,
    /// Random for each start of the process.
    pub incarnation: u64,
    pub address: SocketAddr,
    pub join: Option<Arc<JoinDesk>>,
    pub joining: Arc<Semaphore>,
    /// The last refusal that was logged, and when.
    pub refusals: Mutex<Option<(String, Instant)>>,
    pub peers: watch::Sender<BTreeMap<NodeId, Arc<Peer>>>,
}

impl Shared {
    pub(super) fn hello(&self) -> Greeting {
        Greeting::Hello(Hello {
            cluster: self.identity.cluster().clone(),
            node: self.identity.node().clone(),
            incarnation: self.incarnation,
        })
    }

    /// What is wrong with a greeting from the holder of `certified`'s certificate (H35).
    pub(super) fn objection(&self, hello: &Hello, certified: &NodeId) -> Option<String> {
        let ours = self.identity.cluster();
        if hello.cluster != *ours {
            let (me, them) = (self.identity.node(), &hello.node);
            Some(format!("{them} is of cluster {}, {me} is of {ours}", hello.cluster))
        } else if hello.node != *certified {
            Some(format!("{} shows a certificate of {certified}", hello.node))
        } else if hello.incarnation == self.incarnation || hello.node == *self.identity.node() {
            Some(format!("{certified} dials itself; check the addresses of the nodes"))
        } else {
            None
        }
    }

    pub(super) fn peer(&self, node: &NodeId) -> Option<Arc<Peer>> {
        self.peers.borrow().get(node).cloned()
    }

    /// Records how a link is; the handler hears of it only when the state changed.
    pub(super) fn set_link(&self, peer: &Peer, state: LinkState, trouble: Option<String>) {
        let mut link = peer.link();
        let (changed, news) = (link.state != state, link.trouble != trouble && trouble.is_some());
        link.state = state;
        link.trouble = trouble;
        let trouble = news.then(|| link.trouble.clone()).flatten();
        drop(link);
        match trouble {
            Some(trouble) => {
                tracing::warn!(peer = %peer.node, link = ?state, %trouble, "peer link")
            }
            None if changed => tracing::info!(peer = %peer.node, link = ?state, "peer link"),
            None => {}
        }
        if changed && !peer.removed.is_cancelled() {
            self.handler.link_changed(&peer.node, state);
        }
    }
}

pub(super) struct Link {
    pub state: LinkState,
    pub trouble: Option<String>,
}

/// One other node.
pub(super) struct Peer {
    pub node: NodeId,
    pub address: Mutex<String>,
    pub link: Mutex<Link>,
    /// Microseconds of CLOCK_BOOTTIME; 0 is never.
    pub heard: AtomicU64,
    /// The connection that we dialled.
    pub connection: Mutex<Option<Arc<Dialled>>>,
    /// Ends the connection that it dialled.
    pub served: Mutex<CancellationToken>,
    /// Whether its dialling loop was started.
    pub dialled: AtomicBool,
    /// Dial now rather than later.
    pub redial: Notify,
    pub removed: CancellationToken,
}

impl Peer {
    pub(super) fn new(node: NodeId, address: String) -> Self {
        Self {
            node,
            address: Mutex::new(address),
            link: Mutex::new(Link { state: LinkState::Unreachable, trouble: None }),
            heard: AtomicU64::new(0),
            connection: Mutex::new(None),
            served: Mutex::new(CancellationToken::new()),
            dialled: AtomicBool::new(false),
            redial: Notify::new(),
            removed: CancellationToken::new(),
        }
    }

    pub(super) fn link(&self) -> MutexGuard<'_, Link> {
        locked(&self.link)
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Option<Arc<Dialled>>> {
        locked(&self.connection)
    }

    pub(super) fn address(&self) -> String {
        locked(&self.address).clone()
    }

    pub(super) fn move_to(&self, address: String) {
        let mut current = locked(&self.address);
        if *current != address {
            *current = address;
            drop(current);
            self.disconnect();
        }
    }

    pub(super) fn disconnect(&self) {
        if let Some(connection) = self.connection().take() {
            connection.close();
        }
        self.redial.notify_one();
    }

    pub(super) fn hear(&self) {
        self.heard.fetch_max(clock::now().0, Ordering::Relaxed);
    }

    /// The token of a newly accepted connection; the one before may be half open, and ends.
    pub(super) fn serve_only(&self) -> CancellationToken {
        let new = self.removed.child_token();
        std::mem::replace(&mut *locked(&self.served), new.clone()).cancel();
        new
    }
}

/// Nothing that is done under these locks can panic half-way.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
