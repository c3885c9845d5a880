//! Breaks a cluster once: wait until it is whole, write, inject, watch, heal, wait again, count.
//! In: a `Fault`. Out: `RunReport`.
//! States: Whole → Warming → Broken → (healed) Healing → Whole, each with a bound.
//! Not here: what each fault does (`fault.rs`), the order of runs (`run.rs`).
//! Tested by: below, with a stand-in cluster whose instance is a real PostgreSQL.

use super::canary::Canary;
use super::cluster::{Action, Address, Cluster};
use super::fault::{Cast, Injection, Writes};
use super::history::{History, Outcome, Window};
use super::report::{RunReport, milliseconds, seconds};
use super::session::{Login, Session};
use super::view::{Observer, View};
use super::workload::{Load, Workload};
use super::{Error, Fault, ledger, overlap};
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
/// Writes that were under way when a fault stops all writes may still be acknowledged.
const IN_FLIGHT: Duration = Duration::from_millis(300);
/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(10);
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
    cluster: Arc<dyn Cluster>,
    login: Login,
    load: Load,
    observer: Observer,
    bounds: Bounds,
    progress: watch::Sender<Progress>,
}

/// What was seen while a cluster was broken.
struct Times {
    fault_at: Timestamp,
    healed_at: Option<Timestamp>,
    over_at: Timestamp,
    whole: bool,
    problems: Vec<String>,
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

    /// Breaks the cluster once.
    ///
    /// # Errors
    /// When it is not whole to begin with, or the fault cannot be done here.
    pub async fn run(&self, fault: Fault, round: u32, seed: u64) -> Result<RunReport, Error> {
        self.say(fault, "waiting for full redundancy", None);
        let mut cast = self.cast(seed, round).await?;
        if fault == Fault::LeaderKill && cast.leader.as_ref() == Some(&cast.primary) {
            cast = self.part_leader_and_primary(&cast, seed, round).await?;
        }
        let injection = fault.injection(&cast).ok_or_else(|| Error::Skipped {
            fault,
            because: "no node is what the fault is about".into(),
        })?;
        let addresses = self.cluster.addresses();
        let run = format!("{seed}/{fault}/{round}/{}", clock::unix_ms());
        let doors: Vec<SocketAddr> = addresses.iter().map(|address| address.door).collect();
        let workload = Workload::start(&self.load, &doors, &self.login, &run);
        let canary = Canary::start(&instances(&addresses), &self.login, &run);
        let times = self.break_and_heal(fault, &injection, &workload).await;
        let songs = canary.stop().await;
        let history = workload.stop().await;
        let mut times = times?;
        self.judge(fault, &cast, &mut times);

        let (rows, canary_rows) = self.read(&run).await?;
        let balance = ledger::balance(&history, &rows);
        let canary_lost = songs
            .iter()
            .filter(|song| !canary_rows.contains(&(song.node.as_str().to_string(), song.n)))
            .count() as u64;
        let (p50, p99) = history.latency();
        let window = Window { from: times.fault_at, to: times.over_at };
        Ok(RunReport {
            fault: fault.name(),
            round,
            node: injection.node,
            outage_s: seconds(history.outage(window)),
            errors: errors(&history),
            acked: balance.acked,
            lost: balance.lost,
            duplicated: balance.duplicated,
            indeterminate: balance.unknown_present + balance.unknown_absent,
            dual_primary_instants: overlap::dual_primary_instants(&songs),
            primary_after: self.view().primary,
            redundant_again_s: times.whole.then(|| seconds(self.redundant_again(&times))),
            latency_p50_ms: milliseconds(p50),
            latency_p99_ms: milliseconds(p99),
            stall_max_s: seconds(history.stall_max(window)),
            phantoms: balance.phantoms,
            canary_acked: songs.len() as u64,
            canary_lost,
            problems: times.problems,
        })
    }

    /// Ends every fault, for the next run to begin with a cluster that can become whole.
    pub async fn mend(&self) {
        if let Err(error) = self.cluster.act(&Action::Mend).await {
            tracing::warn!(%error, "cannot mend the cluster");
        }
    }

