//! Decides what is agreed at first.

use super::machine::Machine;
use tandem_core::cluster::command::{Command, Config};
use tandem_core::cluster::state::ClusterState;
use tandem_core::ids::{ClusterId, ServiceId};
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};
use tandem_core::spec::{ClusterSpec, NodeRole, NodeSpec, Seat, ServiceSpec, Timing};

/// The state; the service whose work is divided, if it is; the singleton or the seats, in the
/// order of the machines.
pub(super) fn founded(
    nodes: &[Machine],
    partitions: Option<u32>,
) -> (ClusterState, Option<ServiceId>, Vec<ServiceId>) {
    let machine = |node: &Machine| NodeSpec {
        role: if node.witness { NodeRole::Witness } else { NodeRole::Data },
        zone: None,
        priority: node.priority,
        capacity: 1,
    };
    let clustering = match partitions {
        Some(_) => Clustering::ActiveActive,
        None => Clustering::ActivePassive,
    };
    let pairing = Pairing::new(Kind::Command, clustering, Replication::None);
    let Ok(pairing) = pairing else { unreachable!("a pair that is refused") };
    let spec = ServiceSpec::of_command(pairing, Timing::of_command());
    let (name, spec) = match partitions {
        Some(count) => (ServiceId::from("work"), spec.divided(count)),
        None => (ServiceId::from("jobs"), spec),
    };
    let spec = ClusterSpec {
        nodes: nodes.iter().map(|node| (node.id.clone(), machine(node))).collect(),
        services: [(name.clone(), spec)].into(),
    };
    let seats = spec.data_nodes().map(|node| Seat::name(&name, node)).collect();
    let config = Box::new(Config { text: String::new(), spec: spec.with_seats() });
    let mut state = ClusterState::default();
    state.apply(&Command::Found { cluster: ClusterId::from("c0ffee"), config });
    match partitions {
        Some(_) => (state, Some(name), seats),
        None => (state, None, vec![name]),
    }
}
