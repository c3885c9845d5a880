//! Talks to everything of a dev cluster at once: lays it out, starts it, stops it.
//! In: `DevConfig`, `Wiring`. Out: `DevCluster`.
//! Not here: how it is broken (`faults.rs`).
//! Tested by: below, with a stand-in for the program; the drill.

mod joining;

use super::client::{self, SwitchoverRequest};
use super::daemon::{Daemon, Launch, Wanted};
use super::disk::Disk;
use super::layout::{self, Claim, Layout, NodePlace, SERVICE};
use super::mesh::Mesh;
use super::remains::Remains;
use super::status::Status;
use super::{DevConfig, Error, Wiring, folders};
use crate::runtime::supervisor::Supervisor;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tandem_core::ids::NodeId;

/// Everything that the tasks watch over is gone by then.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A busy machine takes seconds to start several nodes at once.
const ANSWER_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A whole cluster on this machine. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct DevCluster {
    // Fields are dropped in this order: first nobody restarts daemons, then everything goes.
    pub(super) daemons: BTreeMap<NodeId, Daemon>,
    tasks: Supervisor,
    remains: Remains,
    pub(super) mesh: Mesh,
    layout: Layout,
    wiring: Wiring,
    _claim: Claim,
}

impl DevCluster {
    /// Makes the folders, files and relays of a new cluster and starts its daemons.
    ///
    /// # Errors
    /// When something of it is not possible here; what was begun is removed again.
    pub async fn start(config: &DevConfig, wiring: &Wiring) -> Result<Self, Error> {
        let root = folders::root(config.root.as_deref())?;
        let path = root.path.clone();
        let mut remains = Remains::of(root, config.keep);
        let (layout, claim) = Layout::find(config, &path)?;
        for place in layout.places() {
            remains.add_node(place.dir.clone());
        }
        folders::nodes(&layout)?;
        if let Some(bytes) = config.disk_bytes {
            for place in layout.nodes.iter().filter(|place| !place.witness) {
                remains.add_disk(Disk::mount(&place.dir.join("services"), bytes)?);
            }
        }
        let config_path = path.join("tandem.toml");
        remains.add_file(config_path.clone());
        folders::write(&config_path, &layout.config_text(config))?;
        let names: Vec<NodeId> = layout.nodes.iter().map(|place| place.node.clone()).collect();
        (wiring.identities)(&path, &names).map_err(|source| Error::Identities { source })?;
        let tasks = Supervisor::new();
        let mesh = Mesh::start(&tasks, &layout, config.delay).await?;
        let mut daemons = BTreeMap::new();
        for place in &layout.nodes {
            write_routes(&mesh, place)?;
            let launch = launch(&layout.root.join("tandem.toml"), place, wiring);
            daemons.insert(place.node.clone(), Daemon::start(&tasks, launch, Wanted::Up));
        }
        for place in layout.spares() {
            let launch = launch(&place.dir.join("tandem.toml"), place, wiring);
            daemons.insert(place.node.clone(), Daemon::start(&tasks, launch, Wanted::Down));
        }
        let wiring = wiring.clone();
        Ok(Self { daemons, tasks, remains, mesh, layout, wiring, _claim: claim })
    }

    /// Waits until every node answers operators.
    ///
    /// # Errors
    /// A node ended instead, or does not answer.
    pub async fn answers(&self) -> Result<(), Error> {
        let up = async {
            for place in &self.layout.nodes {
                let address = self.layout.api(place);
                while client::status(address).await.is_err() {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        };
        let ends = self.daemons.iter().map(|(node, daemon)| {
            Box::pin(
                async move { Error::NodeEnded { node: node.clone(), said: daemon.ended().await } },
            )
        });
        tokio::select! {
            biased;
            (ended, _, _) = futures::future::select_all(ends) => Err(ended),
            up = tokio::time::timeout(ANSWER_MAX, up) => up.map_err(|_| self.silent()),
        }
    }

    /// How often each node's daemon ended though nobody had meant it to, so far.
    pub fn deaths(&self) -> Vec<(NodeId, usize)> {
        let deaths = |(node, daemon): (&NodeId, &Daemon)| (node.clone(), daemon.deaths());
        self.daemons.iter().map(deaths).collect()
    }

    /// How a node's daemon ended last though nobody had meant it to, in words.
    pub fn last_death(&self, node: &NodeId) -> String {
        self.daemons.get(node).map_or_else(|| "it is no node".to_owned(), Daemon::last_death)
    }

    /// The number of the process of a node's daemon, while there is one.
    pub fn daemon_pid(&self, node: &NodeId) -> Option<i32> {
        self.daemons.get(node).and_then(Daemon::pid)
    }

    fn silent(&self) -> Error {
        let address = self.layout.nodes.first().map(|place| self.layout.api(place));
        let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        Error::ApiSilent { address, seconds: ANSWER_MAX.as_secs() }
    }

    /// Whether this process may give nodes small disks (`DevConfig::disk_bytes`).
    ///
    /// # Errors
    /// Why not.
    pub fn small_disks_allowed() -> Result<(), Error> {
        Disk::allowed()
    }

    /// Where everything is.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The program that its nodes run; it need not be on PATH.
    pub fn exe(&self) -> &std::path::Path {
        &self.wiring.exe
    }

    /// The name of its service.
    pub const fn service(&self) -> &'static str {
        SERVICE
    }

    /// The password of one of the service's roles.
    ///
    /// # Errors
    /// When the node's secret cannot be read.
    pub fn password(&self, role: &str) -> Result<String, Error> {
        let Some(place) = self.layout.nodes.first() else { return Err(Error::Nodes { nodes: 0 }) };
        (self.wiring.password)(&place.dir, SERVICE, role)
            .map_err(|source| Error::Password { role: role.into(), source })
    }

    /// Asks one node how the cluster is.
    ///
    /// # Errors
    /// When it does not answer, or not with a status.
    pub async fn status(&self, node: &NodeId) -> Result<Status, Error> {
        client::status(self.api(node)?).await
    }

    /// Asks a node for a switchover.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn switchover(&self, via: &NodeId, to: Option<&NodeId>) -> Result<(), Error> {
        client::switchover(self.api(via)?, SERVICE, SwitchoverRequest { to: to.cloned() }).await
    }