    async fn break_and_heal(
        &self,
        fault: Fault,
        injection: &Injection,
        workload: &Workload,
    ) -> Result<Times, Error> {
        self.say(fault, "warming up", Some(workload));
        let flows = || workload.acked() > 0 && flowing(workload);
        if !self.until(self.bounds.flow_max, (fault, "waiting for writes", workload), flows).await {
            let because = self.view().shortcoming.unwrap_or_else(|| "it seems whole".into());
            return Err(Error::NoWrites { seconds: self.bounds.flow_max.as_secs(), because });
        }
        tokio::time::sleep(self.bounds.warming).await;

        let mut problems = Vec::new();
        let fault_at = clock::now();
        self.say(fault, "breaking", Some(workload));
        self.act(&injection.inject, &mut problems).await;
        let lasted = || clock::now().since(fault_at) >= fault.lasts();
        match fault.writes() {
            Writes::GoOn => {
                let watched = (fault, "broken; waiting for writes", workload);
                let limit = fault.lasts() + self.bounds.flow_max;
                if !self.until(limit, watched, || lasted() && flowing(workload)).await {
                    problems.push("no writes while the fault lasted".into());
                }
            }
            Writes::Stop => {
                tokio::time::sleep(IN_FLIGHT).await;
                let before = workload.acked();
                let watched = (fault, "broken; nothing may be written", workload);
                self.until(fault.lasts() * 2, watched, lasted).await;
                let more = workload.acked() - before;
                if more > 0 && self.view().durability.as_deref() == Some("quorum") {
                    problems.push(format!("{more} writes acknowledged without a commit quorum"));
                }
            }
        }
        let healed_at = (!injection.heal.is_empty()).then(clock::now);
        self.say(fault, "healing", Some(workload));
        self.act(&injection.heal, &mut problems).await;
        let mended = || {
            self.view().is_redundant_for(self.bounds.whole_for, clock::now()) && flowing(workload)
        };
        let watched = (fault, "healed; waiting for full redundancy", workload);
        let whole = self.until(self.bounds.mended_max, watched, mended).await;
        if !whole {
            let why = self.view().shortcoming.unwrap_or_else(|| "no writes".into());
            let limit = self.bounds.mended_max.as_secs();
            problems.push(format!("not fully redundant within {limit} s: {why}"));
        }
        Ok(Times { fault_at, healed_at, over_at: clock::now(), whole, problems })
    }

    /// All at once, as a real fault of several nodes would be.
    async fn act(&self, actions: &[Action], problems: &mut Vec<String>) {
        let done = actions.iter().map(|action| self.cluster.act(action));
        let results = futures::future::join_all(done).await;
        for error in results.into_iter().filter_map(Result::err) {
            problems.push(with_causes(&error));
        }
    }

    fn judge(&self, fault: Fault, cast: &Cast, times: &mut Times) {
        let after = self.view().primary;
        let moved = after.as_ref() != Some(&cast.primary);
        if moved && fault.keeps_primary() {
            times.problems.push("the primary moved without need".into());
        }
        if !moved && fault.moves_primary() {
            times.problems.push("the primary did not move".into());
        }
    }

    /// From healing, or from the fault where nothing was healed; zero if it never was less.
    fn redundant_again(&self, times: &Times) -> Duration {
        let since = self.view().redundant_since.unwrap_or(times.over_at);
        since.since(times.healed_at.unwrap_or(times.fault_at))
    }

    async fn wait_whole(&self) -> Result<View, Error> {
        let limit = self.bounds.whole_max;
        let deadline = clock::now().plus(limit);
        loop {
            let view = self.view();
            if view.is_redundant_for(self.bounds.whole_for, clock::now()) {
                return Ok(view);
            }
            if clock::now() > deadline {
                let because = view.shortcoming.unwrap_or_else(|| "only for a moment".into());
                return Err(Error::NotRedundant { seconds: limit.as_secs(), because });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn cast(&self, seed: u64, round: u32) -> Result<Cast, Error> {
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
    async fn part_leader_and_primary(
        &self,
        cast: &Cast,
        seed: u64,
        round: u32,
    ) -> Result<Cast, Error> {
        let to = cast.standbys.first().cloned();
        self.cluster.act(&Action::SwitchOver { via: cast.primary.clone(), to }).await?;
        let apart = self.cast(seed, round).await?;
        if apart.leader.as_ref() == Some(&apart.primary) {
            let because = "the Raft leader is on the primary's node, and follows it".into();
            return Err(Error::Skipped { fault: Fault::LeaderKill, because });
        }
        Ok(apart)
    }

    async fn session(&self) -> Result<Session, Error> {
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

    async fn read(&self, run: &str) -> Result<(ledger::Rows, ledger::CanaryRows), Error> {
        let session = self.session().await?;
        let unreadable = |source| Error::Tables { source };
        let rows = ledger::rows(&session, run).await.map_err(unreadable)?;
        Ok((rows, ledger::canary_rows(&session, run).await.map_err(unreadable)?))
    }

    /// Waits for a condition and says so; false when the limit came first.
    async fn until(
        &self,
        limit: Duration,
        (fault, step, workload): (Fault, &str, &Workload),
        done: impl Fn() -> bool,
    ) -> bool {
        let deadline = clock::now().plus(limit);
        while !done() {
            if clock::now() > deadline {
                return false;
            }
            self.say(fault, step, Some(workload));
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    fn say(&self, fault: Fault, step: &str, workload: Option<&Workload>) {
        self.progress.send_replace(Progress {
            step: format!("{fault}: {step}"),
            acked: workload.map_or(0, Workload::acked),
            silence: workload.map_or(Duration::ZERO, |w| clock::now().since(w.last_acked())),
            primary: self.view().primary,
        });
    }
}

fn flowing(workload: &Workload) -> bool {
    clock::now().since(workload.last_acked()) <= FLOWING
}

fn errors(history: &History) -> u64 {
    history.count(Outcome::Refused) + history.closed_doors
}

fn instances(addresses: &[Address]) -> Vec<(NodeId, SocketAddr)> {
    addresses.iter().filter_map(|a| Some((a.node.clone(), a.instance?))).collect()
}

/// An error and what caused it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
