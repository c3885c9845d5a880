//! Talks to everything of a drilled service: its cluster, its endpoints, an operator's commands.
//! In: `Deed`s. Out: they are done; a `View`, a `Cast`.
//! Not here: the steps of a run (`steps.rs`).
//! Tested by: the drill itself.

mod members;

use super::endpoints::Endpoints;
use super::faults::{Cast, Deed, Shape, mending};
use super::kit::{Kit, SERVICE};
use super::subject::Subject;
use super::view;
use crate::dev::{DevCluster, Given};
use crate::drill::client::Http;
use crate::drill::evidence::workload::Load;
use crate::drill::stage::{Bounds, wait_whole};
use crate::drill::view::View;
use crate::drill::worker::Behaviour;
use crate::drill::{Action, Cluster as _, Error, Fault};
use crate::runtime::supervisor::Supervisor;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than any deadline of a command itself.
const COMMAND_MAX: Duration = Duration::from_secs(90);
/// Longer than any node that came back is given nothing.
const HELD_OFF_MAX: Duration = Duration::from_secs(240);

/// A cluster with a service that can be broken.
pub struct Stage {
    pub(super) subject: Subject,
    /// What is done to it in a round, in order.
    faults: Vec<Fault>,
    pub(super) cluster: Arc<DevCluster>,
    pub(super) kit: Arc<Kit>,
    pub(super) load: Load,
    pub(super) bounds: Bounds,
    endpoints: Endpoints,
    view: watch::Receiver<View>,
    /// Who is asked: the nodes of the configuration.
    pub(super) members: watch::Sender<Vec<NodeId>>,
    /// How many deaths of daemons were told of.
    told: Mutex<BTreeMap<NodeId, usize>>,
}

impl Stage {
    /// Sets the stage. What watches the cluster ends with `tasks`.
    pub fn new(
        (subject, kit, endpoints): (Subject, Arc<Kit>, Endpoints),
        faults: &[Fault],
        cluster: Arc<DevCluster>,
        load: Load,
        tasks: &Supervisor,
    ) -> Self {
        let nodes = cluster.layout().nodes.iter().map(|place| place.node.clone()).collect();
        let members = watch::Sender::new(nodes);
        let view = view::watch(tasks, Arc::clone(&cluster), subject, members.subscribe());
        // A node that was lost again and again is given no partitions for up to 160 s (H37).
        let bounds = match subject.rules() {
            Subject::Partitions => {
                Bounds { whole_max: HELD_OFF_MAX, mended_max: HELD_OFF_MAX, ..Bounds::default() }
            }
            _ => Bounds::default(),
        };
        Self {
            subject,
            faults: faults.into(),
            cluster,
            kit,
            load,
            bounds,
            endpoints,
            view,
            members,
            told: Mutex::default(),
        }
    }

