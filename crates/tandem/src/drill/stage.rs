//! Talks to a cluster between the steps of a run: waits until it is whole, casts the roles, reads.
//! In: a `Cluster`. Out: `Stage`, `Progress` for someone who watches.
//! Not here: the steps of a run (`steps.rs`).
//! Tested by: `steps_tests.rs`.

use super::cluster::{Action, Cluster};
use super::evidence::ledger;
use super::evidence::session::{Login, Session};
use super::evidence::workload::{Load, Workload};
use super::fault::Cast;
use super::view::{Observer, View};
use super::{Error, Fault};
use crate::runtime::clock;
use crate::runtime::supervisor::Supervisor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;
use tokio::sync::watch;

/// How long things may take, and how long they are looked at.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// A new cluster copies its data to every node first.
    pub whole_max: Duration,
    /// Writes before the fault, so that sessions are warm and the canary has sung.
    pub warming: Duration,
    /// Until writes flow again although the fault lasts.
    pub flow_max: Duration,
    /// Until the cluster is whole after healing.
    pub mended_max: Duration,
    /// How long it must be whole to count: longer than what any node takes to doubt another, so a
    /// stale view cannot end a run.
    pub whole_for: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            whole_max: Duration::from_secs(120),
            warming: Duration::from_secs(1),
            flow_max: Duration::from_secs(30),
            mended_max: Duration::from_secs(60),
            whole_for: Duration::from_millis(1500),
        }
    }
}

/// Writes flow when the last acknowledgement is not older.
const FLOWING: Duration = Duration::from_millis(300);
/// How often conditions are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// The ledger is read through the front door, which may hold a session this long.
const READ_MAX: Duration = Duration::from_secs(30);

/// What is going on, for someone who watches.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The fault and what is waited for.
    pub step: String,
    /// Writes acknowledged in this run.
    pub acked: u64,
    /// Age of the last acknowledgement.
    pub silence: Duration,
    /// Who takes writes.
    pub primary: Option<NodeId>,
}

/// A cluster, and everything that looks at it.
pub struct Stage {
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) login: Login,
    pub(super) load: Load,
    observer: Observer,
    pub(super) bounds: Bounds,
    progress: watch::Sender<Progress>,
}

impl Stage {
    /// Sets the stage. Everything on it ends with `tasks`.
    ///
    /// # Errors
    /// When there is no way to log in.
    pub fn new(
        cluster: Arc<dyn Cluster>,
        load: Load,
        bounds: Bounds,
        tasks: &Supervisor,
    ) -> Result<Self, Error> {
        let login = Login::new(&cluster.password()?, tasks.clone());
        let observer = Observer::start(tasks, Arc::clone(&cluster));
        let progress = watch::Sender::new(Progress::default());
        Ok(Self { cluster, login, load, observer, bounds, progress })
    }

    /// What is going on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What was seen last.
    pub fn view(&self) -> View {
        self.observer.view()
    }

