//! Tells the front doors who may be talked to, from agreed state and facts.
//! In: agreed state, facts. Out: `Routes`, whenever they change.
//! Keeps: INV-7 only the appointed primary whose barrier was acknowledged takes clients; H41 what
//! was heard too long ago counts for nothing.
//! Not here: what a session does about it (`proxy`).

use super::hub::Hub;
use crate::consensus::Agreed;
use crate::proxy::{Replica, Routes, Target};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::facts::{InstanceFacts, NodeFacts, Process, Stream};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::time::{Observed, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes: keeps `valid_until` ahead.
const TICK: Duration = Duration::from_millis(100);
/// A node that was not heard for this long is not routed to.
const HEARD_WITHIN: Duration = Duration::from_millis(1500);

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
    /// A replica further behind than this serves no reads, in bytes.
    pub lag_bytes_max: u64,
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
        let Some(appointment) = &state.appointment else { return Routes::default() };
        let instance = |node: &NodeId| -> Option<&InstanceFacts> {
            facts.get(node)?.fresh(now, HEARD_WITHIN)?.instances.get(&self.service)
        };
        let addresses = self.addresses.borrow();
        let target = |node: &NodeId| -> Option<Target> {
            Some(Target { node: node.clone(), address: *addresses.get(node)? })
        };
        let primary = instance(&appointment.primary).filter(|own| {
            own.process == Process::Primary
                && own.promoted == appointment.term
                && own.serving == Some(appointment.term)
        });
        let end = primary.map(|own| own.flushed);
        let mut replicas = Vec::new();
        for node in agreed.state.spec.data_nodes().filter(|n| **n != appointment.primary) {
            let Some(own) = instance(node) else { continue };
            let follows = own.upstream == Some((appointment.primary.clone(), appointment.term));
            let Stream::Connected(silence) = own.stream else { continue };
            let lag_bytes = end.map_or(0, |end| end.bytes_ahead_of(own.replayed));
            let is_near = own.process == Process::Standby && lag_bytes <= self.lag_bytes_max;
            if let (true, true, Some(target)) = (follows, is_near, target(node)) {
                // Coarse, so that a difference of a few bytes is not a new route.
                let lag = Duration::from_secs(silence.as_secs());
                replicas.push(Replica { target, lag_bytes: lag_bytes >> 20 << 20, lag });
            }
        }
        let heard = facts.get(&appointment.primary).map(|facts| facts.age(now));
        let left = heard.map_or(Duration::ZERO, |age| HEARD_WITHIN.saturating_sub(age));
        Routes {
            term: appointment.term,
            primary: primary.and_then(|_| target(&appointment.primary)),
            replicas,
            holding: state.switchover.is_some() || state.forced.is_some(),
            valid_until: Some(quantised(now.plus(left))),
        }
    }
}

/// Rounded up to 250 ms: the routes are told anew only that often while nothing else changes.
fn quantised(at: Timestamp) -> Timestamp {
    Timestamp(at.0.div_ceil(250_000) * 250_000)
}
