//! Keeps what this node has of services whose copies run side by side as the configuration wants
//! it, from its start to its end and while it changes: doors, keepers, drivers.
//! In: `Config`. Out: open doors, what waits, where wishes go, `Snapshot`s.
//! A service that comes is opened and started; one that goes closes its door at once, its copy ends
//! once nothing is left there; one that stays changes, and its copies start anew in turns where
//! that is needed.
//! Keeps: INV-14, a door is there, and says what it has, until its last connection ended.
//! Not here: one copy that runs alone (`commands.rs`), what a driver does (`driver/singleton`).
//! Tested by: `tests/copies`.

use super::super::{Error, Ground};
use super::Agreement;
use super::balancers::door_config;
use super::closing::{Closing, tell};
use super::commands::{self, Prepared};
use crate::config::{Command, Config, Copies};
use crate::driver::hub::DoorWords;
use crate::driver::instance::wishes::Asked;
use crate::driver::singleton::beside::Beside;
use crate::driver::singleton::beside::doors::{DoorGuide, Place, Wanted};
use crate::driver::singleton::{Change, SingletonDriver, Wiring};
use crate::proxy::{Balancer, BalancerConfig, Snapshot};
use crate::runtime::supervisor::TaskKind;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::ids::ServiceId;
use tandem_core::spec::NodeRole;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Wishes that may wait; one more is refused.
const WISHES_MAX: usize = 4;

/// The door of one service.
#[derive(Debug)]
struct Open {
    door: Arc<Balancer>,
    wanted: watch::Sender<Wanted>,
    /// What it says to copies, until it is guided.
    words: Option<DoorWords>,
}

/// The driver of one copy.
#[derive(Debug)]
struct Driven {
    wishes: mpsc::Sender<Asked>,
    changes: mpsc::Sender<Change>,
    ends: CancellationToken,
    ended: CancellationToken,
}

/// What this node has of services of copies.
#[derive(Debug, Default)]
struct All {
    doors: BTreeMap<ServiceId, Open>,
    /// Also those that end.
    drivers: BTreeMap<ServiceId, Driven>,
    commands: BTreeMap<ServiceId, Command>,
}

/// The copies and doors of this node.
pub(in crate::node) struct CopyServices {
    ground: Arc<Ground>,
    all: Mutex<All>,
    closing: Closing<watch::Sender<Wanted>>,
}

impl std::fmt::Debug for CopyServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyServices").finish_non_exhaustive()
    }
}

/// Services whose copies run side by side.
fn of(config: &Config) -> impl Iterator<Item = (&ServiceId, &Command, &Copies)> {
    config.commands.iter().filter_map(|(id, it)| Some((id, it, it.copies.as_ref()?)))
}

/// Where a door of this node may lead that spreads work over the copies of a service.
pub(super) fn places(
    ground: &Ground,
    config: &Config,
    (service, command): (&ServiceId, &Command),
) -> Wanted {
    let zone = config.nodes.get(&ground.args.node).and_then(|node| node.zone.as_ref());
    let place = |(node, address)| {
        let it = config.nodes.get(&node)?;
        // Who does not say where it stands is near to everybody.
        let far = it.zone.is_some() && zone.is_some() && it.zone.as_ref() != zone;
        Some((node, Place { address, weight: it.capacity, far }))
    };
    let addresses = commands::addresses(ground, config, (service, command));
    let places = addresses.into_iter().filter_map(place).collect();
    Wanted { places, suspicion: command.timing.suspicion }
}

impl CopyServices {
    /// Binds the doors of the configuration that the node starts with; nobody is sent anywhere yet.
    ///
    /// # Errors
    /// An address cannot be had.
    pub(in crate::node) fn open(ground: &Arc<Ground>) -> Result<Self, Error> {
        let ground = Arc::clone(ground);
        let services = Self { ground, all: Mutex::default(), closing: Closing::default() };
        for (service, command, _) in of(&services.ground.config) {
            let wanted = services.wanted(&services.ground.config, service, command);
            let Some((config, wanted)) = wanted else { continue };
            services.open_door(service, config, wanted)?;
        }
        Ok(services)
    }

    fn open_door(
        &self,
        service: &ServiceId,
        config: BalancerConfig,
        wanted: Wanted,
    ) -> Result<(), Error> {
        let door = Arc::new(Balancer::open(config, &self.ground.supervisor)?);
        let wanted = watch::Sender::new(wanted);
        // A copy that is to end waits from now on until this door says that it knows (INV-14).
        let words = Some(DoorWords::open(&self.ground.hub, service));
        self.lock().doors.insert(service.clone(), Open { door, wanted, words });
        Ok(())
    }

