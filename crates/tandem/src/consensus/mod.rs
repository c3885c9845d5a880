//! Talks Raft to the other nodes: keeps the agreed state on every voter.
//! In: `Command`, and the messages of the peers. Out: `Agreed`, `Leadership`.
//! States: pristine → (`found`, or the leader's first message) member → (`remove_member`) removed.
//!
//! Founding: every node of a new cluster calls `found` with the same members, at the same time or
//! not. It is safe, because the entry that founds is the first of an empty log in term 0, below
//! everything that can be committed; because a leader needs the votes of a majority of these same
//! members, of which there is one in a term; and because whoever follows takes the leader's
//! first entry for its own. A node that has a log or gave a vote is past that: `found` does nothing
//! there. A node that joins an existing cluster does not call it.
//!
//! Failover: last heartbeat + the lease (`election_max`) + a random part of `election_min` to
//! `election_max`. Pre-vote keeps a node that cannot win from disturbing; a leader that reaches no
//! majority refuses work after one lease (check-quorum) and lets others try (H34). A node that has
//! just started grants no vote for one lease: it may have promised that time to a leader.
//!
//! Keeps: INV-2, INV-5; H30 and H35 (`origin.rs`), H34, H46 (`wire.rs`), H48 (`membership.rs`).
//! Not here: who is primary (`tandem_core`), connections (`peers`).
//! Tested by: `tests/`.

mod error;
mod lead;
mod leadership;
mod membership;
mod network;
mod origin;
mod refusal;
mod serve;
mod store;
mod types;
mod wire;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use refusal::Refusal;
pub use store::Error as StoreError;
pub use store::recover::{Recovered, Survivor, recover, survivor};

use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::Bytes;
use futures::future::BoxFuture;
use lead::Suspension;
use network::{Caller, Network};
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use origin::Origins;
use serve::Assembly;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::log::Log;
use store::machine::Machine;
use store::{Opened, Store};
use tandem_core::cluster::state::ClusterState;
use tandem_core::ids::{ClusterId, NodeId};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::{Member, Membership, Raft};

/// How long `shutdown` waits for a disk that hangs.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// Carries one request to a peer and its answer back.
pub trait RaftTransport: Send + Sync + 'static {
    /// Sends `body` to `to`, whose side hands it to [`Consensus::handle`], and waits for the
    /// answer until `deadline` from now.
    fn call(
        &self,
        to: NodeId,
        body: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The request surely did not reach the peer.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// No answer in time, or the connection was lost on the way: it may have reached the peer.
    #[error("the peer did not answer in time")]
    Timeout,
    /// `handle` refused it: it had no effect.
    #[error("the peer refused: {0}")]
    Refused(String),
}

/// How fast Raft is; the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTiming {
    /// How often a leader proves itself.
    pub heartbeat: Duration,
    /// The shortest silence after the lease before a node stands for election.
    pub election_min: Duration,
    /// The longest, and the leader's lease.
    pub election_max: Duration,
}

impl Default for RaftTiming {
    // Measured: a new leader 310 to 404 ms after the loss of the old one. A narrow range costs no
    // rounds, since candidates that collide need no second one (`types.rs`). More heartbeats than
    // two in a lease would only cost idle processor time.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(80),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(200),
        }
    }
}

/// What consensus needs to start.
#[derive(Clone, Debug)]
pub struct ConsensusConfig {
    /// This node.
    pub me: NodeId,
    /// Its cluster, as in its identity.
    pub cluster: ClusterId,
    /// The file of the Raft store.
    pub path: PathBuf,
    /// How fast.
    pub timing: RaftTiming,
}

/// The agreed state as far as this node has applied it.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// The state.
    pub state: Arc<ClusterState>,
    /// The last log entry in it. Never goes back while the node runs (INV-5).
    pub index: u64,
}

/// Who leads and takes part, as far as this node knows. Nothing may be done on its strength alone:
/// see [`Consensus::confirm_leadership`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader.
    pub leader: Option<NodeId>,
    /// Raft's term. The leadership may pass on within a term, but a node leads at most once in it.
    pub raft_term: u64,
    /// Whether this node has the role. It keeps it when it is cut off, too.
    pub me_leads: bool,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who only receives.
    pub learners: BTreeSet<NodeId>,
    /// Where each of them is reached.
    pub addresses: BTreeMap<NodeId, String>,
    /// This node was a member and is none any more (H48).
    pub removed: bool,
}

/// This node's part in the agreement. Clones share it.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    me: NodeId,
    timing: RaftTiming,
    raft: Raft,
    store: Arc<Store>,
    caller: Arc<Caller>,
    agreed: watch::Receiver<Agreed>,
    leadership: watch::Receiver<Leadership>,
    supervisor: Supervisor,
    /// Before this moment no vote is granted.
    votes_from: Option<Instant>,
    assembly: Mutex<Option<Assembly>>,
    /// One membership change at a time (H48).
    changes: Semaphore,
    suspension: Suspension,
    closing: CancellationToken,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("me", &self.inner.me).finish_non_exhaustive()
    }
}

