//! Tells the front door of copies where they take work, and the copies what it still has there.
//! In: facts, where this node reaches copies. Out: endpoints; `DoorUse`s.
//! States of an endpoint: takes work ⇄ drained; it stays listed while it does not run, so that what
//! is known of it survives its restarts, and it comes back slowly.
//! Keeps: INV-14 the door is told first, and the copies then, by one look.
//! Not here: the decision (`tandem_core::clustering::copies::door`), what a connection or request
//! gets (`proxy/balancer`), what else a door is by configuration (`node/services/copies.rs`).
//! Tested by: `tests/copies`.

use crate::driver::hub::{DoorWords, Hub};
use crate::proxy::{Balancer, Upstream};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::copies::door::{DoorView, Look, look};
use tandem_core::facts::DoorUse;
use tandem_core::ids::{NodeId, ServiceId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes.
const TICK: Duration = Duration::from_millis(200);
/// While somebody waits for what it has to end.
const SOON: Duration = Duration::from_millis(10);

/// Where this node reaches a node's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub address: SocketAddr,
    /// Where it listens, which is where nodes without a way of their own reach it.
    pub agreed: SocketAddr,
    /// How much work it gets, relative to the others.
    pub weight: u32,
    /// It stands in another zone than this node.
    pub far: bool,
}

/// Where a door may lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where each node's copy is.
    pub places: BTreeMap<NodeId, Place>,
    /// What a node said longer ago is not known to be so now.
    pub suspicion: Duration,
}

/// What the door of a service of copies follows.
#[derive(Debug)]
pub struct DoorGuide {
    /// Which service.
    pub service: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What it shall be.
    pub wanted: watch::Receiver<Wanted>,
    /// The door.
    pub door: Arc<Balancer>,
    /// What it says to copies.
    pub words: DoorWords,
}

impl DoorGuide {
    /// Keeps the door true until `stop`, or until nobody can change what it shall be: then what it
    /// says to copies is handed back, and still stands.
    pub async fn run(mut self, stop: CancellationToken) -> Option<DoorWords> {
        let mut changed = self.hub.changed();
        let mut told = None;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let look = self.look(wanted.suspicion);
            let upstreams = upstreams(&wanted, &look);
            if told.as_ref() != Some(&upstreams) {
                let places = wanted.places.values();
                self.door.known_as(places.map(|it| (it.address, it.agreed)).collect());
                self.door.lead(upstreams.clone());
                told = Some(upstreams);
            }
            let uses = self.uses(&wanted, &look);
            let pause = if uses.values().any(|it| it.in_flight > 0) { SOON } else { TICK };
            self.words.say(uses);
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                result = self.wanted.changed() => if result.is_err() { return Some(self.words) },
                result = changed.changed() => if result.is_err() { return None },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn look(&self, suspicion: Duration) -> Look {
        let (me, service, facts) = (self.hub.me(), &self.service, &self.hub.everyone());
        look(&DoorView { me, service, facts, suspicion }, clock::now())
    }

    /// What is still there at copies that withdrew.
    fn uses(&self, wanted: &Wanted, look: &Look) -> BTreeMap<NodeId, DoorUse> {
        let in_flight = self.door.in_flight();
        look.uses(|node| {
            let place = wanted.places.get(node)?;
            Some(in_flight.get(&place.address).copied().unwrap_or(0))
        })
    }
}

fn upstreams(wanted: &Wanted, look: &Look) -> Vec<Upstream> {
    let upstream = |(node, place): (&NodeId, &Place)| Upstream {
        host: place.address.ip().to_string(),
        port: place.address.port(),
        weight: place.weight,
        far: place.far,
        drain: !look.takers.contains(node),
    };
    wanted.places.iter().map(upstream).collect()
}
