//! Keeps the front doors of commands that run under a lease as the configuration wants them, from
//! the node's start to its end and while it changes: each leads to the one copy, or to the owner
//! of a key.
//! In: `Config`. Out: open doors, what waits, `Snapshot`s.
//! A door that goes accepts nobody at once, and its connections end within their time.
//! Keeps: INV-14, a door is there, and says what it has, until its last connection ended.
//! Not here: where a door leads (`driver/guides`), doors to any copy (`copies.rs`), other services'
//! doors to these commands (`led.rs`).
//! Tested by: `tests/singleton`, `tests/keys`.

use super::super::{Error, Ground};
use super::balancers::door_config;
use super::closing::{Closing, tell};
use super::counting::{Counting, counts};
use super::{Agreement, commands};
use crate::config::{Command, Config, KeyDoor};
use crate::driver::guides::alone::Guide;
use crate::driver::guides::by_key::KeyGuide;
use crate::driver::guides::{Addresses, Sources};
use crate::driver::hub::DoorWords;
use crate::proxy::{Balancer, BalancerConfig, HttpConfig, Snapshot, Upstream};
use crate::runtime::supervisor::TaskKind;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection;
use tandem_core::ids::{ConfigVersion, ServiceId};
use tokio::sync::watch;

/// For the one copy to accept a client's connection.
const CONNECT: Duration = Duration::from_secs(1);
/// A connection to the one copy on which nothing moves for so long is closed.
const IDLE: Duration = Duration::from_secs(3600);
/// What is under way at a door by key that is closed has so long to end.
const BY_KEY_ENDS_WITHIN: Duration = Duration::from_secs(30);

/// What a door shall be, and where it finds copies.
struct Wanted {
    door: BalancerConfig,
    addresses: Addresses,
    /// For what is under way to end once it is closed.
    drain_max: Duration,
    /// What a node said longer ago is not known to be so now.
    suspicion: Duration,
    /// None where one copy runs.
    counting: Option<Counting>,
}

/// The door of one command.
#[derive(Debug)]
struct Open {
    door: Arc<Balancer>,
    addresses: watch::Sender<Addresses>,
    made: Made,
    drain_max: Duration,
    unguided: Option<Unguided>,
}

/// What never changes of a door.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    /// Whoever waits there has a partition by that: what counts otherwise is another door. None
    /// where one copy runs.
    counting: Option<Counting>,
    takes_requests: bool,
}

/// What its guide begins with.
#[derive(Debug)]
enum Unguided {
    /// What it says to the copies.
    Alone(DoorWords),
    ByKey {
        suspicion: Duration,
        counting: Counting,
        /// The configuration that says so.
        read: ConfigVersion,
    },
}

/// For connections to end when the node stops.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct Graces {
    pub alone: Duration,
    pub by_key: Duration,
}

/// The doors of this node.
pub(in crate::node) struct LeasedDoors {
    ground: Arc<Ground>,
    all: Mutex<BTreeMap<ServiceId, Open>>,
    closing: Closing<watch::Sender<Addresses>>,
}

impl std::fmt::Debug for LeasedDoors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeasedDoors").finish_non_exhaustive()
    }
}

impl Made {
    fn of(wanted: &Wanted) -> Self {
        let takes_requests = wanted.door.http.is_some();
        Self { counting: wanted.counting.clone(), takes_requests }
    }
}

impl LeasedDoors {
    /// Binds those of the configuration that the node starts with; nobody is led anywhere yet.
    ///
    /// # Errors
    /// An address cannot be had.
    pub(in crate::node) fn open(ground: &Arc<Ground>) -> Result<Self, Error> {
        let (all, closing) = (Mutex::default(), Closing::default());
        let doors = Self { ground: Arc::clone(ground), all, closing };
        for (service, command) in &doors.ground.config.commands {
            let wanted = doors.wanted(&doors.ground.config, (service, command));
            let Some(wanted) = wanted else { continue };
            let open = doors.bind(service, wanted, ground.version)?;
            doors.lock().insert(service.clone(), open);
        }
        Ok(doors)
    }