    /// Starts the drivers, and leads clients to copies from now on.
    ///
    /// # Errors
    /// A folder or a keeper cannot be had.
    pub(in crate::node) async fn start(&self, agreed: &Agreement) -> Result<(), Error> {
        super::leftovers::end(&self.ground)?;
        for (service, command, _) in of(&self.ground.config) {
            self.drive(&self.ground.config, (service, command), agreed)?;
        }
        Ok(())
    }

    /// Lets clients in, once this node knows what it has.
    pub(in crate::node) fn let_in(&self) {
        for (service, open) in &mut self.lock().doors {
            self.guide(service, open);
        }
    }

    fn guide(&self, service: &ServiceId, open: &mut Open) {
        let Some(words) = open.words.take() else { return };
        let guide = DoorGuide {
            words,
            service: service.clone(),
            hub: self.ground.hub.clone(),
            wanted: open.wanted.subscribe(),
            door: Arc::clone(&open.door),
        };
        let stop = self.ground.supervisor.stopping();
        self.ground.supervisor.spawn("door of copies", TaskKind::Session, async move {
            guide.run(stop).await.into_iter().for_each(DoorWords::close);
        });
    }

    fn drive(
        &self,
        config: &Config,
        (service, command): (&ServiceId, &Command),
        agreed: &Agreement,
    ) -> Result<(), Error> {
        let ground = &*self.ground;
        let Some(node) = config.nodes.get(&ground.args.node) else { return Ok(()) };
        if node.role == NodeRole::Witness {
            return Ok(());
        }
        let (wishes, asked) = mpsc::channel(WISHES_MAX);
        let (changes, changed) = mpsc::channel(commands::CHANGES_MAX);
        let prepared = Prepared::of(ground, node, (service, command));
        // Nobody asks for promises.
        let (_, asks) = mpsc::channel(1);
        let wiring = commands::wiring(ground, agreed, prepared, (asks, asked, changed))?;
        let folder = ground.folders.take(service).ok_or(Error::StillEnds)?;
        let (ends, ended) = (CancellationToken::new(), CancellationToken::new());
        let beside = Some(Beside::new(ends.clone()));
        let driver = SingletonDriver::new(Wiring { beside, ..wiring });
        let stop = ground.supervisor.stopping();
        let token = ended.clone();
        ground.supervisor.spawn("copy driver", TaskKind::Essential, async move {
            if !driver.run(stop.clone()).await {
                return;
            }
            folder.release();
            token.cancel();
            // One that ended because its service did is no part of the node that is missing.
            stop.cancelled().await;
        });
        let mut all = self.lock();
        all.drivers.insert(service.clone(), Driven { wishes, changes, ends, ended });
        all.commands.insert(service.clone(), command.clone());
        Ok(())
    }

    /// Goes on with another configuration, once what it has no more has ended; what could not be
    /// done is said, and done by the next call.
    pub(in crate::node) fn follow(&self, config: &Config, agreed: &Agreement) -> Vec<String> {
        self.closing.each(|service, wanted| {
            let command = config.commands.get(service);
            if let Some(command) = command.filter(|command| command.copies.is_some()) {
                tell(wanted, places(&self.ground, config, (service, command)));
            }
        });
        let mut waits = Vec::new();
        for (service, command, _) in of(config) {
            if let Err(because) = self.follow_one(config, (service, command), agreed) {
                waits.push(format!("{service}: {because}"));
            }
        }
        waits
    }

    fn follow_one(
        &self,
        config: &Config,
        (service, command): (&ServiceId, &Command),
        agreed: &Agreement,
    ) -> Result<(), String> {
        let said = |error: Error| error.to_string();
        let (is_known, is_driven) = {
            let all = self.lock();
            let driven = all.drivers.get(service);
            (all.commands.contains_key(service), driven.map(|it| !it.ended.is_cancelled()))
        };
        match is_driven {
            Some(true) if !is_known => return Err(said(Error::StillEnds)),
            Some(_) if is_known => self.change(config, (service, command))?,
            Some(_) | None => self.drive(config, (service, command), agreed).map_err(said)?,
        }
        let wanted = self.wanted(config, service, command);
        let has_door = self.lock().doors.contains_key(service);
        match (wanted, has_door) {
            (Some((config, wanted)), true) => {
                let all = self.lock();
                if let Some(open) = all.doors.get(service) {
                    tell(&open.wanted, wanted);
                    // Where it leads is its guide's to say, who may drain somebody just now.
                    open.door.configure_rest(config).map_err(|error| error.to_string())?;
                }
            }
            (Some((config, wanted)), false) => {
                self.open_door(service, config, wanted).map_err(said)?;
                if let Some(open) = self.lock().doors.get_mut(service) {
                    self.guide(service, open);
                }
            }
            // One that goes has ended before.
            (None, _) => {}
        }
        Ok(())
    }

