//! Keeps the front doors of commands whose work is divided as the configuration wants them, from
//! the node's start to its end and while it changes: each leads to the owner of a key.
//! In: `Config`. Out: open doors, what waits, `Snapshot`s.
//! Not here: who owns what (`driver/guides/by_key.rs`), doors to any copy (`copies.rs`).
//! Tested by: `tests/keys`.

use super::super::{Error, Ground};
use super::balancers::door_config;
use super::commands;
use crate::config::{Command, Config, KeyDoor};
use crate::consensus::Consensus;
use crate::driver::guides::by_key::KeyGuide;
use crate::driver::guides::{Addresses, Sources};
use crate::proxy::{Balancer, BalancerConfig, HttpConfig, Snapshot, Upstream};
use crate::runtime::supervisor::TaskKind;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::ids::ServiceId;
use tokio::sync::watch;

/// What is under way at a door that is closed has so long to end.
const CLOSES_WITHIN: Duration = Duration::from_secs(30);

/// The doors by key of this node.
pub(in crate::node) struct KeyDoors {
    ground: Arc<Ground>,
    all: Mutex<BTreeMap<ServiceId, Open>>,
}

/// The door of one command.
#[derive(Debug)]
struct Open {
    door: Arc<Balancer>,
    addresses: watch::Sender<Addresses>,
    /// How many there are, which never changes of a door.
    partitions: Option<u32>,
}

impl std::fmt::Debug for KeyDoors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyDoors").finish_non_exhaustive()
    }
}

/// What a door is, and where it finds copies.
type Wanted = (BalancerConfig, Addresses);

impl KeyDoors {
    /// Binds those of the configuration that the node starts with; nobody is sent anywhere yet.
    ///
    /// # Errors
    /// An address cannot be had.
    pub(in crate::node) fn open(ground: &Arc<Ground>) -> Result<Self, Error> {
        let doors = Self { ground: Arc::clone(ground), all: Mutex::default() };
        for (service, command) in &ground.config.commands {
            let wanted = doors.wanted(&ground.config, (service, command));
            let Some(wanted) = wanted else { continue };
            let open = doors.bind(wanted)?;
            doors.lock().insert(service.clone(), open);
        }
        Ok(doors)
    }

    fn wanted(
        &self,
        config: &Config,
        (service, command): (&ServiceId, &Command),
    ) -> Option<Wanted> {
        let ground = &*self.ground;
        let partitions = command.partitions.as_ref()?;
        let KeyDoor { key, door } = partitions.door.as_ref()?;
        let node = config.nodes.get(&ground.args.node)?;
        let addresses = commands::addresses_begun(ground, config, (service, command));
        let upstream = |address: &SocketAddr| Upstream {
            host: address.ip().to_string(),
            port: address.port(),
            weight: 1,
            far: false,
            drain: false,
        };
        let door = door_config(service, door, node);
        let http = door.http.map(|http| HttpConfig { hash_key: Some(key.clone()), ..http });
        let upstreams = addresses.values().map(upstream).collect();
        let partitions = Some(partitions.count);
        Some((BalancerConfig { upstreams, partitions, http, ..door }, addresses))
    }

    fn bind(&self, (door, addresses): Wanted) -> Result<Open, Error> {
        let partitions = door.partitions;
        let door = Arc::new(Balancer::open(door, &self.ground.supervisor)?);
        Ok(Open { door, addresses: watch::Sender::new(addresses), partitions })
    }

    /// Leads clients to owners from now on.
    pub(in crate::node) fn let_in(&self, consensus: &Consensus) {
        for (service, open) in self.lock().iter() {
            let command = self.ground.config.commands.get(service);
            command.into_iter().for_each(|it| self.guide((service, it), open, consensus));
        }
    }

    fn guide(
        &self,
        (service, command): (&ServiceId, &Command),
        open: &Open,
        consensus: &Consensus,
    ) {
        let guide = KeyGuide {
            work: service.clone(),
            sources: Sources {
                hub: Arc::clone(&self.ground.hub),
                agreed: consensus.state(),
                addresses: open.addresses.subscribe(),
            },
            suspicion: command.timing.suspicion,
            door: Arc::clone(&open.door),
        };
        let run = guide.run(self.ground.supervisor.stopping());
        self.ground.supervisor.spawn("door by key", TaskKind::Session, run);
    }

    /// Goes on with another configuration; what could not be done is said, and done by the next
    /// call. A command that is new has no copies before the daemons' restart, and no door either.
    pub(in crate::node) fn follow(&self, config: &Config, consensus: &Consensus) -> Vec<String> {
        let began = |service: &ServiceId| self.ground.config.commands.contains_key(service);
        let commands = config.commands.iter().filter(|(service, _)| began(service));
        let wanted: BTreeMap<&ServiceId, (&Command, Wanted)> = commands
            .filter_map(|(service, it)| Some((service, (it, self.wanted(config, (service, it))?))))
            .collect();
        // One that was taken out and put back meanwhile may be divided otherwise.
        self.close_but(&|service, open| {
            wanted.get(service).is_some_and(|(_, (door, _))| door.partitions == open.partitions)
        });
        let mut waits = Vec::new();
        for (service, (command, wanted)) in wanted {
            if let Err(error) = self.follow_one((service, command), wanted, consensus) {
                waits.push(format!("{service}: {error}"));
            }
        }
        waits
    }

    fn follow_one(
        &self,
        (service, command): (&ServiceId, &Command),
        (door, addresses): Wanted,
        consensus: &Consensus,
    ) -> Result<(), Error> {
        let mut all = self.lock();
        if let Some(open) = all.get(service) {
            // First what cannot fail, and before anybody is sent to a node that is new.
            open.door.lead(door.upstreams.clone());
            let is_new = |old: &mut Addresses| {
                let differs = *old != addresses;
                *old = addresses;
                differs
            };
            open.addresses.send_if_modified(is_new);
            open.door.configure_rest(door)?;
            return Ok(());
        }
        let open = self.bind((door, addresses))?;
        self.guide((service, command), &open, consensus);
        all.insert(service.clone(), open);
        Ok(())
    }

    /// No new clients; what is under way gets its time.
    fn close_but(&self, stays: &dyn Fn(&ServiceId, &Open) -> bool) {
        let gone: Vec<(ServiceId, Open)> =
            self.lock().extract_if(.., |service, open| !stays(service, open)).collect();
        for (service, Open { door, addresses, partitions: _ }) in gone {
            let name = "door by key ends";
            self.ground.supervisor.spawn(name, TaskKind::Session, async move {
                if !door.close(CLOSES_WITHIN).await {
                    tracing::warn!(%service, "connections of a door that was closed were cut");
                }
                drop(addresses);
            });
        }
    }

    /// Every door as it is now.
    pub(in crate::node) fn snapshots(&self) -> Vec<Snapshot> {
        self.lock().values().map(|open| open.door.snapshot()).collect()
    }

    /// Accepts nobody more, gives requests `grace` to end, then cuts them.
    pub(in crate::node) async fn close(&self, grace: Duration) {
        let doors = std::mem::take(&mut *self.lock());
        let close = |(service, Open { door, .. }): (ServiceId, Open)| async move {
            if !door.close(grace).await {
                tracing::info!(%service, "connections were cut");
            }
        };
        join_all(doors.into_iter().map(close)).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Open>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
