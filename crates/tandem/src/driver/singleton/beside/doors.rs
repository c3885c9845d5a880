//! Tells the front door of copies where they take work, and the copies what it still has there.
//! In: facts, where this node reaches copies. Out: endpoints; `DoorUse`s.
//! States of an endpoint: takes work ⇄ drained; it stays listed while it does not run, so that what
//! is known of it survives its restarts, and it comes back slowly.
//! Keeps: INV-14 a door says that it obeys a withdrawal only once nobody is sent there any more.
//! H41 what a node said too long ago counts only where nobody else takes work: its daemon may be
//! away while its copy goes on, and what is dead there is ejected for what it does.
//! Not here: what a connection or request gets (`proxy/balancer`), what else a door is by
//! configuration (`node/services/copies.rs`).
//! Tested by: `tests/copies`.

use crate::driver::hub::Hub;
use crate::proxy::{Balancer, Upstream};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::copies::takes_work;
use tandem_core::facts::{DoorUse, NodeFacts};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::time::Observed;
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
}

type Everyone = BTreeMap<NodeId, Observed<NodeFacts>>;

impl DoorGuide {
    /// Keeps the door true until `stop`, or until nobody can change what it shall be.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.hub.changed();
        let mut told = None;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let everyone = self.hub.everyone();
            let upstreams = self.upstreams(&wanted, &everyone);
            if told.as_ref() != Some(&upstreams) {
                self.door.lead(upstreams.clone());
                told = Some(upstreams);
            }
            let uses = self.uses(&wanted, &everyone);
            let pause = if uses.values().any(|it| it.in_flight > 0) { SOON } else { TICK };
            self.hub.publish_door(&self.service, Some(uses));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = self.wanted.changed() => if result.is_err() { break },
                result = changed.changed() => if result.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.hub.publish_door(&self.service, None);
    }

    /// The nodes whose copies may get work: those that say so now, else those that said so last.
    fn takers<'a>(&self, wanted: &Wanted, everyone: &'a Everyone) -> Vec<&'a NodeId> {
        let now = clock::now();
        let takes = |facts: &NodeFacts| facts.instances.get(&self.service).is_some_and(takes_work);
        let known = everyone.iter().filter(|(_, facts)| takes(facts.last_known()));
        let known: Vec<_> = known.collect();
        let fresh = known.iter().filter(|(_, facts)| facts.age(now) <= wanted.suspicion);
        let fresh: Vec<&NodeId> = fresh.map(|(node, _)| *node).collect();
        if fresh.is_empty() { known.iter().map(|(node, _)| *node).collect() } else { fresh }
    }

    fn upstreams(&self, wanted: &Wanted, everyone: &Everyone) -> Vec<Upstream> {
        let takers = self.takers(wanted, everyone);
        let upstream = |(node, place): (&NodeId, &Place)| Upstream {
            host: place.address.ip().to_string(),
            port: place.address.port(),
            weight: place.weight,
            far: place.far,
            drain: !takers.contains(&node),
        };
        wanted.places.iter().map(upstream).collect()
    }

    /// What is still there at copies that withdrew.
    fn uses(&self, wanted: &Wanted, everyone: &Everyone) -> BTreeMap<NodeId, DoorUse> {
        let withdrawn = |(node, place): (&NodeId, &Place)| {
            let own = everyone.get(node)?.last_known().instances.get(&self.service)?;
            Some((node.clone(), place.address, own.withdrawn?))
        };
        let withdrawn: Vec<_> = wanted.places.iter().filter_map(withdrawn).collect();
        if withdrawn.is_empty() {
            return BTreeMap::new();
        }
        // Counted after the door was told: whoever was chosen before is in it.
        let in_flight = self.door.in_flight();
        let uses = withdrawn.into_iter().map(|(node, address, obeys)| {
            let in_flight = in_flight.get(&address).copied().unwrap_or(0);
            (node, DoorUse { obeys, in_flight })
        });
        uses.collect()
    }
}