impl Consensus {
    /// Opens the store and takes part in whatever this node is a member of.
    ///
    /// # Errors
    /// A store that cannot be used, or a timing that makes no sense.
    pub async fn start(
        config: ConsensusConfig,
        transport: Arc<dyn RaftTransport>,
        supervisor: Supervisor,
    ) -> Result<Self, Error> {
        let raft_config = raft_config(&config)?;
        let Opened { store, identity, peers } =
            Store::open(&config.path, &config.cluster, &config.me).await?;
        let votes_from =
            (!store.is_pristine()).then(|| Instant::now() + config.timing.election_max);
        let origins = Arc::new(Origins::new(Arc::clone(&store), identity, peers));
        let (gone, gone_since) = watch::channel(None);
        let caller = Arc::new(Caller {
            me: config.me.clone(),
            transport,
            origins: Arc::clone(&origins),
            gone,
        });
        let nothing = Agreed { state: Arc::default(), index: 0 };
        let (agreed_tx, agreed) = watch::channel(nothing);
        let machine = Machine {
            store: Arc::clone(&store),
            origins,
            agreed: agreed_tx,
            state: Arc::default(),
            applied: None,
            membership: Membership::default(),
        };
        let (network, log) = (Network(Arc::clone(&caller)), Log(Arc::clone(&store)));
        let raft = Raft::new(config.me.clone(), raft_config, network, log, machine)
            .await
            .map_err(Error::Stopped)?;
        let (leadership_tx, leadership) = watch::channel(Leadership::default());
        let inner = Inner {
            me: config.me,
            timing: config.timing,
            raft,
            store,
            caller,
            agreed,
            leadership,
            supervisor: supervisor.clone(),
            votes_from,
            assembly: Mutex::new(None),
            changes: Semaphore::new(1),
            suspension: Suspension::default(),
            closing: CancellationToken::new(),
        };
        let consensus = Self { inner: Arc::new(inner) };
        let watcher = consensus.clone().watch_leadership(leadership_tx, gone_since);
        supervisor.spawn("raft leadership", TaskKind::Essential, watcher);
        supervisor.spawn(
            "raft first lease",
            TaskKind::Session,
            consensus.clone().allow_elections(),
        );
        Ok(consensus)
    }

    /// Founds a new cluster: see the module's text. Done already is done.
    ///
    /// # Errors
    /// This node is not among the members, or Raft has stopped.
    pub async fn found(&self, members: BTreeMap<NodeId, String>) -> Result<(), Error> {
        let nodes: BTreeMap<NodeId, Member> =
            members.into_iter().map(|(node, address)| (node, Member { address })).collect();
        match self.inner.raft.initialize(nodes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                Err(Error::NotInMembers { me: self.inner.me.clone() })
            }
            Err(RaftError::Fatal(fatal)) => Err(Error::Stopped(fatal)),
        }
    }

    /// Whether this node is or was part of a cluster.
    pub fn is_founded(&self) -> bool {
        self.inner.store.is_founded()
    }

    /// The agreed state, updated on every apply.
    pub fn state(&self) -> watch::Receiver<Agreed> {
        self.inner.agreed.clone()
    }

    /// Who leads and takes part.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Stops taking part and closes the store. Hand the leadership on before, where it matters.
    pub async fn shutdown(&self) {
        self.inner.closing.cancel();
        let stop = async {
            if let Err(error) = self.inner.raft.shutdown().await {
                tracing::warn!(error = %error, "Raft ended badly");
            }
            self.inner.store.close().await;
        };
        if tokio::time::timeout(SHUTDOWN_MAX, stop).await.is_err() {
            tracing::warn!("Raft did not stop in time; its disk hangs?");
        }
    }
}

fn raft_config(config: &ConsensusConfig) -> Result<Arc<Config>, Error> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timing = config.timing;
    let config = Config {
        cluster_name: config.cluster.to_string(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        // openraft's default of 200 ms is for chunks.
        install_snapshot_timeout: 10_000,
        // openraft's default lets an empty learner pass for caught up.
        replication_lag_threshold: 16,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(5_000),
        max_in_snapshot_log_to_keep: 1_000,
        enable_pre_vote: Some(true),
        // A leader that sends but hears nothing would keep the others from electing for ever (H34).
        quorum_loss_probe_interval: Some(ms(timing.election_max).saturating_mul(2)),
        // The committed position is written lazily: a leader must not resume from an older one.
        enable_leader_restore: Some(false),
        // Switched on by `allow_elections`.
        enable_elect: false,
        backoff: "50ms 100ms 200ms ..400ms".into(),
        api_channel_size: Some(4096),
        notification_channel_size: Some(4096),
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(Error::Timing)?))
}
