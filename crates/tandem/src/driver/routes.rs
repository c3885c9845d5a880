//! Tells the front doors who may be talked to, from agreed state and facts.
//! In: agreed state, facts. Out: `Routes`, whenever they change.
//! Keeps: INV-7, H41, by the core's decision.
//! Not here: the decision (`tandem_core::clustering::active_passive::routing`), what a session does
//! about it (`proxy`).

use super::hub::Hub;
use crate::consensus::Agreed;
use crate::proxy::{Replica, Routes, Target};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::active_passive::routing::{Readable, RoutingView, routing};
use tandem_core::facts::NodeFacts;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::time::{Observed, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes: keeps `valid_until` ahead.
const TICK: Duration = Duration::from_millis(200);

/// How far a replica may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagMax {
    /// In bytes.
    pub bytes: u64,
    /// In time.
    pub time: Duration,
}

/// What the routes of one service are made of.
#[derive(Debug)]
pub struct Router {
    /// Which service.
    pub service: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What is agreed.
    pub agreed: watch::Receiver<Agreed>,
    /// Where this node reaches each instance.
    pub addresses: watch::Receiver<BTreeMap<NodeId, SocketAddr>>,
    /// Where this node stands.
    pub zone: Option<String>,
    /// A replica further behind than this serves no reads.
    pub lag_max: watch::Receiver<LagMax>,
    /// The doors' side.
    pub routes: watch::Sender<Arc<Routes>>,
}

impl Router {
    /// Keeps the routes true until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.hub.changed();
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = changed.changed() => if result.is_err() { return },
                result = self.agreed.changed() => if result.is_err() { return },
                _ = ticks.tick() => {}
            }
            let agreed = self.agreed.borrow_and_update().clone();
            let routes = self.routes(&agreed, &self.hub.everyone(), clock::now());
            self.routes.send_if_modified(|old| {
                let is_new = **old != routes;
                if is_new {
                    *old = Arc::new(routes);
                }
                is_new
            });
        }
    }

    fn routes(
        &self,
        agreed: &Agreed,
        facts: &BTreeMap<NodeId, Observed<NodeFacts>>,
        now: Timestamp,
    ) -> Routes {
        let Some(state) = agreed.state.services.get(&self.service) else {
            return Routes::default();
        };
        let Some(service) = agreed.state.spec.services.get(&self.service) else {
            return Routes::default();
        };
        let (addresses, lag_max) = (self.addresses.borrow(), *self.lag_max.borrow());
        let view = RoutingView {
            service: &self.service,
            spec: &agreed.state.spec,
            timing: service.timing,
            state,
            draining: &agreed.state.draining,
            facts,
            lag_bytes_max: lag_max.bytes,
            lag_max: lag_max.time,
        };
        let routing = routing(&view, now);
        let target = |node: &NodeId| -> Option<Target> {
            Some(Target { node: node.clone(), address: *addresses.get(node)? })
        };
        let replica = |it: &Readable| {
            // Coarse, so that a difference of a few bytes is not a new route.
            let lag = Duration::from_secs(it.lag.as_secs());
            let lag_bytes = it.lag_bytes >> 20 << 20;
            let node = agreed.state.spec.nodes.get(&it.node)?;
            let far = self.zone.is_some() && node.zone.is_some() && self.zone != node.zone;
            let weight = node.capacity.max(1);
            let (target, draining) = (target(&it.node)?, it.draining);
            Some(Replica { target, lag_bytes, lag, weight, far, draining })
        };
        Routes {
            term: routing.term,
            primary: routing.primary.as_ref().and_then(target),
            replicas: routing.replicas.iter().filter_map(replica).collect(),
            holding: routing.holding,
            valid_until: routing.valid_until.map(quantised),
        }
    }
}

/// Rounded up to 250 ms: the routes are told anew only that often while nothing else changes.
fn quantised(at: Timestamp) -> Timestamp {
    Timestamp(at.0.div_ceil(250_000) * 250_000)
}