    /// Where a node answers operators.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn api(&self, node: &NodeId) -> Result<SocketAddr, Error> {
        self.layout.place(node).map(|place| self.layout.api(place))
    }

    /// Ends everything and removes the folder.
    pub async fn stop(mut self) {
        for daemon in self.daemons.values() {
            daemon.want(Wanted::Down);
        }
        let mut remains = std::mem::replace(&mut self.remains, Remains::nothing());
        // Blocks for up to some seconds while PostgreSQL stops.
        let _ = tokio::task::spawn_blocking(move || remains.clear()).await;
        self.tasks.stop(STOP_MAX).await;
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        for daemon in self.daemons.values() {
            daemon.want(Wanted::Down);
        }
        self.tasks.stopping().cancel();
    }
}

/// Where a node finds the links to the others.
fn write_routes(mesh: &Mesh, place: &NodePlace) -> Result<(), Error> {
    let routes = layout::routes_text(&mesh.detours(&place.node));
    folders::write(&place.dir.join("routes.toml"), &routes)
}

fn launch(config: &Path, place: &NodePlace, wiring: &Wiring) -> Launch {
    let args: [OsString; 9] = [
        "node".into(),
        "--config".into(),
        config.into(),
        "--node".into(),
        place.node.as_str().into(),
        "--dir".into(),
        place.dir.clone().into(),
        "--routes".into(),
        place.dir.join("routes.toml").into(),
    ];
    Launch { exe: wiring.exe.clone(), args: args.into(), log: place.dir.join("node.log") }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::Arc;

    /// The seventh argument is the node's folder. The keeper outlives its daemon.
    const SCRIPT: &str = "#!/bin/sh\necho \"$@\"\n\
        sh -c 'sleep 1000; true' sh keeper --dir \"$7/services/orders\" &\nwait\n";

    /// A cluster of stand-ins: each node is a shell with a child, as deep as the real thing.
    pub async fn stand_in(nodes: usize, script: &Path) -> DevCluster {
        let cluster = stand_in_of(nodes, script, SCRIPT).await;
        for place in &cluster.layout().nodes {
            cluster.daemons[&place.node].restarted(None).await;
        }
        cluster
    }

    async fn stand_in_of(nodes: usize, script: &Path, text: &str) -> DevCluster {
        std::fs::write(script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(script, mode).unwrap();
        let wiring = Wiring {
            exe: script.into(),
            identities: Arc::new(|root, nodes| {
                for node in nodes {
                    std::fs::create_dir_all(root.join(node.as_str()).join("identity"))?;
                }
                Ok(())
            }),
            password: Arc::new(|_, _, role| Ok(format!("secret of {role}"))),
        };
        let spares = vec!["z".into()];
        let config = DevConfig { nodes, spares, ..DevConfig::default() };
        DevCluster::start(&config, &wiring).await.unwrap()
    }

    #[tokio::test]
    async fn a_node_that_ends_while_it_starts_is_named_with_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\nprintf 'error[TDM0501]: no programs\\n  because: none\\n  try: \
                      install\\n'\nexit 1\n";
        let cluster = stand_in_of(2, &folder.path().join("node"), script).await;
        let limit = Duration::from_secs(20);
        let error = tokio::time::timeout(limit, cluster.answers()).await.unwrap().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("error[TDM0501]: no programs; because: none; try: install"),
            "{text}"
        );
        let root = cluster.layout().root.clone();
        cluster.stop().await;
        assert!(!root.exists());
    }

    #[tokio::test]
    async fn starts_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = stand_in(3, &folder.path().join("node")).await;
        let layout = cluster.layout().clone();
        assert!(layout.root.join("tandem.toml").exists());
        assert!(
            layout.root.join("b/routes.toml").exists() && layout.root.join("c/identity").exists()
        );
        assert_eq!(cluster.password("app").unwrap(), "secret of app");
        cluster.stop().await;
        assert!(!layout.root.exists());
        for place in &layout.nodes {
            assert!(super::super::processes::of_node(&place.dir).is_empty());
        }
    }

    #[tokio::test]
    async fn dropped_it_leaves_nothing_behind_either() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = stand_in(2, &folder.path().join("node")).await;
        let layout = cluster.layout().clone();
        drop(cluster);
        assert!(!layout.root.exists());
        assert!(super::super::processes::of_node(&layout.nodes[0].dir).is_empty());
    }
}