    /// In words, each daemon that died by itself since this was asked last: it is started again,
    /// and what it was in the middle of may cost nobody anything.
    pub fn deaths(&self) -> Vec<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        for (node, deaths) in self.cluster.deaths() {
            let before = told.insert(node.clone(), deaths).unwrap_or(0);
            if deaths > before {
                let (times, how) = (deaths - before, self.cluster.last_death(&node));
                problems.push(format!("the daemon of {node} died by itself, {times} times: {how}"));
            }
        }
        problems
    }

    /// What was seen last.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Waits until nothing is missing.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub async fn wait_whole(&self) -> Result<View, Error> {
        wait_whole(&self.bounds, || self.view()).await
    }

    /// Who is who, once it is whole.
    ///
    /// # Errors
    /// When it does not get whole, or there are not enough nodes.
    pub async fn cast(&self, fault: Fault, seed: u64, round: u32) -> Result<Cast, Error> {
        let view = self.wait_whole().await?;
        let mut nodes: Vec<NodeId> =
            self.cluster.layout().nodes.iter().map(|place| place.node.clone()).collect();
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(u64::from(round)));
        let first = random.random_range(0..nodes.len().max(1));
        nodes.rotate_left(first);
        if let Some(at) = nodes.iter().position(|node| Some(node) == view.primary.as_ref()) {
            nodes.swap(0, at);
        }
        let [node, other, ..] = &nodes[..] else {
            return Err(Error::TooFewNodes { needed: 2, data_nodes: nodes.len() });
        };
        let endpoint = endpoint((&self.faults, fault), seed, round, self.kit.endpoints.len());
        let address = self.endpoints.address(endpoint).map(|it| it.to_string());
        let address = address.unwrap_or_default();
        let (node, other, spare) = (node.clone(), other.clone(), self.kit.spare());
        Ok(Cast { node, other, spare, endpoint, address })
    }

    /// Does one thing.
    ///
    /// # Errors
    /// When it cannot be done.
    pub async fn act(&self, deed: &Deed) -> Result<(), Error> {
        match deed {
            Deed::To(action) => self.cluster.act(action).await,
            Deed::Kill(at) => self.endpoints.kill(*at).await,
            Deed::Restart(at) => self.endpoints.restart(*at).await,
            Deed::Freeze(at) => self.endpoints.signal(*at, Signal::SIGSTOP).await,
            Deed::Thaw(at) => self.endpoints.signal(*at, Signal::SIGCONT).await,
            Deed::Behave(at, how) => self.endpoints.behave(*at, *how).await,
            Deed::BehaveAt(node, how) => self.behave(node, *how).await,
            Deed::Operate(via, words) => self.operate(via, words).await.map(drop),
            Deed::Apply(via, shape) => self.apply(via, shape).await,
            Deed::Join(via, node) => self.join(via, node).await,
            Deed::Leave(via, node) => self.leave(via, node).await,
        }
    }

    /// Past all doors.
    async fn behave(&self, node: &NodeId, how: Behaviour) -> Result<(), Error> {
        let layout = self.cluster.layout();
        let places = layout.instances(layout.place(node)?);
        let place = places.iter().find(|(service, _)| service == SERVICE).map(|(_, it)| *it);
        let asked = async {
            let mut http = Http::connect(place?).await?;
            http.ask("POST", &format!("/drill/{}", how.word())).await
        };
        match asked.await {
            Some(answer) if answer.status == 200 => Ok(()),
            _ => Err(Error::Command {
                words: format!("{} on {node}", how.word()),
                because: "its copy does not answer".into(),
            }),
        }
    }

    async fn apply(&self, via: &NodeId, shape: &Shape) -> Result<(), Error> {
        let path = self.kit.config_path();
        self.write_config(shape, &path)?;
        let words = ["config".to_owned(), "apply".to_owned(), path.display().to_string()];
        self.operate(via, &words).await.map(drop)
    }

    /// The file that its owner keeps.
    fn write_config(&self, shape: &Shape, path: &Path) -> Result<(), Error> {
        let given = Given::read(&self.kit.text(shape))?;
        let written = std::fs::write(path, self.cluster.layout().text_of(&given));
        written.map_err(|source| Error::Folder { path: path.into(), source })
    }

    /// As an operator at a terminal; what was answered.
    async fn operate(&self, via: &NodeId, words: &[String]) -> Result<String, Error> {
        let api = format!("http://{}", self.cluster.api(via)?);
        self.tandem(&["--api", &api], words).await
    }

    /// The same without a node that is asked.
    async fn tandem(&self, before: &[&str], words: &[String]) -> Result<String, Error> {
        let running = Command::new(self.kit.exe())
            .args(before)
            .args(words)
            .env_remove("TANDEM_API")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let refused = |because: String| Error::Command { words: words.join(" "), because };
        let output = timeout(COMMAND_MAX, running)
            .await
            .map_err(|_| refused(format!("it did not end within {COMMAND_MAX:?}")))?
            .map_err(|source| Error::Process { source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(refused(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
    }

    /// Ends every fault, for the next run to begin with something that can become whole.
    pub async fn mend_all(&self) {
        self.mend_members().await;
        if let Err(error) = self.cluster.act(&Action::Mend).await {
            tracing::warn!(%error, "cannot mend the cluster");
        }
        self.endpoints.mend().await;
        let nodes: Vec<NodeId> =
            self.cluster.layout().nodes.iter().map(|place| place.node.clone()).collect();
        for deed in mending(self.subject, &nodes) {
            // What was not broken need not be mended, and some of it cannot be.
            if let Err(error) = self.act(&deed).await {
                tracing::debug!(%error, "not mended");
            }
        }
        // The run that was mended for has failed already; the next one is not to blame.
        for death in self.deaths() {
            tracing::warn!("{death}, before all was mended");
        }
    }
}

/// Which endpoint a fault is about, of so many. The next fault is about the next one, into the next
/// round too: one that was just slow, or lied, gets little work for a while, and nothing that is
/// done to it then proves anything.
fn endpoint((faults, fault): (&[Fault], Fault), seed: u64, round: u32, endpoints: usize) -> usize {
    let endpoints = endpoints.max(1);
    let first = StdRng::seed_from_u64(seed).random_range(0..endpoints);
    let rounds = round.saturating_sub(1) as usize;
    let at = faults.iter().position(|it| *it == fault).unwrap_or(0);
    (first + (rounds % endpoints) * (faults.len() % endpoints) + at) % endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_endpoint_is_hit_twice_in_a_row() {
        let all = Subject::Http.faults();
        let some = [Fault::Slow, Fault::Resize];
        let two = [Fault::InstanceFreeze, Fault::Drain];
        for faults in [all, &some, &two] {
            for seed in 0..20 {
                let of = |fault: &Fault, round| endpoint((faults, *fault), seed, round, 3);
                let rounds = (1..=4).flat_map(|round| faults.iter().map(move |it| of(it, round)));
                let hit: Vec<usize> = rounds.collect();
                assert!(hit.windows(2).all(|two| two[0] != two[1]), "seed {seed}: {hit:?}");
                let again = (1..=4).flat_map(|round| faults.iter().map(move |it| of(it, round)));
                assert_eq!(hit, again.collect::<Vec<usize>>(), "repeated by its seed");
            }
        }
        let firsts = (0..20).map(|seed| endpoint((all, all[0]), seed, 1, 3));
        assert_eq!(firsts.collect::<std::collections::BTreeSet<_>>().len(), 3, "by lot");
    }
}