    /// Waits until a new cluster is whole, and makes the tables; the server's version.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub async fn prepare(&self) -> Result<String, Error> {
        self.wait_whole().await?;
        let session = self.session().await?;
        let tables = |source| Error::Tables { source };
        session.client().batch_execute(ledger::TABLES).await.map_err(tables)?;
        let row = session.client().query_one("SHOW server_version", &[]).await.map_err(tables)?;
        let version: String = row.try_get(0).map_err(tables)?;
        Ok(version.split_whitespace().next().unwrap_or_default().to_string())
    }

    pub(super) async fn wait_whole(&self) -> Result<View, Error> {
        wait_whole(&self.bounds, || self.view()).await
    }

    pub(super) async fn cast(&self, seed: u64, round: u32) -> Result<Cast, Error> {
        let view = self.wait_whole().await?;
        let addresses = self.cluster.addresses();
        let Some(primary) = view.primary else {
            let because = "there is no primary".into();
            return Err(Error::NotRedundant { seconds: 0, because });
        };
        let mut standbys: Vec<NodeId> = addresses
            .iter()
            .filter(|address| address.instance.is_some() && address.node != primary)
            .map(|address| address.node.clone())
            .collect();
        if standbys.is_empty() {
            return Err(Error::TooFewNodes { needed: 2, data_nodes: 1 });
        }
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(u64::from(round)));
        let first = random.random_range(0..standbys.len());
        standbys.rotate_left(first);
        let nodes = addresses.into_iter().map(|address| address.node).collect();
        Ok(Cast { primary, leader: view.leader, standbys, nodes })
    }

    /// The fault is about a leader that is not the primary, so the primary is moved away first.
    pub(super) async fn part_leader_and_primary(
        &self,
        cast: &Cast,
        seed: u64,
        round: u32,
    ) -> Result<Cast, Error> {
        let to = cast.standbys.first().cloned();
        self.cluster.act(&Action::SwitchOver { via: cast.primary.clone(), to }).await?;
        let deadline = clock::now().plus(self.bounds.flow_max);
        while self.view().primary.as_ref() == Some(&cast.primary) && clock::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        let apart = self.cast(seed, round).await?;
        if apart.leader.as_ref() == Some(&apart.primary) {
            let because = "the Raft leader is on the primary's node, and follows it".into();
            return Err(Error::Skipped { fault: Fault::LeaderKill, because });
        }
        Ok(apart)
    }

    pub(super) async fn session(&self) -> Result<Session, Error> {
        let mut addresses = self.cluster.addresses();
        let primary = self.view().primary;
        addresses.sort_by_key(|address| Some(&address.node) != primary.as_ref());
        let doors: Vec<SocketAddr> = addresses.iter().map(|address| address.door).collect();
        let connected = async {
            loop {
                if let Some(session) = self.login.connect_any(&doors).await {
                    return session;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(READ_MAX, connected).await.map_err(|_| Error::Unreadable {
            seconds: READ_MAX.as_secs(),
            because: self.view().shortcoming.unwrap_or_else(|| "it seems whole".into()),
        })
    }

    pub(super) async fn read(
        &self,
        run: &str,
    ) -> Result<(ledger::Rows, ledger::CanaryRows), Error> {
        let session = self.session().await?;
        let unreadable = |source| Error::Tables { source };
        let rows = ledger::rows(&session, run).await.map_err(unreadable)?;
        Ok((rows, ledger::canary_rows(&session, run).await.map_err(unreadable)?))
    }

    /// Waits for a condition and says so; false when the limit came first.
    pub(super) async fn until(
        &self,
        limit: Duration,
        (fault, step, workload): (Fault, &str, &Workload),
        done: impl Fn() -> bool,
    ) -> bool {
        let said = || {
            let is_done = done();
            if !is_done {
                self.say(fault, step, Some(workload));
            }
            is_done
        };
        until(limit, said).await
    }

    pub(super) fn say(&self, fault: Fault, step: &str, workload: Option<&Workload>) {
        self.progress.send_replace(Progress {
            step: format!("{fault}: {step}"),
            acked: workload.map_or(0, Workload::acked),
            silence: workload.map_or(Duration::ZERO, |w| clock::now().since(w.last_acked())),
            primary: self.view().primary,
        });
    }
}

/// Waits until nothing is missing, and has not been for a while.
///
/// # Errors
/// When it does not get there in time.
pub(super) async fn wait_whole(bounds: &Bounds, view: impl Fn() -> View) -> Result<View, Error> {
    let whole = || view().is_redundant_for(bounds.whole_for, clock::now());
    if until(bounds.whole_max, whole).await {
        return Ok(view());
    }
    let because = view().shortcoming.unwrap_or_else(|| "only for a moment".into());
    Err(Error::NotRedundant { seconds: bounds.whole_max.as_secs(), because })
}

/// Waits for a condition; false when the limit came first.
pub(super) async fn until(limit: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = clock::now().plus(limit);
    while !done() {
        if clock::now() > deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// Whether an acknowledgement is from just now.
pub(super) fn is_fresh(last_acked: Timestamp) -> bool {
    clock::now().since(last_acked) <= FLOWING
}

/// Whether somebody's write was acknowledged just now.
pub(super) fn flowing(workload: &Workload) -> bool {
    is_fresh(workload.last_acked())
}