    fn change(
        &self,
        config: &Config,
        (service, command): (&ServiceId, &Command),
    ) -> Result<(), String> {
        let mut all = self.lock();
        if all.commands.get(service) == Some(command) {
            return Ok(());
        }
        let node = config.nodes.get(&self.ground.args.node).ok_or("this node is not listed")?;
        let Prepared { config, limits } = Prepared::of(&self.ground, node, (service, command));
        if let Some(driven) = all.drivers.get(service) {
            let change = Change::Config(Box::new(config), limits);
            driven.changes.try_send(change).map_err(|error| error.to_string())?;
        }
        all.commands.insert(service.clone(), command.clone());
        Ok(())
    }

    /// Ends what the configuration has no more: the addresses of doors are free then.
    pub(in crate::node) async fn end(&self, config: &Config) {
        let stays = |service: &ServiceId| {
            config.commands.get(service).is_some_and(|command| command.copies.is_some())
        };
        let gone: Vec<(ServiceId, Command)> = {
            let mut all = self.lock();
            all.commands.extract_if(.., |service, _| !stays(service)).collect()
        };
        for (service, command) in gone {
            self.close_door(&service, command.copies.as_ref()).await;
            if let Some(driven) = self.lock().drivers.get(&service) {
                driven.ends.cancel();
            }
        }
        for (service, command, copies) in of(config) {
            if self.wanted(config, service, command).is_none() {
                self.close_door(service, Some(copies)).await;
            }
        }
        let mut all = self.lock();
        let All { drivers, commands, .. } = &mut *all;
        drivers.retain(|service, it| commands.contains_key(service) || !it.ended.is_cancelled());
    }

    /// No new clients; those that are there get their time, and copies hear of them until then.
    async fn close_door(&self, service: &ServiceId, copies: Option<&Copies>) {
        let open = self.lock().doors.remove(service);
        let Some(Open { door, wanted, words }) = open else { return };
        words.into_iter().for_each(DoorWords::close);
        door.stop_accepting().await;
        let grace = copies.map_or(Duration::ZERO, |copies| copies.drain_max);
        let wanted = Arc::new(wanted);
        self.closing.add(service, &wanted);
        let service = service.clone();
        self.ground.supervisor.spawn("door of copies ends", TaskKind::Session, async move {
            if !door.close(grace).await {
                tracing::warn!(%service, "connections of a removed service were cut");
            }
            drop(wanted);
        });
    }

    /// Where a copy of this node takes wishes.
    pub(in crate::node) fn wishes(&self, service: &ServiceId) -> Option<mpsc::Sender<Asked>> {
        self.lock().drivers.get(service).map(|driven| driven.wishes.clone())
    }

    /// Every door as it is now.
    pub(in crate::node) fn snapshots(&self) -> Vec<Snapshot> {
        self.lock().doors.values().map(|open| open.door.snapshot()).collect()
    }

    /// The node stops: its doors close, its copies go on with their keepers.
    pub(in crate::node) async fn close(&self, grace: Duration) {
        let doors = std::mem::take(&mut self.lock().doors);
        let close = |open: Open| async move {
            if !open.door.close(grace).await {
                let Snapshot { service, sessions, .. } = open.door.snapshot();
                tracing::info!(%service, sessions, "connections were cut");
            }
        };
        join_all(doors.into_values().map(close)).await;
    }

    /// This node is removed: nothing of it stays.
    pub(in crate::node) fn part(&self) {
        for driven in self.lock().drivers.values() {
            driven.ends.cancel();
        }
    }

    /// What the door of a service shall be, without endpoints, and where it may lead; none where
    /// it has none.
    fn wanted(
        &self,
        config: &Config,
        service: &ServiceId,
        command: &Command,
    ) -> Option<(BalancerConfig, Wanted)> {
        let ground = &self.ground;
        let node = config.nodes.get(&ground.args.node)?;
        let own = command.copies.as_ref()?.door.as_ref()?;
        let mut door = door_config(service, own, node);
        if let Some(http) = &mut door.http {
            http.secret = ground.identity.cookie_secret(service);
        }
        Some((door, places(ground, config, (service, command))))
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
