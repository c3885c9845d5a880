//! Decides what is agreed at first.

use super::What;
use super::beside::DRAIN_MAX;
use super::machine::Machine;
use crate::rng::Rng;
use tandem_core::cluster::command::{Command, Config};
use tandem_core::cluster::state::ClusterState;
use tandem_core::ids::{ClusterId, ServiceId};
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};
use tandem_core::spec::{ClusterSpec, Copies, NodeRole, NodeSpec, Seat, ServiceSpec, Timing};

/// The state; the service whose work is divided, if it is; the singleton or the seats, in the
/// order of the machines.
pub(super) fn founded(
    nodes: &[Machine],
    what: What,
    rng: &mut Rng,
) -> (ClusterState, Option<ServiceId>, Vec<ServiceId>) {
    let machine = |node: &Machine| NodeSpec {
        role: if node.witness { NodeRole::Witness } else { NodeRole::Data },
        zone: None,
        priority: node.priority,
        // From one to three times as much as another one, and all alike where all is calm.
        capacity: 1 + node.priority / 100,
    };
    let clustering = match what {
        What::Alone => Clustering::ActivePassive,
        What::Divided(_) => Clustering::ActiveActive,
        What::Beside => Clustering::LoadBalanced,
    };
    let pairing = Pairing::new(Kind::Command, clustering, Replication::None);
    let Ok(pairing) = pairing else { unreachable!("a pair that is refused") };
    let spec = ServiceSpec::of_command(pairing, Timing::of_command());
    let (name, spec) = match what {
        What::Alone => (ServiceId::from("jobs"), spec),
        What::Divided(count) => (ServiceId::from("work"), spec.divided(count)),
        What::Beside => {
            let replicas = [None, Some(1), Some(2), Some(3)][rng.below(4)];
            let copies = Some(Copies { replicas, drain_max: DRAIN_MAX });
            (ServiceId::from("web"), ServiceSpec { copies, ..spec })
        }
    };
    let spec = ClusterSpec {
        nodes: nodes.iter().map(|node| (node.id.clone(), machine(node))).collect(),
        services: [(name.clone(), spec)].into(),
    };
    let seats = spec.data_nodes().map(|node| Seat::name(&name, node)).collect();
    let config = Box::new(Config { text: String::new(), spec: spec.with_seats() });
    let mut state = ClusterState::default();
    state.apply(&Command::Found { cluster: ClusterId::from("c0ffee"), config });
    match what {
        What::Divided(_) => (state, Some(name), seats),
        What::Alone | What::Beside => (state, None, vec![name]),
    }
}
