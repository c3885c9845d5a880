//! Builds what each service needs on this node: doors, the adapter, the keeper, the driver.
//! In: `Ground`. Out: running tasks.

pub(super) mod balancers;
mod closing;
pub(super) mod commands;
pub(super) mod copies;
mod counting;
pub(super) mod folders;
pub(super) mod fronts;
pub(super) mod leased;
pub(super) mod led;
pub(super) mod leftovers;
pub(super) mod ports;
pub(super) mod seats;
#[cfg(test)]
mod tests;

use super::user::run_as;
use super::{Error, Ground};
use crate::config::{Config, ReadLag, Service};
use crate::consensus::{Agreed, Consensus};
use crate::driver::actions::Context;
use crate::driver::asks::Asks;
use crate::driver::instance::leaving::Reconfigured;
use crate::driver::instance::wishes::Asked;
use crate::driver::instance::{InstanceDriver, SETTLE, Wiring};
use crate::driver::routes::{LagMax, Router};
use crate::driver::witness::Witness;
use crate::fence::client::Keeper;
use crate::proxy::{Door, DoorConfig, Mode, Routes};
use crate::runtime::supervisor::TaskKind;
use crate::service::postgres::{
    APP_ROLE, Binaries, InstanceConfig, Passwords, PeerAddress, Postgres, REPLICATION_ROLE, RunAs,
    SUPERUSER,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tandem_core::facts::InstanceFacts;
use tandem_core::ids::{NodeId, ServiceId, Term, TimelineId};
use tandem_core::spec::{Durability, NodeRole};
use tokio::sync::{mpsc, watch};

/// A replica is at most this far behind where the bound is given in time, in bytes.
const READ_LAG_BYTES_MAX: u64 = 1 << 30;

/// What is agreed, as this node has heard of it.
pub(super) type Agreement = watch::Receiver<Agreed>;

/// What each service is asked to promise.
pub(super) type AskReceivers = BTreeMap<ServiceId, mpsc::Receiver<Term>>;

/// The services of which one instance is appointed, seats among them.
pub(super) fn instances_of(config: &Config) -> impl Iterator<Item = ServiceId> {
    let alone = seats::leased(config).map(|it| it.id);
    config.services.keys().cloned().chain(alone)
}

/// Those of which this node has something to say.
fn told_of(ground: &Ground) -> BTreeSet<ServiceId> {
    let config = &ground.config;
    let role = config.nodes.get(&ground.args.node).map(|node| node.role);
    // A witness has no copy.
    let copies = config.commands.iter().filter(|(_, command)| command.copies.is_some());
    let copies = copies.map(|(service, _)| service.clone());
    instances_of(config).chain(copies.filter(|_| role == Some(NodeRole::Data))).collect()
}

pub(super) fn ask_channels(config: &Config) -> (Arc<Asks>, AskReceivers) {
    let asks = Asks::default();
    let of = |service: ServiceId| asks.add(&service).map(|receiver| (service, receiver));
    // What runs under a lease asks for its own (`commands.rs`).
    let receivers = config.services.keys().cloned().filter_map(of).collect();
    (Arc::new(asks), receivers)
}

/// A service's doors, bound, with nobody let in yet.
pub(super) struct Doors {
    service: ServiceId,
    doors: Vec<Door>,
    routes: watch::Sender<Arc<Routes>>,
}

pub(super) async fn open_doors(ground: &Ground) -> Result<Vec<Doors>, Error> {
    let Some(node) = ground.config.nodes.get(&ground.args.node) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (service, config) in &ground.config.services {
        let (routes, watch_routes) = watch::channel(Arc::new(Routes::default()));
        let strict = !matches!(config.durability, Durability::Async { .. });
        let modes = [(Some(config.listen), Mode::Write), (config.read_listen, Mode::Read)];
        let mut doors = Vec::new();
        for (listen, mode) in modes {
            let Some(listen) = listen else { continue };
            let door = DoorConfig {
                hold_max: config.hold_max,
                held_max: config.held_max,
                sessions_max: config.sessions_max,
                read_policy: config.read_policy,
                refuse_lower_durability: strict,
                ..DoorConfig::new(service.clone(), vec![listen.on(node)], mode)
            };
            doors.push(Door::open(door, watch_routes.clone(), ground.supervisor.clone()).await?);
        }
        all.push(Doors { service: service.clone(), doors, routes });
    }
    Ok(all)
}

/// Opens the doors once this node knows what it has.
pub(super) async fn let_in(
    doors: Vec<Doors>,
    ground: &Ground,
    consensus: &Consensus,
    places: &Places,
) -> Vec<(ServiceId, Door)> {
    ground.hub.settle(&told_of(ground), SETTLE).await;
    doors.into_iter().flat_map(|door| door.serve(ground, consensus, places)).collect()
}

impl Doors {
    /// Routes from now on.
    fn serve(
        self,
        ground: &Ground,
        consensus: &Consensus,
        places: &Places,
    ) -> Vec<(ServiceId, Door)> {
        let Some(place) = places.get(&self.service) else { return Vec::new() };
        let service = self.service.clone();
        let me = ground.config.nodes.get(&ground.args.node);
        let router = Router {
            hub: ground.hub.clone(),
            agreed: consensus.state(),
            addresses: place.addresses.subscribe(),
            zone: me.and_then(|node| node.zone.clone()),
            lag_max: place.lag_max.subscribe(),
            routes: self.routes,
            service: self.service,
        };
        let run = router.run(ground.supervisor.stopping());
        ground.supervisor.spawn("routes", TaskKind::Essential, run);
        self.doors.into_iter().map(|door| (service.clone(), door)).collect()
    }
}

/// How far a replica that serves reads may be behind.
pub(super) const fn lag_max(own: &Service) -> LagMax {
    match own.read_lag_max {
        ReadLag::Bytes(bytes) => LagMax { bytes, time: Duration::MAX },
        ReadLag::Time(time) => LagMax { bytes: READ_LAG_BYTES_MAX, time },
    }
}

/// Where this node reaches each data node's instance.
pub(super) fn addresses(
    ground: &Ground,
    config: &Config,
    service: &ServiceId,
) -> BTreeMap<NodeId, SocketAddr> {
    let Some(own) = config.services.get(service) else { return BTreeMap::new() };
    config
        .data_nodes()
        .map(|(node, it)| {
            let other = ground.routes.get(node).and_then(|r| r.services.get(service.as_str()));
            let is_me = *node == ground.args.node;
            let own = own.instance_address(it);
            (node.clone(), other.filter(|_| !is_me).copied().unwrap_or(own))
        })
        .collect()
}

/// What operators need of an instance of this node.
#[derive(Clone, Debug)]
pub(super) struct OwnInstance {
    /// Where its driver takes wishes.
    pub wishes: mpsc::Sender<Asked>,
    /// To look at it, as it is configured now.
    pub postgres: watch::Receiver<Postgres>,
}

/// Where a change of the configuration reaches what runs of a service here.
#[derive(Debug)]
pub(super) struct Place {
    /// Where this node reaches each data node's instance.
    pub addresses: watch::Sender<BTreeMap<NodeId, SocketAddr>>,
    /// A replica further behind than this serves no reads.
    pub lag_max: watch::Sender<LagMax>,
    /// The driver of the own instance, where there is one.
    pub configs: Option<mpsc::Sender<Reconfigured>>,
}

/// The services that this node started with.
pub(super) type Places = BTreeMap<ServiceId, Place>;

/// A configuration waits until the one before it was loaded.
const CONFIGS_MAX: usize = 1;

pub(super) fn places(ground: &Ground) -> Places {
    let place = |(service, own): (&ServiceId, &Service)| {
        let addresses = watch::Sender::new(addresses(ground, &ground.config, service));
        let lag_max = watch::Sender::new(lag_max(own));
        (service.clone(), Place { addresses, lag_max, configs: None })
    };
    ground.config.services.iter().map(place).collect()
}

/// The instances of this node.
pub(super) type OwnInstances = BTreeMap<ServiceId, OwnInstance>;

/// Wishes that may wait; one more is refused.
const WISHES_MAX: usize = 4;

pub(super) async fn start(
    ground: &Ground,
    consensus: &Consensus,
    mut asks: AskReceivers,
    places: &mut Places,
) -> Result<OwnInstances, Error> {
    let mut instances = OwnInstances::new();
    let role = ground.config.nodes.get(&ground.args.node).map(|node| node.role);
    for (service, config) in &ground.config.services {
        let Some(asks) = asks.remove(service) else { continue };
        match role {
            Some(NodeRole::Data) => {
                let (wishes, receiver) = mpsc::channel(WISHES_MAX);
                let (configs, new_configs) = mpsc::channel(CONFIGS_MAX);
                let requests = Requests { asks, wishes: receiver, configs: new_configs };
                let own = (service, config);
                let postgres = start_instance(ground, consensus, own, requests).await?;
                if let Some(place) = places.get_mut(service) {
                    place.configs = Some(configs);
                }
                instances.insert(service.clone(), OwnInstance { wishes, postgres });
            }
            Some(NodeRole::Witness) | None => {
                start_witness(ground, &consensus.state(), service, asks)?;
            }
        }
    }
    Ok(instances)
}

pub(super) fn start_witness(
    ground: &Ground,
    agreed: &Agreement,
    service: &ServiceId,
    asks: mpsc::Receiver<Term>,
) -> Result<(), Error> {
    let dir = ground.args.dir.join("services").join(service.as_str());
    std::fs::create_dir_all(&dir).map_err(|source| Error::File { path: dir.clone(), source })?;
    let witness = Witness {
        service: service.clone(),
        hub: ground.hub.clone(),
        agreed: agreed.clone(),
        path: dir.join("promised"),
        asks,
    };
    ground.supervisor.spawn(
        "witness",
        TaskKind::Essential,
        witness.run(ground.supervisor.stopping()),
    );
    Ok(())
}

/// What reaches the driver of an instance.
struct Requests {
    asks: mpsc::Receiver<Term>,
    wishes: mpsc::Receiver<Asked>,
    configs: mpsc::Receiver<Reconfigured>,
}

async fn start_instance(
    ground: &Ground,
    consensus: &Consensus,
    own: (&ServiceId, &Service),
    Requests { asks, wishes, configs }: Requests,
) -> Result<watch::Receiver<Postgres>, Error> {
    let service = own.0;
    let postgres = Postgres::new(instance_config(ground, &ground.config, own).await?)?;
    prepare_folder(&postgres)?;
    let run_dir = postgres.run_dir();
    let exe = std::env::current_exe()
        .map_err(|source| Error::File { path: "the running program".into(), source })?;
    let (keeper, keeper_events) =
        Keeper::attach_or_spawn(&run_dir, &exe, &ground.supervisor).await?;
    let context = Context {
        service: service.clone(),
        me: ground.args.node.clone(),
        postgres: postgres.clone(),
        keeper,
        run_dir,
        exe,
        stopped: watch::Sender::new(true),
        loaded: Arc::default(),
        history: Arc::new(Mutex::new((TimelineId(0), Vec::new()))),
        progress: watch::Sender::new(None),
    };
    let mut facts = InstanceFacts::default();
    context.inspect(&mut facts).await;
    let (shared, current) = watch::channel(postgres);
    let driver = InstanceDriver::new(Wiring {
        context,
        hub: ground.hub.clone(),
        explanations: ground.explanations.clone(),
        supervisor: ground.supervisor.clone(),
        agreed: consensus.state(),
        asks,
        wishes,
        configs,
        shared,
        events: ground.events.clone(),
        keeper_events,
        own: facts,
    });
    let run = driver.run(ground.supervisor.stopping());
    ground.supervisor.spawn("instance driver", TaskKind::Essential, run);
    Ok(current)
}

/// The own instance of a service, as a configuration of the whole cluster wants it.
pub(super) async fn instance_config(
    ground: &Ground,
    cluster: &Config,
    (service, config): (&ServiceId, &Service),
) -> Result<InstanceConfig, Error> {
    let node = cluster.nodes.get(&ground.args.node).ok_or(Error::Broken)?;
    let password = |role: &str| ground.identity.password(service, role);
    let peers = addresses(ground, cluster, service)
        .into_iter()
        .map(|(node, it)| (node, PeerAddress { host: it.ip().to_string(), port: it.port() }))
        .collect();
    Ok(InstanceConfig {
        cluster: ground.identity.cluster().clone(),
        service: service.clone(),
        me: ground.args.node.clone(),
        binaries: Binaries::find(config.bin_dir.as_deref()).await?,
        dir: ground.args.dir.join("services").join(service.as_str()),
        data_dir: config.data_dir.clone(),
        ballast_bytes: config.ballast_bytes,
        listen: vec![node.bind],
        port: config.port,
        run_as: run_as(service, config.run_as.as_deref())?,
        passwords: Passwords {
            superuser: password(SUPERUSER),
            replication: password(REPLICATION_ROLE),
            app: password(APP_ROLE),
        },
        locale: "C.UTF-8".into(),
        user_settings: config.settings.clone(),
        hba_extra: config.hba.clone(),
        peers,
        members: cluster.data_nodes().map(|(node, _)| node.clone()).collect(),
    })
}

/// The folder that keeper and server put their sockets in: of the server's user, closed to others.
fn prepare_folder(postgres: &Postgres) -> Result<(), Error> {
    let run_dir = postgres.run_dir();
    let failed = |source| Error::File { path: run_dir.clone(), source };
    std::fs::create_dir_all(&run_dir).map_err(failed)?;
    std::fs::set_permissions(&run_dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    if let Some(RunAs { uid, gid }) = postgres.config().run_as {
        let folders = [&postgres.config().dir, &run_dir];
        for folder in folders {
            std::os::unix::fs::chown(folder, Some(uid), Some(gid)).map_err(failed)?;
        }
    }
    Ok(())
}
