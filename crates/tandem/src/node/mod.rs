//! Builds and wires the parts of one node, starts and stops them in order.
//! In: the configuration file, this node's name and folder. Out: a running node, until it is told
//! to stop.
//! Start: doors and ports are bound first, so that a clash is an error before anything runs. Stop:
//! doors, then the rest; instances stay with their keepers, so that a restart or an upgrade of the
//! daemon restarts no database, and a stop for good is `tandem drain` first.
//! Not here: what a part does.

mod agreed;
pub mod before;
mod founding;
mod handler;
mod live;
pub mod login;
mod mounts;
mod operations;
mod prepare;
pub(crate) mod problem;
pub mod recover;
mod running;
mod services;
mod user;

use crate::api;
use crate::config::{self, Config};
use crate::consensus::{self, Consensus, ConsensusConfig, RaftTiming};
use crate::driver::asks::Asks;
use crate::driver::controller::Controller;
use crate::driver::explain::Explanations;
use crate::driver::hub::Hub;
use crate::identity::{self, Identity, JoinDesk};
use crate::peers::{self, Mesh, MeshConfig};
use crate::proxy;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::runtime::{process, signals};
use crate::service::postgres;
use crate::telemetry::events::EventLog;
use handler::{RaftOverMesh, Reception};
use live::{Hands, Live};
use running::Running;
use serde::Deserialize;
use services::commands::Driven;
use services::folders::Folders;
use services::fronts::Fronts;
use services::ports::Ports;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId};

