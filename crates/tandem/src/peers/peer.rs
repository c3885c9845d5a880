//! Talks to the rest of the mesh through what its tasks share: who the peers are, how their links
//! are.
//! Keeps: H35, a greeting must name the node of its certificate and this cluster; H48, a removed
//! peer's token ends whatever belongs to it; H30, of two processes with one identity the later one
//! is refused for as long as the earlier one is heard.
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
use std::time::{Duration, Instant};
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// A process that was heard so lately is there: it says something ten times a second.
const ALIVE: Duration = Duration::from_secs(1);
/// A restarted node may be faster than the news of its former self's end.
const SUCCESSION: Duration = Duration::from_millis(300);
const SUCCESSION_LOOK: Duration = Duration::from_millis(10);

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
        link.stranger = false;
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
    /// The other side does not count this node as a member.
    pub stranger: bool,
}

/// Where a peer is dialled.
struct Place {
    /// As the configuration says.
    named: String,
    /// Where it answered last: a new address counts once the peer's daemon was restarted, and until
    /// then it is still here.
    answered: Option<String>,
}

/// One other node.
pub(super) struct Peer {
    pub node: NodeId,
    address: Mutex<Place>,
    pub link: Mutex<Link>,
    /// Microseconds of CLOCK_BOOTTIME; 0 is never.
    pub heard: AtomicU64,
    /// Which start of the peer's process was last let in; 0 is none.
    incarnation: AtomicU64,
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
            address: Mutex::new(Place { named: address, answered: None }),
            link: Mutex::new(Link {
                state: LinkState::Unreachable,
                trouble: None,
                stranger: false,
            }),
            heard: AtomicU64::new(0),
            incarnation: AtomicU64::new(0),
            connection: Mutex::new(None),
            served: Mutex::new(ended()),
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

    /// Where it is by its configuration, and where else it answered last.
    pub(super) fn addresses(&self) -> (String, Option<String>) {
        let place = locked(&self.address);
        let elsewhere = place.answered.clone().filter(|it| *it != place.named);
        (place.named.clone(), elsewhere)
    }

    /// It answers there.
    pub(super) fn answers_at(&self, address: &str) {
        locked(&self.address).answered = Some(address.to_owned());
    }

    /// A connection that there is stays: the peer listens where it did until it is restarted.
    pub(super) fn move_to(&self, address: String) {
        let moved = std::mem::replace(&mut locked(&self.address).named, address.clone()) != address;
        if moved && self.connection().is_none() {
            self.redial.notify_one();
        }
    }

    pub(super) fn disconnect(&self) {
        if let Some(connection) = self.connection().take() {
            connection.close();
        }
        self.redial.notify_one();
    }

    /// Lets one start of the peer's process in, unless another one is there: a copied folder, a
    /// restored machine. Taking turns with both would make two nodes look like one that lies.
    ///
    /// # Errors
    /// Says so.
    pub(super) async fn admit(&self, incarnation: u64) -> Result<(), String> {
        let deadline = Instant::now() + SUCCESSION;
        while let Some(silence) = self.other_process(incarnation) {
            if Instant::now() > deadline {
                let node = &self.node;
                return Err(format!(
                    "another process runs as {node}, heard {} ms ago: the identity was copied; end \
                     one of the two, and let a new node join with a name of its own",
                    silence.as_millis()
                ));
            }
            tokio::time::sleep(SUCCESSION_LOOK).await;
        }
        self.incarnation.store(incarnation, Ordering::Relaxed);
        Ok(())
    }

    /// How long ago another start of the peer's process was heard, while it has a connection.
    fn other_process(&self, incarnation: u64) -> Option<Duration> {
        let known = self.incarnation.load(Ordering::Relaxed);
        if known == 0 || known == incarnation {
            return None;
        }
        let connected = self.connection().is_some() || !locked(&self.served).is_cancelled();
        let silence = clock::now().since(Timestamp(self.heard.load(Ordering::Relaxed)));
        (connected && silence < ALIVE).then_some(silence)
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

/// The token of a connection that there is not.
fn ended() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

/// Nothing that is done under these locks can panic half-way.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
