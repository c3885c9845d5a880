//! Builds the front doors of commands whose work is divided: each leads to the owner of a key.
//! In: `Ground`. Out: open doors, `Snapshot`s.
//! A door is what its daemon began with: it is opened, and its endpoints are found, once.
//! Not here: who owns what (`driver/guides/by_key.rs`), doors to any copy (`copies.rs`).
//! Tested by: `tests/keys`.

use super::super::{Error, Ground};
use super::balancers::door_config;
use super::commands;
use crate::config::KeyDoor;
use crate::consensus::Consensus;
use crate::driver::guides::by_key::KeyGuide;
use crate::driver::guides::{Addresses, Sources};
use crate::proxy::{Balancer, BalancerConfig, HttpConfig, Snapshot, Upstream};
use crate::runtime::supervisor::TaskKind;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::ServiceId;
use tokio::sync::watch;

/// The doors by key of this node.
#[derive(Debug, Default)]
pub(in crate::node) struct KeyDoors(Vec<KeyedDoor>);

#[derive(Debug)]
struct KeyedDoor {
    service: ServiceId,
    door: Arc<Balancer>,
    addresses: watch::Sender<Addresses>,
}

impl KeyDoors {
    /// Binds them; nobody is sent anywhere yet.
    ///
    /// # Errors
    /// An address cannot be had.
    pub(in crate::node) fn open(ground: &Ground) -> Result<Self, Error> {
        let mut doors = Vec::new();
        let Some(node) = ground.config.nodes.get(&ground.args.node) else {
            return Ok(Self::default());
        };
        for (service, command) in &ground.config.commands {
            let Some(partitions) = &command.partitions else { continue };
            let Some(KeyDoor { key, door }) = &partitions.door else { continue };
            let addresses = commands::addresses(ground, &ground.config, (service, command));
            let upstream = |address: &std::net::SocketAddr| Upstream {
                host: address.ip().to_string(),
                port: address.port(),
                weight: 1,
                far: false,
                drain: false,
            };
            let config = door_config(service, door, node);
            let http = config.http.map(|http| HttpConfig { hash_key: Some(key.clone()), ..http });
            let config = BalancerConfig {
                upstreams: addresses.values().map(upstream).collect(),
                partitions: Some(partitions.count),
                http,
                ..config
            };
            let door = Arc::new(Balancer::open(config, &ground.supervisor)?);
            let addresses = watch::Sender::new(addresses);
            doors.push(KeyedDoor { service: service.clone(), door, addresses });
        }
        Ok(Self(doors))
    }

    /// Leads clients to owners from now on.
    pub(in crate::node) fn let_in(&self, ground: &Ground, consensus: &Consensus) {
        for KeyedDoor { service, door, addresses } in &self.0 {
            let Some(command) = ground.config.commands.get(service) else { continue };
            let guide = KeyGuide {
                work: service.clone(),
                sources: Sources {
                    hub: ground.hub.clone(),
                    agreed: consensus.state(),
                    addresses: addresses.subscribe(),
                },
                suspicion: command.timing.suspicion,
                door: Arc::clone(door),
            };
            let run = guide.run(ground.supervisor.stopping());
            ground.supervisor.spawn("door by key", TaskKind::Essential, run);
        }
    }

    /// Every door as it is now.
    pub(in crate::node) fn snapshots(&self) -> Vec<Snapshot> {
        self.0.iter().map(|it| it.door.snapshot()).collect()
    }

    /// Accepts nobody more, gives requests `grace` to end, then cuts them.
    pub(in crate::node) async fn close(&self, grace: Duration) {
        let close = |KeyedDoor { service, door, .. }: &KeyedDoor| {
            let (service, door) = (service.clone(), Arc::clone(door));
            async move {
                if !door.close(grace).await {
                    tracing::info!(%service, "connections were cut");
                }
            }
        };
        join_all(self.0.iter().map(close)).await;
    }
}
