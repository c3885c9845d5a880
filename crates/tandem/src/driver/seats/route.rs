//! Tells a front door by key who owns each partition.
//! In: agreed state, facts. Out: an address and an epoch for each, or none: then clients are held.
//! Keeps: INV-8 by the core's decision. A door permits nothing: what it says may be old, and who is
//! asked answers whether it owns it (INV-13).
//! Not here: who owns what, what is held (`active_active/routing.rs`), keys (`proxy/balancer`).
//! Tested by: `tests/keys`.

use crate::consensus::Agreed;
use crate::driver::hub::Hub;
use crate::proxy::{Balancer, Owned};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::active_active::routing::{Route, RoutingView, routes};
use tandem_core::ids::{NodeId, ServiceId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes: a node may have become silent.
const TICK: Duration = Duration::from_millis(200);

/// What a door by key follows.
#[derive(Debug)]
pub struct KeyGuide {
    /// The service whose work is divided.
    pub work: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What is agreed.
    pub agreed: watch::Receiver<Agreed>,
    /// Where this node reaches each node's copy.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// What a node said longer ago is not known to be so now.
    pub suspicion: Duration,
    /// The door.
    pub door: Arc<Balancer>,
}

impl KeyGuide {
    /// Keeps the door's owners true until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.hub.changed();
        loop {
            let routes = self.routes();
            self.door.route(routes);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = changed.changed() => if result.is_err() { return },
                result = self.agreed.changed() => if result.is_err() { return },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn routes(&mut self) -> Vec<Option<Owned>> {
        let agreed = self.agreed.borrow_and_update().clone();
        let everyone = self.hub.everyone();
        let view = RoutingView {
            service: &self.work,
            nodes: &agreed.state.spec.nodes,
            services: &agreed.state.services,
            facts: &everyone,
            suspicion: self.suspicion,
        };
        let owned = |route| match route {
            Route::To(node, epoch) => {
                self.addresses.get(&node).map(|address| Owned { address: *address, epoch })
            }
            Route::Held(_) => None,
        };
        routes(&view, clock::now()).into_iter().map(owned).collect()
    }
}