    fn wanted(
        &self,
        config: &Config,
        (service, command): (&ServiceId, &Command),
    ) -> Option<Wanted> {
        let node = config.nodes.get(&self.ground.args.node)?;
        let addresses = commands::addresses_begun(&self.ground, config, (service, command));
        let (door, drain_max) = match (&command.copies, &command.partitions) {
            (Some(_), _) => return None,
            (None, None) => (alone(service, command, command.listen?.on(node)), command.drain_max),
            (None, Some(partitions)) => {
                let KeyDoor { key, door } = partitions.door.as_ref()?;
                let door = door_config(service, door, node);
                let http = door.http.map(|http| HttpConfig { hash_key: Some(key.clone()), ..http });
                let upstreams = addresses.values().map(upstream).collect();
                let partitions = Some(partitions.count);
                (BalancerConfig { upstreams, partitions, http, ..door }, BY_KEY_ENDS_WITHIN)
            }
        };
        let (suspicion, counting) = (command.timing.suspicion, Counting::of(command));
        Some(Wanted { door, addresses, drain_max, suspicion, counting })
    }

    fn bind(
        &self,
        service: &ServiceId,
        wanted: Wanted,
        read: ConfigVersion,
    ) -> Result<Open, Error> {
        let made = Made::of(&wanted);
        let Wanted { door, addresses, drain_max, suspicion, counting } = wanted;
        let door = Arc::new(Balancer::open(door, &self.ground.supervisor)?);
        let unguided = match counting {
            // A copy that is to end waits from now on until this door says that it knows (INV-14).
            None => Unguided::Alone(DoorWords::open(&self.ground.hub, service)),
            Some(counting) => Unguided::ByKey { suspicion, counting, read },
        };
        let (addresses, unguided) = (watch::Sender::new(addresses), Some(unguided));
        Ok(Open { door, addresses, made, drain_max, unguided })
    }

    /// Leads clients from now on.
    pub(in crate::node) fn let_in(&self, agreed: &Agreement) {
        for (service, open) in self.lock().iter_mut() {
            self.guide(service, open, agreed);
        }
    }

    fn guide(&self, service: &ServiceId, open: &mut Open, agreed: &Agreement) {
        let Some(unguided) = open.unguided.take() else { return };
        let (service, door) = (service.clone(), Arc::clone(&open.door));
        let sources = Sources {
            hub: Arc::clone(&self.ground.hub),
            agreed: agreed.clone(),
            addresses: open.addresses.subscribe(),
        };
        let supervisor = &self.ground.supervisor;
        let stop = supervisor.stopping();
        match unguided {
            Unguided::Alone(words) => {
                let guide = Guide { service, sources, door, words };
                supervisor.spawn("door of a command", TaskKind::Session, async move {
                    guide.run(stop).await.into_iter().for_each(DoorWords::close);
                });
            }
            Unguided::ByKey { suspicion, counting, read } => {
                let counts = counts(&service, counting, read);
                let run = KeyGuide { work: service, sources, suspicion, door, counts }.run(stop);
                supervisor.spawn("door by key", TaskKind::Session, run);
            }
        }
    }

