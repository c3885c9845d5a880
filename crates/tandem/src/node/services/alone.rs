//! Keeps the front doors of commands of which one copy runs as the configuration wants them, from
//! the node's start to its end and while it changes.
//! In: `Config`. Out: open doors, what waits.
//! A door that goes accepts nobody at once, and its connections end within `drain_max`.
//! Keeps: INV-14, a door is there, and says what it has, until its last connection ended.
//! Not here: where a door leads (`driver/guides/alone.rs`), the copies (`commands.rs`).
//! Tested by: `tests/singleton`.

use super::super::{Error, Ground};
use super::commands;
use crate::config::{Command, Config};
use crate::consensus::Consensus;
use crate::driver::guides::alone::Guide;
use crate::driver::guides::{Addresses, Sources};
use crate::driver::hub::DoorWords;
use crate::proxy::{Balancer, BalancerConfig};
use crate::runtime::supervisor::TaskKind;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection;
use tandem_core::ids::ServiceId;
use tokio::sync::watch;

/// For the copy to accept a client's connection.
const CONNECT: Duration = Duration::from_secs(1);
/// A connection on which nothing moves for so long is closed.
const IDLE: Duration = Duration::from_secs(3600);

/// The door of one command.
#[derive(Debug)]
struct Open {
    door: Arc<Balancer>,
    addresses: watch::Sender<Addresses>,
    /// What it says to copies, until it is guided.
    words: Option<DoorWords>,
    drain_max: Duration,
}

/// All of them.
pub(in crate::node) struct AloneDoors {
    ground: Arc<Ground>,
    all: Mutex<BTreeMap<ServiceId, Open>>,
}

impl AloneDoors {
    /// Binds those of the configuration that the node starts with; nobody is led anywhere yet.
    ///
    /// # Errors
    /// An address cannot be had.
    pub(in crate::node) fn open(ground: &Arc<Ground>) -> Result<Self, Error> {
        let doors = Self { ground: Arc::clone(ground), all: Mutex::default() };
        for (service, command) in commands::alone(&ground.config) {
            let Some(config) = doors.wanted(&ground.config, (service, command)) else { continue };
            let open = doors.bind(&ground.config, (service, command), config)?;
            doors.lock().insert(service.clone(), open);
        }
        Ok(doors)
    }

    fn wanted(
        &self,
        config: &Config,
        (service, command): (&ServiceId, &Command),
    ) -> Option<BalancerConfig> {
        let node = config.nodes.get(&self.ground.args.node)?;
        Some(door_config(service, command, command.listen?.on(node)))
    }

    fn bind(
        &self,
        config: &Config,
        (service, command): (&ServiceId, &Command),
        door: BalancerConfig,
    ) -> Result<Open, Error> {
        let ground = &*self.ground;
        let door = Arc::new(Balancer::open(door, &ground.supervisor)?);
        let addresses = commands::addresses_begun(ground, config, (service, command));
        // A copy that is to end waits from now on until this door says that it knows (INV-14).
        let words = Some(DoorWords::open(&ground.hub, service));
        let drain_max = command.drain_max;
        Ok(Open { door, addresses: watch::Sender::new(addresses), words, drain_max })
    }

    /// Leads clients from now on.
    pub(in crate::node) fn let_in(&self, consensus: &Consensus) {
        for (service, open) in self.lock().iter_mut() {
            self.guide(service, open, consensus);
        }
    }

    fn guide(&self, service: &ServiceId, open: &mut Open, consensus: &Consensus) {
        let Some(words) = open.words.take() else { return };
        let sources = Sources {
            hub: Arc::clone(&self.ground.hub),
            agreed: consensus.state(),
            addresses: open.addresses.subscribe(),
        };
        let door = Arc::clone(&open.door);
        let guide = Guide { service: service.clone(), sources, door, words };
        let run = guide.run(self.ground.supervisor.stopping());
        self.ground.supervisor.spawn("door of a command", TaskKind::Session, run);
    }

    /// Goes on with another configuration; what could not be done is said, and done by the next
    /// call. A command that is new has no copy before the daemons' restart, and no door either.
    pub(in crate::node) fn follow(&self, config: &Config, consensus: &Consensus) -> Vec<String> {
        let began = |service: &ServiceId| self.ground.config.commands.contains_key(service);
        let wanted: BTreeMap<&ServiceId, (&Command, BalancerConfig)> = commands::alone(config)
            .filter(|(service, _)| began(service))
            .filter_map(|it| Some((it.0, (it.1, self.wanted(config, it)?))))
            .collect();
        self.close_but(&|service| wanted.contains_key(service));
        let mut waits = Vec::new();
        for (service, (command, door)) in wanted {
            if let Err(error) = self.follow_one(config, (service, command), door, consensus) {
                waits.push(format!("{service}: {error}"));
            }
        }
        waits
    }

    fn follow_one(
        &self,
        config: &Config,
        (service, command): (&ServiceId, &Command),
        door: BalancerConfig,
        consensus: &Consensus,
    ) -> Result<(), String> {
        let mut all = self.lock();
        if let Some(open) = all.get_mut(service) {
            let new = commands::addresses_begun(&self.ground, config, (service, command));
            let is_new = |old: &mut Addresses| std::mem::replace(old, new.clone()) != new;
            open.addresses.send_if_modified(is_new);
            open.drain_max = command.drain_max;
            // Where it leads is its guide's to say.
            return open.door.configure_rest(door).map_err(|error| error.to_string());
        }
        let open = self.bind(config, (service, command), door);
        let mut open = open.map_err(|error| error.to_string())?;
        self.guide(service, &mut open, consensus);
        all.insert(service.clone(), open);
        Ok(())
    }

    /// No new clients; those that are there get their time, and copies hear of them until then.
    fn close_but(&self, stays: &dyn Fn(&ServiceId) -> bool) {
        let gone: Vec<(ServiceId, Open)> =
            self.lock().extract_if(.., |service, _| !stays(service)).collect();
        for (service, Open { door, addresses, words, drain_max }) in gone {
            words.into_iter().for_each(DoorWords::close);
            let name = "door of a command ends";
            self.ground.supervisor.spawn(name, TaskKind::Session, async move {
                if !door.close(drain_max).await {
                    tracing::warn!(%service, "connections of a door that was closed were cut");
                }
                drop(addresses);
            });
        }
    }

    /// Accepts nobody more, gives connections `grace` to end, then cuts them.
    pub(in crate::node) async fn close(&self, grace: Duration) {
        let doors = std::mem::take(&mut *self.lock());
        join_all(doors.into_values().map(|open| async move { open.door.close(grace).await })).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Open>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What such a door is, but for where it leads.
fn door_config(
    service: &ServiceId,
    command: &Command,
    listen: std::net::SocketAddr,
) -> BalancerConfig {
    BalancerConfig {
        service: service.clone(),
        listen,
        upstreams: Vec::new(),
        policy: Policy::RoundRobin,
        // There is one endpoint, whose health its own node tells.
        limits: ejection::Limits { failures: 0, ..ejection::Limits::default() },
        check: None,
        rates: Default::default(),
        hold_max: command.hold_max,
        connect_timeout: CONNECT,
        idle_timeout: IDLE,
        // Clients of an old place end with it: they were let in by its lease.
        drain_max: None,
        sessions_max: command.sessions_max,
        held_max: command.sessions_max,
        connections_max: 0,
        accept_proxy: false,
        question: None,
        certificates: Vec::new(),
        encrypts: false,
        upstream_tls: None,
        send_proxy: None,
        partitions: None,
        http: None,
    }
}
