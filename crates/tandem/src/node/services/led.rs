//! Keeps the doors of services of kind tcp and http true whose endpoints are the copies of a
//! command: each follows that command as its own door does.
//! In: `Config`. Out: guides of balancers that are open; words to copies.
//! States of one: led → (its endpoints are others from now on) its guide has ended → …; → (its
//! service is taken out) led until its last connection has ended.
//! Keeps: INV-14 a copy that is to end waits for these doors as for its own.
//! Not here: what such a door is besides (`balancers.rs`), where it leads
//! (`driver/guides/alone.rs`, `driver/singleton/beside/doors.rs`).
//! Tested by: `tests/copies`, `tests/singleton`.

use super::super::Ground;
use super::balancers::Balancers;
use super::{Agreement, commands, copies};
use crate::config::{Command, Config};
use crate::driver::guides::alone::Guide;
use crate::driver::guides::{Addresses, Sources};
use crate::driver::hub::DoorWords;
use crate::driver::singleton::beside::doors::{DoorGuide, Wanted};
use crate::proxy::Balancer;
use crate::runtime::supervisor::TaskKind;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tandem_core::ids::ServiceId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where its copies are, as its guide is told.
#[derive(Debug)]
enum Places {
    Beside(watch::Sender<Wanted>),
    Alone(watch::Sender<Addresses>),
}

/// One door that is led.
#[derive(Debug)]
struct Led {
    of: ServiceId,
    door: Arc<Balancer>,
    places: Places,
    /// What it says to copies, until it is guided.
    words: Option<DoorWords>,
    /// Its guide will not touch the door again.
    ended: CancellationToken,
}

/// The doors of this node that lead to copies of a command, besides the command's own.
pub(in crate::node) struct LedDoors {
    ground: Arc<Ground>,
    all: Mutex<BTreeMap<ServiceId, Led>>,
}

/// The services that lead to a command, and which.
fn of(config: &Config) -> impl Iterator<Item = (&ServiceId, &ServiceId, &Command)> {
    config.balanced.iter().filter_map(|(id, it)| {
        let of = it.leads_to.as_ref()?;
        Some((id, of, config.commands.get(of)?))
    })
}

impl LedDoors {
    /// Those of the configuration that the node starts with; nobody is sent anywhere yet.
    pub(in crate::node) fn open(ground: &Arc<Ground>, balancers: &Balancers) -> Self {
        let doors = Self { ground: Arc::clone(ground), all: Mutex::default() };
        for (service, of, command) in of(&ground.config) {
            let Some(door) = balancers.door(service) else { continue };
            let led = doors.led(&ground.config, (of, command), door);
            doors.lock().insert(service.clone(), led);
        }
        doors
    }

    fn led(
        &self,
        config: &Config,
        (of, command): (&ServiceId, &Command),
        door: Arc<Balancer>,
    ) -> Led {
        let ground = &*self.ground;
        let places = match command.copies {
            Some(_) => {
                let wanted = copies::places(ground, config, (of, command));
                Places::Beside(watch::Sender::new(wanted))
            }
            None => {
                let addresses = commands::addresses_begun(ground, config, (of, command));
                Places::Alone(watch::Sender::new(addresses))
            }
        };
        let words = Some(DoorWords::open(&ground.hub, of));
        Led { of: of.clone(), door, places, words, ended: CancellationToken::new() }
    }

    /// Lets clients in, once this node knows what it has.
    pub(in crate::node) fn let_in(&self, agreed: &Agreement) {
        for led in self.lock().values_mut() {
            self.guide(led, agreed);
        }
    }

    fn guide(&self, led: &mut Led, agreed: &Agreement) {
        let Some(words) = led.words.take() else { return };
        let (hub, door) = (Arc::clone(&self.ground.hub), Arc::clone(&led.door));
        let (service, ended) = (led.of.clone(), led.ended.clone());
        let stop = self.ground.supervisor.stopping();
        match &led.places {
            Places::Beside(wanted) => {
                let wanted = wanted.subscribe();
                let guide = DoorGuide { service, hub, wanted, door, words };
                self.ground.supervisor.spawn("door to copies", TaskKind::Session, async move {
                    guide.run(stop).await;
                    ended.cancel();
                });
            }
            Places::Alone(addresses) => {
                let (agreed, addresses) = (agreed.clone(), addresses.subscribe());
                let sources = Sources { hub, agreed, addresses };
                let guide = Guide { service, sources, door, words };
                self.ground.supervisor.spawn("door to a copy", TaskKind::Session, async move {
                    guide.run(stop).await;
                    ended.cancel();
                });
            }
        }
    }

    /// Lets go of doors that lead elsewhere by another configuration, before they are changed.
    pub(in crate::node) async fn let_go(&self, config: &Config) {
        let leads = |service: &ServiceId, led: &Led| {
            of(config).any(|(id, of, command)| {
                let is_beside = matches!(led.places, Places::Beside(_));
                id == service && *of == led.of && command.copies.is_some() == is_beside
            })
        };
        let gone: Vec<(ServiceId, Led)> = {
            let mut all = self.lock();
            all.extract_if(.., |service, led| !leads(service, led)).collect()
        };
        for (service, led) in gone {
            if !config.balanced.contains_key(&service) {
                // Copies hear of what it has until that has ended.
                let run = async move {
                    led.door.ended().await;
                    led.end().await;
                };
                let name = "door to copies ends";
                self.ground.supervisor.spawn(name, TaskKind::Session, run);
                continue;
            }
            led.end().await;
        }
    }

    /// Goes on with another configuration, once the doors are as it wants them.
    pub(in crate::node) fn follow(
        &self,
        config: &Config,
        balancers: &Balancers,
        agreed: &Agreement,
    ) {
        for (service, of, command) in of(config) {
            let mut all = self.lock();
            if let Some(led) = all.get(service) {
                led.follow(&self.ground, config, command);
                continue;
            }
            let Some(door) = balancers.door(service) else { continue };
            let mut led = self.led(config, (of, command), door);
            self.guide(&mut led, agreed);
            all.insert(service.clone(), led);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceId, Led>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Led {
    fn follow(&self, ground: &Ground, config: &Config, command: &Command) {
        let service = (&self.of, command);
        match &self.places {
            Places::Beside(wanted) => {
                let new = copies::places(ground, config, service);
                wanted.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
            }
            Places::Alone(addresses) => {
                let new = commands::addresses_begun(ground, config, service);
                addresses.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
            }
        }
    }

    /// Returns once its guide will not touch the door again.
    async fn end(self) {
        let Self { places, words, ended, .. } = self;
        drop(places);
        match words {
            Some(words) => words.close(),
            None => ended.cancelled().await,
        }
    }
}
