//! Tells a front door by key who owns each partition.
//! In: agreed state, facts. Out: an address and an epoch for each, or none: then clients are held.
//! Keeps: INV-8 by the core's decision. A door permits nothing: what it says may be old, and who is
//! asked answers whether it owns it (INV-13). A door that counts keys otherwise than what is agreed
//! leads nobody: two owners would work for one of them.
//! Not here: who owns what, what is held (`active_active/routing.rs`), keys (`proxy/balancer`).
//! Tested by: `tests/keys`.

use super::{Addresses, Sources, TICK};
use crate::consensus::Agreed;
use crate::driver::hub::Hub;
use crate::proxy::{Balancer, Owned};
use crate::runtime::clock;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::state::ClusterState;
use tandem_core::clustering::active_active::routing::{Route, RoutingView, routes};
use tandem_core::ids::ServiceId;
use tokio_util::sync::CancellationToken;

/// Whether a door counts keys as what is agreed says.
pub type Counts = Box<dyn FnMut(&ClusterState) -> bool + Send>;

/// What guides a door by key.
pub struct KeyGuide {
    /// The service whose work is divided.
    pub work: ServiceId,
    /// What it follows.
    pub sources: Sources,
    /// What a node said longer ago is not known to be so now.
    pub suspicion: Duration,
    /// The door.
    pub door: Arc<Balancer>,
    /// Whether it may lead anybody by what is agreed.
    pub counts: Counts,
}

impl std::fmt::Debug for KeyGuide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyGuide").field("work", &self.work).finish_non_exhaustive()
    }
}

impl KeyGuide {
    /// Keeps the door's owners true until `stop`, or until it is gone.
    pub async fn run(self, stop: CancellationToken) {
        let Self { work, sources, suspicion, door, mut counts } = self;
        let hub = Arc::clone(&sources.hub);
        let look = |agreed: &Agreed, addresses: &Addresses| {
            door.route(match counts(&agreed.state) {
                true => owners((&work, suspicion), &hub, agreed, addresses),
                false => Vec::new(),
            });
            TICK
        };
        sources.follow(stop, look).await;
    }
}

fn owners(
    (service, suspicion): (&ServiceId, Duration),
    hub: &Hub,
    agreed: &Agreed,
    addresses: &Addresses,
) -> Vec<Option<Owned>> {
    let view = RoutingView {
        service,
        nodes: &agreed.state.spec.nodes,
        services: &agreed.state.services,
        facts: &hub.everyone(),
        suspicion,
    };
    let owned = |route| match route {
        Route::To(node, epoch) => {
            addresses.get(&node).map(|address| Owned { address: *address, epoch })
        }
        Route::Held(_) => None,
    };
    routes(&view, clock::now()).into_iter().map(owned).collect()
}
