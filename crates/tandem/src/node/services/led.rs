//! Keeps the doors of services of kind tcp and http true whose endpoints are the copies of a
//! command: each follows that command as its own door does.
//! In: `Config`. Out: guides of balancers that are open; words to copies.
//! States of one: led → (it shall lead elsewhere) paused: nobody leads it, and what it said to
//! copies stands → (it does) gone, or (it cannot change) led; led → (its service is taken out) led
//! until its last connection has ended.
//! Keeps: INV-14 a copy that is to end waits for these doors as for its own.
//! Not here: what such a door is besides (`balancers.rs`), where it leads
//! (`driver/guides/alone.rs`, `driver/singleton/beside/doors.rs`).
//! Tested by: `tests/copies`, `tests/singleton`.

use super::super::Ground;
use super::balancers::Balancers;
use super::closing::{Closing, tell};
use super::{Agreement, commands, copies};
use crate::config::{Command, Config};
use crate::driver::guides::alone::Guide;
use crate::driver::guides::{Addresses, Sources};
use crate::driver::hub::DoorWords;
use crate::driver::singleton::beside::doors::{DoorGuide, Wanted};
use crate::proxy::Balancer;
use crate::runtime::supervisor::TaskKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tandem_core::ids::ServiceId;
use tokio::sync::{oneshot, watch};

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
    places: Arc<Places>,
    /// What it says to copies, until it is guided.
    words: Option<DoorWords>,
    /// They come back once its guide will not touch the door again; none where the node stops.
    back: Option<oneshot::Receiver<Option<DoorWords>>>,
}

/// The doors of this node that lead to copies of a command, besides the command's own.
pub(in crate::node) struct LedDoors {
    ground: Arc<Ground>,
    all: Mutex<All>,
    closing: Closing<Places>,
}

#[derive(Debug, Default)]
struct All {
    led: BTreeMap<ServiceId, Led>,
    paused: BTreeMap<ServiceId, Led>,
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
        let ground = Arc::clone(ground);
        let doors = Self { ground, all: Mutex::default(), closing: Closing::default() };
        for (service, of, command) in of(&doors.ground.config) {
            let Some(door) = balancers.door(service) else { continue };
            let led = doors.led(&doors.ground.config, (of, command), door);
            doors.lock().led.insert(service.clone(), led);
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
        Led { of: of.clone(), door, places: Arc::new(places), words, back: None }
    }

    /// Lets clients in, once this node knows what it has.
    pub(in crate::node) fn let_in(&self, agreed: &Agreement) {
        for led in self.lock().led.values_mut() {
            self.guide(led, agreed);
        }
    }

    fn guide(&self, led: &mut Led, agreed: &Agreement) {
        let Some(words) = led.words.take() else { return };
        let (hub, door) = (Arc::clone(&self.ground.hub), Arc::clone(&led.door));
        let service = led.of.clone();
        let (ended, back) = oneshot::channel();
        led.back = Some(back);
        let stop = self.ground.supervisor.stopping();
        match &*led.places {
            Places::Beside(wanted) => {
                let wanted = wanted.subscribe();
                let guide = DoorGuide { service, hub, wanted, door, words };
                self.ground.supervisor.spawn("door to copies", TaskKind::Session, async move {
                    let _ = ended.send(guide.run(stop).await);
                });
            }
            Places::Alone(addresses) => {
                let (agreed, addresses) = (agreed.clone(), addresses.subscribe());
                let sources = Sources { hub, agreed, addresses };
                let guide = Guide { service, sources, door, words };
                self.ground.supervisor.spawn("door to a copy", TaskKind::Session, async move {
                    let _ = ended.send(guide.run(stop).await);
                });
            }
        }
    }

