//! Tells the front door of a command where its one copy takes connections, and the copy what it
//! still has there.
//! In: agreed state, facts. Out: an endpoint that takes work, or none: then clients are held;
//! `DoorUse`s.
//! Where another copy serves, the one before is gone (INV-12): what waits for it waits for nobody.
//! Keeps: INV-14 the door is told first that nobody is led to a copy that withdraws, then the copy.
//! Not here: the decision (`tandem_core`, `singleton/door.rs`), what a connection gets (`proxy`).
//! Tested by: `tests/singleton`.

use super::{Addresses, Ended, Sources, TICK};
use crate::consensus::Agreed;
use crate::driver::hub::DoorWords;
use crate::proxy::{Balancer, Upstream};
use crate::runtime::clock;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::active_passive::singleton::door::{DoorView, leads_to};
use tandem_core::facts::NodeFacts;
use tandem_core::facts::withdrawal::Withdrawn;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::time::Observed;
use tokio_util::sync::CancellationToken;

/// While a copy waits for what the door has there to end.
const SOON: Duration = Duration::from_millis(10);

/// What guides the door of one command.
#[derive(Debug)]
pub struct Guide {
    /// Which service.
    pub service: ServiceId,
    /// What it follows.
    pub sources: Sources,
    /// The door.
    pub door: Arc<Balancer>,
    /// What it says to copies.
    pub words: DoorWords,
}

type Everyone = BTreeMap<NodeId, Observed<NodeFacts>>;

impl Guide {
    /// Keeps the door true until `stop`, or until nobody says any more where copies are: then what
    /// it says to them is handed back, and still stands.
    pub async fn run(self, stop: CancellationToken) -> Option<DoorWords> {
        let Self { service, sources, door, words } = self;
        let hub = Arc::clone(&sources.hub);
        let (mut told, mut led) = (None, BTreeSet::new());
        let look = |agreed: &Agreed, addresses: &Addresses| {
            let everyone = hub.everyone();
            let to = target(&service, agreed, &everyone).and_then(|node| addresses.get(node));
            let upstreams = upstreams(addresses, to);
            // It cannot fail: what a copy is told next rests on it.
            if told.as_ref() != Some(&upstreams) {
                door.lead(upstreams.clone());
                told = Some(upstreams);
                if let Some(to) = to {
                    // What else the door has, or had before it led here, is not this command's.
                    led.insert(*to);
                    door.cut_elsewhere(*to, &led);
                }
            }
            let in_flight = door.in_flight();
            let uses = Withdrawn::of(&service, &everyone).uses(|node| {
                let address = addresses.get(node)?;
                Some(in_flight.get(address).copied().unwrap_or(0))
            });
            let waits = uses.values().any(|it| it.in_flight > 0);
            words.say(uses);
            if waits { SOON } else { TICK }
        };
        (sources.follow(stop, look).await == Ended::Gone).then_some(words)
    }
}

fn target<'a>(
    service: &'a ServiceId,
    agreed: &'a Agreed,
    facts: &'a Everyone,
) -> Option<&'a NodeId> {
    let suspicion = agreed.state.spec.services.get(service)?.timing.suspicion;
    let state = agreed.state.services.get(service)?;
    leads_to(&DoorView { service, state, facts, suspicion }, clock::now())
}

/// All places that there are, so that what is still there is counted; one at most takes work. Two
/// nodes of one machine may have the same.
fn upstreams(addresses: &Addresses, to: Option<&SocketAddr>) -> Vec<Upstream> {
    let places: BTreeSet<&SocketAddr> = addresses.values().collect();
    let upstream = |place: &SocketAddr| Upstream {
        host: place.ip().to_string(),
        port: place.port(),
        weight: 1,
        far: false,
        drain: Some(place) != to,
    };
    places.into_iter().map(upstream).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_takes_work_though_two_nodes_share_it() {
        let at = |last| SocketAddr::from(([192, 0, 2, last], 9000));
        let addresses = [("a", at(1)), ("b", at(1)), ("c", at(2))];
        let addresses = addresses.map(|(node, at)| (node.into(), at)).into();
        let drains = |to: Option<&SocketAddr>| {
            upstreams(&addresses, to).iter().map(|it| it.drain).collect::<Vec<_>>()
        };
        assert_eq!(drains(Some(&at(1))), [false, true]);
        assert_eq!(drains(Some(&at(2))), [true, false]);
        assert_eq!(drains(None), [true, true], "whoever comes is held");
    }
}