    fn all_wanted<'c>(&self, config: &'c Config) -> BTreeMap<&'c ServiceId, Wanted> {
        let wanted = |it: (&'c ServiceId, &'c Command)| Some((it.0, self.wanted(config, it)?));
        config.commands.iter().filter_map(wanted).collect()
    }

    /// Ends what another configuration has no more: its addresses are free then.
    pub(in crate::node) async fn end(&self, config: &Config) {
        let wanted = self.all_wanted(config);
        // One that was taken out and put back meanwhile may be another one.
        let stays = |service: &ServiceId, open: &Open| {
            wanted.get(service).is_some_and(|wanted| Made::of(wanted) == open.made)
        };
        let gone: Vec<(ServiceId, Open)> =
            self.lock().extract_if(.., |service, open| !stays(service, open)).collect();
        for (service, open) in gone {
            self.close_one(service, open).await;
        }
    }

    /// Goes on with another configuration, once what it has no more has ended; what could not be
    /// done is said, and done by the next call.
    pub(in crate::node) fn follow(
        &self,
        (version, config): (ConfigVersion, &Config),
        agreed: &Agreement,
    ) -> Vec<String> {
        self.closing.each(|service, addresses| {
            let command = config.commands.get(service);
            if let Some(command) = command.filter(|command| command.copies.is_none()) {
                let it = (service, command);
                tell(addresses, commands::addresses_begun(&self.ground, config, it));
            }
        });
        let mut waits = Vec::new();
        for (service, wanted) in self.all_wanted(config) {
            if let Err(error) = self.follow_one(service, wanted, (version, agreed)) {
                waits.push(format!("{service}: {error}"));
            }
        }
        waits
    }

    fn follow_one(
        &self,
        service: &ServiceId,
        wanted: Wanted,
        (version, agreed): (ConfigVersion, &Agreement),
    ) -> Result<(), Error> {
        let mut all = self.lock();
        let Some(open) = all.get_mut(service) else {
            let mut open = self.bind(service, wanted, version)?;
            self.guide(service, &mut open, agreed);
            all.insert(service.clone(), open);
            return Ok(());
        };
        let Wanted { door, addresses, drain_max, suspicion: _, counting: _ } = wanted;
        // First what cannot fail, and before anybody is sent to a node that is new.
        if door.partitions.is_some() {
            open.door.lead(door.upstreams.clone());
        }
        tell(&open.addresses, addresses);
        open.drain_max = drain_max;
        // Where it leads is its guide's to say.
        Ok(open.door.configure_rest(door)?)
    }

    /// No new clients; those that are there get their time, and copies hear of them until then.
    async fn close_one(&self, service: ServiceId, open: Open) {
        let Open { door, addresses, drain_max, unguided, made: _ } = open;
        if let Some(Unguided::Alone(words)) = unguided {
            words.close();
        }
        door.stop_accepting().await;
        let addresses = Arc::new(addresses);
        self.closing.add(&service, &addresses);
        let name = "door of a command ends";
        self.ground.supervisor.spawn(name, TaskKind::Session, async move {
            if !door.close(drain_max).await {
                tracing::warn!(%service, "connections of a door that was closed were cut");
            }
            drop(addresses);
        });
    }

    /// Every door by key as it is now; the others have one endpoint, which is shown as a copy.
    pub(in crate::node) fn snapshots(&self) -> Vec<Snapshot> {
        let all = self.lock();
        let by_key = all.values().filter(|open| open.made.counting.is_some());
        by_key.map(|open| open.door.snapshot()).collect()
    }

    /// Accepts nobody more, gives what is under way its grace to end, then cuts it.
    pub(in crate::node) async fn close(&self, graces: Graces) {
        let doors = std::mem::take(&mut *self.lock());
        let close = |(service, Open { door, made, .. }): (ServiceId, Open)| async move {
            let grace = if made.counting.is_some() { graces.by_key } else { graces.alone };
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

fn upstream(address: &SocketAddr) -> Upstream {
    let (host, port) = (address.ip().to_string(), address.port());
    Upstream { host, port, weight: 1, far: false, drain: false }
}

/// What the door to the one copy is, but for where it leads.
fn alone(service: &ServiceId, command: &Command, listen: SocketAddr) -> BalancerConfig {
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
        accept_proxy_from: None,
        question: None,
        certificates: Vec::new(),
        encrypts: false,
        upstream_tls: None,
        send_proxy: None,
        partitions: None,
        http: None,
    }
}
