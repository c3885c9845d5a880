//! Tells a front door by key who owns each partition.
//! In: agreed state, facts. Out: an address and an epoch for each, or none: then clients are held;
//! from where owners are gone, so that nobody waits for them.
//! Keeps: INV-8 by the core's decision. A door permits nothing: what it says may be old, and who is
//! asked answers whether it owns it (INV-13). A door that counts keys otherwise than what is agreed
//! leads nobody: two owners would work for one of them.
//! Not here: who owns what, what is held (`active_active/routing.rs`), keys (`proxy/balancer`).
//! Tested by: `tests/keys`.

use super::{Addresses, Sources, TICK};
use crate::consensus::Agreed;
use crate::proxy::{Balancer, Owned};
use crate::runtime::clock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::state::ClusterState;
use tandem_core::clustering::active_active::led::Led;
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
        let mut led = Led::default();
        let look = |agreed: &Agreed, addresses: &Addresses| {
            let view = RoutingView {
                service: &work,
                nodes: &agreed.state.spec.nodes,
                services: &agreed.state.services,
                facts: &hub.everyone(),
                suspicion,
            };
            let routes = match counts(&agreed.state) {
                true => routes(&view, clock::now()),
                false => Vec::new(),
            };
            let (routes, gone) = owners(&view, routes, (&mut led, addresses));
            door.route(routes, &gone);
            TICK
        };
        sources.follow(stop, look).await;
    }
}

/// Where each route leads, and where whoever was led to before is gone.
fn owners(
    view: &RoutingView<'_>,
    routes: Vec<Route>,
    (led, addresses): (&mut Led<SocketAddr>, &Addresses),
) -> (Vec<Option<Owned>>, Vec<SocketAddr>) {
    let mut leads = Vec::new();
    let mut owned = |route| match route {
        Route::To(node, epoch) => {
            let address = *addresses.get(&node)?;
            leads.push((address, node));
            Some(Owned { address, epoch })
        }
        Route::Held(_) => None,
    };
    let owned = routes.into_iter().map(&mut owned).collect();
    (owned, led.look(view, leads))
}