    /// Lets go of doors that shall lead elsewhere, before they are changed.
    pub(in crate::node) async fn let_go(&self, config: &Config) {
        let leads = |service: &ServiceId, led: &Led| {
            of(config).any(|(id, of, command)| id == service && led.leads_to((of, command)))
        };
        let gone: Vec<(ServiceId, Led)> = {
            let mut all = self.lock();
            all.led.extract_if(.., |service, led| !leads(service, led)).collect()
        };
        for (service, led) in gone {
            if !config.balanced.contains_key(&service) {
                // Copies hear of what it has until that has ended.
                self.closing.add(&led.of, &led.places);
                let run = async move {
                    led.door.ended().await;
                    led.pause().await.end();
                };
                let name = "door to copies ends";
                self.ground.supervisor.spawn(name, TaskKind::Session, run);
                continue;
            }
            let led = led.pause().await;
            self.lock().paused.insert(service, led);
        }
    }

    /// Goes on with another configuration, once the doors are as it wants them, but for those that
    /// are held back: they lead where they did.
    pub(in crate::node) fn follow(
        &self,
        config: &Config,
        (balancers, held_back): (&Balancers, &BTreeSet<ServiceId>),
        agreed: &Agreement,
    ) {
        self.resume(config, held_back, agreed);
        self.closing.each(|of, places| {
            if let Some(command) = config.commands.get(of) {
                places.follow(&self.ground, config, (of, command));
            }
        });
        for (service, of, command) in of(config) {
            let mut all = self.lock();
            if let Some(led) = all.led.get(service) {
                if led.leads_to((of, command)) {
                    led.follow(&self.ground, config, command);
                }
                continue;
            }
            if held_back.contains(service) {
                continue;
            }
            let Some(door) = balancers.door(service) else { continue };
            let mut led = self.led(config, (of, command), door);
            self.guide(&mut led, agreed);
            all.led.insert(service.clone(), led);
        }
    }

    /// Who was let go of, and leads elsewhere now, or does not.
    fn resume(&self, config: &Config, held_back: &BTreeSet<ServiceId>, agreed: &Agreement) {
        let mut all = self.lock();
        for (service, mut led) in std::mem::take(&mut all.paused) {
            if !held_back.contains(&service) {
                led.end();
                continue;
            }
            let command = config.commands.get(&led.of);
            if let Some(command) = command.filter(|command| led.leads_to((&led.of, command))) {
                led.follow(&self.ground, config, command);
            }
            self.guide(&mut led, agreed);
            all.led.insert(service, led);
        }
    }

    /// Whether somebody leads the door of a service.
    #[cfg(test)]
    pub(super) fn is_guided(&self, service: &ServiceId) -> bool {
        self.lock().led.get(service).is_some_and(|led| led.words.is_none())
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// By another configuration, if the command runs by the same pattern.
    fn follow(&self, ground: &Ground, config: &Config, service: (&ServiceId, &Command)) {
        match (self, &service.1.copies) {
            (Self::Beside(wanted), Some(_)) => {
                tell(wanted, copies::places(ground, config, service));
            }
            (Self::Alone(addresses), None) => {
                tell(addresses, commands::addresses_begun(ground, config, service));
            }
            (Self::Beside(_), None) | (Self::Alone(_), Some(_)) => {}
        }
    }

    /// The same, which nobody follows yet.
    fn anew(&self) -> Self {
        match self {
            Self::Beside(wanted) => Self::Beside(watch::Sender::new(wanted.borrow().clone())),
            Self::Alone(addresses) => Self::Alone(watch::Sender::new(addresses.borrow().clone())),
        }
    }
}

impl Led {
    /// Whether it leads to the copies of a command, by the pattern that it has.
    fn leads_to(&self, (of, command): (&ServiceId, &Command)) -> bool {
        let is_beside = matches!(*self.places, Places::Beside(_));
        *of == self.of && command.copies.is_some() == is_beside
    }

    fn follow(&self, ground: &Ground, config: &Config, command: &Command) {
        self.places.follow(ground, config, (&self.of, command));
    }

    /// Returns once its guide will not touch the door again; what it said to copies stands.
    async fn pause(self) -> Self {
        let Self { of, door, places, words, back } = self;
        let again = Arc::new(places.anew());
        // By this it ends.
        drop(places);
        let words = match (words, back) {
            (None, Some(back)) => back.await.ok().flatten(),
            (words, _) => words,
        };
        Self { of, door, places: again, words, back: None }
    }

    /// It says nothing to copies any more.
    fn end(self) {
        self.words.into_iter().for_each(DoorWords::close);
    }
}