/// How long the parts get to end.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeArgs {
    /// The configuration file.
    pub config: PathBuf,
    /// Which of its nodes this is.
    pub node: NodeId,
    /// Where it keeps everything.
    pub dir: PathBuf,
    /// Other addresses at which this node reaches its peers.
    pub routes: Option<PathBuf>,
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or a folder made.
    #[error("cannot read or make {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The configuration cannot be read.
    #[error(transparent)]
    Unreadable(config::Error),
    /// The configuration has errors.
    #[error("the configuration has {} problems", .0.len())]
    Config(Vec<config::Problem>),
    /// The configuration does not name this node.
    #[error("the configuration has no node named {node}; it has {known}")]
    NoSuchNode {
        /// Who was asked for.
        node: NodeId,
        /// Who there is.
        known: String,
    },
    /// The folder belongs to another node.
    #[error("{dir} is the folder of node {found}, not of {node}")]
    OtherNode {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who was started.
        node: NodeId,
    },
    /// The node was removed.
    #[error(
        "{node} was removed from the cluster by configuration {version}; disable its unit, or \
         empty {} and let it join again", dir.display()
    )]
    Removed {
        /// Which.
        node: NodeId,
        /// By which version.
        version: ConfigVersion,
        /// Its folder.
        dir: PathBuf,
    },
    /// The file of other addresses is wrong.
    #[error("{path}: {source}")]
    Routes {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// Certificates and secrets.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The store of what is agreed.
    #[error(transparent)]
    Consensus(#[from] consensus::Error),
    /// The peer port.
    #[error(transparent)]
    Peers(#[from] peers::Error),
    /// A front door.
    #[error(transparent)]
    Door(#[from] proxy::Error),
    /// PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// PostgreSQL's port is somebody else's.
    #[error("service {service}: something else listens on {address}, PostgreSQL's port")]
    PostgresPort {
        /// The service.
        service: ServiceId,
        /// Where PostgreSQL shall listen.
        address: SocketAddr,
    },
    /// The keeper of an instance.
    #[error(transparent)]
    Keeper(#[from] crate::fence::client::Error),
    /// The HTTP interface.
    #[error(transparent)]
    Api(#[from] api::server::Error),
    /// The user of an instance.
    #[error(transparent)]
    User(#[from] user::Error),
    /// A service is back, and what was before under its name has not ended here.
    #[error("the copy of before still ends here")]
    StillEnds,
    /// A part that must run ended.
    #[error("a part of the node ended unexpectedly; the log says which")]
    Broken,
}

/// Where this node reaches one peer, if not where the configuration says (NAT, tunnels).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    pub peer: Option<String>,
    #[serde(default)]
    pub services: BTreeMap<String, SocketAddr>,
}

/// What every part of a node may need.
pub(crate) struct Ground {
    pub args: NodeArgs,
    /// Of the configuration it started with; 0 before anything was agreed.
    pub version: ConfigVersion,
    pub config: Config,
    pub identity: Arc<Identity>,
    pub routes: BTreeMap<NodeId, Route>,
    pub hub: Arc<Hub>,
    pub explanations: Arc<Explanations>,
    pub events: EventLog,
    pub supervisor: Supervisor,
    folders: Folders,
    ports: Ports,
}

/// Runs a node until `stop` resolves.
///
/// # Errors
/// What keeps it from starting, or that a part of it broke.
pub async fn run(args: NodeArgs, stop: impl Future<Output = ()>) -> Result<(), Error> {
    process::use_all_files();
    signals::hand_on_defaults();
    let supervisor = Supervisor::new();
    let result = start(args, &supervisor).await;
    let broken = supervisor.broken();
    if let Ok(running) = &result {
        tokio::select! {
            () = stop => {}
            () = broken.cancelled() => {}
            () = running.gone.cancelled() => {}
        }
        supervisor.leave();
        running.close().await;
    }
    if !supervisor.stop(STOP_GRACE).await {
        tracing::warn!("some tasks did not end in time");
    }
    let running = result?;
    if running.gone.is_cancelled() {
        // Their drivers have ended, and would miss them.
        services::leftovers::release(&running.dir).await;
    }
    if broken.is_cancelled() { Err(Error::Broken) } else { running.outcome() }
}

async fn start(args: NodeArgs, supervisor: &Supervisor) -> Result<Running, Error> {
    let ground = Arc::new(prepare::prepare(args, supervisor)?);
    before::check(&ground).await?;
    let doors = services::open_doors(&ground).await?;
    let fronts = Fronts::open(&ground)?;
    let Fronts { leased, balancers, led: _, copies } = fronts.clone();
    let transport = Arc::new(RaftOverMesh::default());
    let config = consensus_config(&ground);
    let consensus = Consensus::start(config, transport.clone(), supervisor.clone()).await?;
    let (asks, receivers) = services::ask_channels(&ground.config);
    let reception = Arc::new(Reception {
        hub: ground.hub.clone(),
        consensus: OnceLock::from(consensus.clone()),
        asks: asks.clone(),
        operate: OnceLock::new(),
        local: OnceLock::new(),
        events: ground.events.clone(),
    });
    let mesh = connect(&ground, &consensus, reception.clone()).await?;
    let _ = transport.0.set(mesh.clone());
    founding::found(&ground, &consensus).await?;
    let mut places = services::places(&ground);
    let driven = Arc::new(Driven::start(&ground, &asks, &consensus.state())?);
    let instances = services::start(&ground, &consensus, receivers, &mut places).await?;
    copies.start(&consensus.state()).await?;
    let opened = services::let_in(doors, &ground, &consensus, &places).await;
    fronts.let_in(&consensus.state());
    control(&ground, &consensus, &mesh, asks);
    let doors = Arc::new(opened);
    let hands = Hands {
        mesh: mesh.clone(),
        consensus: consensus.clone(),
        places,
        doors: doors.clone(),
        fronts,
        driven: driven.clone(),
    };
    let live = Live::new(ground.clone(), hands);
    let (applied, gone) = (live.applied(), live.gone());
    supervisor.spawn("configuration", TaskKind::Essential, live.run(supervisor.stopping()));
    let parts = operations::Ground {
        me: ground.args.node.clone(),
        dir: ground.args.dir.clone(),
        config: ground.config.clone(),
        applied: applied.clone(),
        hub: ground.hub.clone(),
        consensus: consensus.clone(),
        mesh: mesh.clone(),
        explanations: ground.explanations.clone(),
        events: ground.events.clone(),
        supervisor: ground.supervisor.clone(),
        doors: doors.clone(),
        balancers: balancers.clone(),
        copies: copies.clone(),
        leased: leased.clone(),
        instances,
        driven,
        identity: ground.identity.clone(),
    };
    operate(&ground, parts, &reception).await?;
    let NodeArgs { node, dir, .. } = ground.args.clone();
    let balanced = (balancers, copies, leased);
    Ok(Running { me: node, dir, applied, gone, doors, balanced, consensus, mesh })
}

fn consensus_config(ground: &Ground) -> ConsensusConfig {
    ConsensusConfig {
        me: ground.args.node.clone(),
        cluster: ground.identity.cluster().clone(),
        path: ground.args.dir.join("raft.redb"),
        timing: RaftTiming::default(),
    }
}

async fn connect(
    ground: &Ground,
    consensus: &Consensus,
    reception: Arc<Reception>,
) -> Result<Mesh, Error> {
    let node = &ground.args.node;
    let dial = |peer: &NodeId, address: String| {
        ground.routes.get(peer).and_then(|route| route.peer.clone()).unwrap_or(address)
    };
    let peers = ground
        .config
        .nodes
        .iter()
        .filter(|(peer, _)| *peer != node)
        .map(|(peer, it)| (peer.clone(), dial(peer, it.address.to_string())))
        .collect();
    let listen = ground
        .config
        .nodes
        .get(node)
        .map(crate::config::Node::listen_address)
        .ok_or(Error::Broken)?;
    let join = join_desk(ground, consensus)?;
    let config = MeshConfig { identity: ground.identity.clone(), listen, peers, join };
    Ok(Mesh::start(config, reception, ground.supervisor.clone()).await?)
}

/// Lets nodes in that show a token, where the authority's key is.
fn join_desk(ground: &Ground, consensus: &Consensus) -> Result<Option<Arc<JoinDesk>>, Error> {
    let (agreed, own) = (consensus.state(), ground.config.text.clone());
    let configuration = move || {
        let state = agreed.borrow().state.clone();
        let is_founded = state.cluster.is_some();
        if is_founded { state.config_text.clone() } else { own.clone() }
    };
    match JoinDesk::open(&ground.args.dir, configuration) {
        Ok(desk) => Ok(Some(Arc::new(desk))),
        Err(identity::Error::NoAuthority { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn control(ground: &Ground, consensus: &Consensus, mesh: &Mesh, asks: Arc<Asks>) {
    let controller = Controller {
        hub: ground.hub.clone(),
        consensus: consensus.clone(),
        mesh: mesh.clone(),
        local: asks,
        explanations: ground.explanations.clone(),
    };
    let run = controller.run(ground.supervisor.stopping());
    ground.supervisor.spawn("controller", TaskKind::Essential, run);
}

/// Serves operators: the API, and what other nodes ask for theirs.
async fn operate(
    ground: &Ground,
    parts: operations::Ground,
    reception: &Reception,
) -> Result<(), Error> {
    let operations = operations::NodeOperations::new(parts);
    let _ = reception.operate.set(operations.for_peers());
    let _ = reception.local.set(operations.for_wishes());
    operations.watch();
    let Some(node) = ground.config.nodes.get(&ground.args.node) else { return Ok(()) };
    let served = api::server::serve(node.api, Arc::new(operations), ground.supervisor.clone());
    let address = served.await?;
    tracing::info!(%address, "serves the API");
    Ok(())
}
