//! Talks about the cluster as this node sees it at one moment: what every answer is made of.
//! In: agreed state, facts, leadership, configuration. Out: `Seen`, a consistent copy.
//! Keeps: INV-8, H41 what was heard longer ago than the suspicion time is not used as if it held.
//! Not here: what is made of it (`status.rs`, `explain.rs`, `role.rs`, `metrics.rs`).
//! Tested by: the modules that use it, with made-up facts.

use crate::config::{Config, Listen, Service};
use crate::consensus::Leadership;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::state::{Appointment, ClusterState, ServiceState};
use tandem_core::clustering::active_passive::ControllerView;
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::facts::{InstanceFacts, Link, NodeFacts, Process};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::pairing::Kind;
use tandem_core::spec::{Seat, ServiceSpec, Timing};
use tandem_core::time::{Observed, Timestamp};

/// Everything known at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub me: NodeId,
    pub config: Arc<Config>,
    pub agreed: Arc<ClusterState>,
    pub leadership: Leadership,
    pub facts: BTreeMap<NodeId, Observed<NodeFacts>>,
    /// By service, how far each primary had come, and when.
    pub trails: BTreeMap<ServiceId, Trails>,
    pub now: Timestamp,
    pub unix_ms: u64,
}

/// Of a service that nobody was heard to serve.
static NO_TRAILS: Trails = Trails::none();

/// One service at that moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceSeen<'a> {
    pub seen: &'a Seen,
    pub name: &'a ServiceId,
    pub spec: &'a ServiceSpec,
    pub state: &'a ServiceState,
}

impl Seen {
    /// The longest silence that is normal.
    pub fn suspicion(&self) -> Duration {
        let services = self.agreed.spec.services.values();
        services
            .map(|spec| spec.timing.suspicion)
            .max()
            .unwrap_or_else(|| Timing::default().suspicion)
    }

    /// What a node said lately.
    pub fn fresh(&self, node: &NodeId) -> Option<&NodeFacts> {
        self.facts.get(node)?.fresh(self.now, self.suspicion())
    }

    /// How this node sees the way to another.
    pub fn link(&self, node: &NodeId) -> Option<Link> {
        self.fresh(&self.me)?.links.get(node).copied()
    }

    /// One service that is both agreed and described.
    pub fn service<'a>(&'a self, name: &ServiceId) -> Option<ServiceSeen<'a>> {
        let (name, state) = self.agreed.services.get_key_value(name)?;
        let spec = self.agreed.spec.services.get(name)?;
        Some(ServiceSeen { seen: self, name, spec, state })
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = ServiceSeen<'_>> {
        // A seat is a part of the service whose work is divided.
        self.services_and_seats().filter(|service| service.spec.seat.is_none())
    }

    /// Whatever may have a lease.
    pub fn services_and_seats(&self) -> impl Iterator<Item = ServiceSeen<'_>> {
        self.agreed.services.keys().filter_map(|name| self.service(name))
    }
}

impl<'a> ServiceSeen<'a> {
    /// What the controller would plan on here.
    pub fn view(&self) -> ControllerView<'a> {
        let agreed = &self.seen.agreed;
        ControllerView {
            me: &self.seen.me,
            service: self.name,
            spec: self.spec,
            nodes: &agreed.spec.nodes,
            draining: &agreed.draining,
            state: self.state,
            services: &agreed.services,
            facts: &self.seen.facts,
            trails: self.seen.trails.get(self.name).unwrap_or(&NO_TRAILS),
            unix_ms: self.seen.unix_ms,
        }
    }

    /// What the node is called that serves.
    pub fn holder_word(&self) -> &'static str {
        match self.spec.pairing.kind() {
            Kind::Command => "active node",
            Kind::Postgres | Kind::Http | Kind::Tcp => "primary",
        }
    }

    pub fn appointment(&self) -> Option<&'a Appointment> {
        self.state.appointment.as_ref()
    }

    /// What a node said lately of its instance.
    pub fn instance(&self, node: &NodeId) -> Option<&'a InstanceFacts> {
        let facts = self.seen.facts.get(node)?;
        let facts = facts.fresh(self.seen.now, self.spec.timing.suspicion)?;
        match self.spec.partitions {
            Some(_) => facts.instances.get(&Seat::name(self.name, node)),
            None => facts.instances.get(self.name),
        }
    }

    /// The appointed primary's instance, once it takes writes in the present term.
    pub fn serving_primary(&self) -> Option<&'a InstanceFacts> {
        let appointment = self.appointment()?;
        self.instance(&appointment.primary).filter(|own| {
            own.process == Process::Primary
                && own.promoted == appointment.term
                && own.serving == Some(appointment.term)
        })
    }

    /// How many bytes of the primary's log an instance has not replayed.
    pub fn lag_bytes(&self, instance: &InstanceFacts) -> Option<u64> {
        let primary = self.instance(&self.appointment()?.primary)?;
        let is_primary = primary.process == Process::Primary;
        is_primary.then(|| primary.flushed.bytes_ahead_of(instance.replayed))
    }

    pub fn config(&self) -> Option<&'a Service> {
        self.seen.config.services.get(self.name)
    }

    /// Its front doors, the one for reads second.
    pub fn doors(&self) -> Option<(Listen, Option<Listen>)> {
        let command = || Some((self.seen.config.commands.get(self.name)?.listen?, None));
        self.config().map(|it| (it.listen, it.read_listen)).or_else(command)
    }

    /// Where a node's instance itself listens.
    pub fn instance_address(&self, node: &NodeId) -> Option<String> {
        let it = self.seen.config.nodes.get(node)?;
        let command = || self.seen.config.commands.get(self.name)?.instance_address(it);
        let address = self.config().map(|config| config.instance_address(it)).or_else(command)?;
        Some(reachable(address, it))
    }
}

/// An address for others: where a listener binds to every address, the node's own name.
pub(super) fn reachable(address: SocketAddr, node: &crate::config::Node) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            format!("{}:{}", node.address.host, address.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            format!("{}:{}", node.address.host, address.port())
        }
        _ => address.to_string(),
    }
}
