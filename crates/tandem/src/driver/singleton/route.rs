//! Tells the front doors of a command where its copy takes connections.
//! In: agreed state, facts. Out: an address for the door, or none: then clients are held.
//! Keeps: INV-7, H41 only the holder of the newest term known here, healthy, and heard lately.
//! Not here: what a connection gets (`proxy`).

use crate::consensus::Agreed;
use crate::driver::hub::Hub;
use crate::proxy::{Balancer, BalancerConfig, Upstream};
use crate::runtime::clock;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::facts::Process;
use tandem_core::ids::{NodeId, ServiceId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often to look when nothing changes.
const TICK: Duration = Duration::from_millis(200);

/// What the door of one command follows.
#[derive(Debug)]
pub struct Guide {
    /// Which service.
    pub service: ServiceId,
    /// What this node knows.
    pub hub: Arc<Hub>,
    /// What is agreed.
    pub agreed: watch::Receiver<Agreed>,
    /// Where this node reaches each node's copy.
    pub addresses: BTreeMap<NodeId, SocketAddr>,
    /// The door, and what it is like without endpoints.
    pub door: Arc<Balancer>,
    /// Without upstreams.
    pub config: BalancerConfig,
}

impl Guide {
    /// Keeps the door's endpoint true until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.hub.changed();
        let mut told = None;
        loop {
            let target = self.target();
            if told != Some(target) {
                let upstreams = target.map(upstream).into_iter().collect();
                let config = BalancerConfig { upstreams, ..self.config.clone() };
                if let Err(error) = self.door.configure(config) {
                    tracing::warn!(service = %self.service, %error, "the door was not told");
                }
                told = Some(target);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = changed.changed() => if result.is_err() { return },
                result = self.agreed.changed() => if result.is_err() { return },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn target(&mut self) -> Option<SocketAddr> {
        let agreed = self.agreed.borrow_and_update().clone();
        let spec = agreed.state.spec.services.get(&self.service)?;
        let appointment = agreed.state.services.get(&self.service)?.appointment.as_ref()?;
        let everyone = self.hub.everyone();
        let facts = everyone.get(&appointment.primary)?;
        let facts = facts.fresh(clock::now(), spec.timing.suspicion)?;
        let own = facts.instances.get(&self.service)?;
        let serves = own.process == Process::Primary && own.serving == Some(appointment.term);
        self.addresses.get(&appointment.primary).copied().filter(|_| serves)
    }
}

fn upstream(address: SocketAddr) -> Upstream {
    let (host, port) = (address.ip().to_string(), address.port());
    Upstream { host, port, weight: 1, far: false, drain: false }
}
