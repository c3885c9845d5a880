//! Decides whether copies that ran side by side may be left of a service that comes back as one
//! whose copies exclude each other.
//! In: what is agreed, what each node said lately. Out: nothing, or why not to begin.
//! Keeps: INV-12, INV-13 no lease bounds what was started without one: it is over only where its
//! node says so, by a configuration that does not have it.
//! Not here: what was under a lease, which is waited out (`cluster/taken_out.rs`, `lease.rs`).
//! Tested by: below, and with real nodes in the shell's `tests/copies`.

use crate::cluster::state::ClusterState;
use crate::facts::NodeFacts;
use crate::ids::{NodeId, ServiceId};
use crate::reason::Reason;
use alloc::format;

/// Why a service that is taken out may not be put back under a lease yet; none: it may.
/// `fresh` is what a node said lately, none where nothing was heard.
pub fn left<'f>(
    agreed: &ClusterState,
    service: &ServiceId,
    fresh: impl Fn(&NodeId) -> Option<&'f NodeFacts>,
) -> Option<Reason> {
    if !agreed.taken_out.get(service)?.beside {
        return None;
    }
    agreed.spec.data_nodes().find_map(|node| match fresh(node).map(|facts| &facts.ended) {
        None => Some(Reason::new(format!(
            "{node} is not heard: a copy of {service} may run there that needs no lease"
        ))),
        Some(ended)
            if ended.version != agreed.config_version || !ended.services.contains(service) =>
        {
            Some(Reason::new(format!(
                "{node} has not said yet that no copy of {service} is left there, which needs no \
                 lease"
            )))
        }
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::command::{Command, Config};
    use crate::facts::{Ended, Told};
    use crate::ids::ConfigVersion;
    use crate::pairing::{Clustering, Kind, Pairing, Replication};
    use crate::spec::{ClusterSpec, Copies, NodeRole, NodeSpec, ServiceSpec, Timing};
    use alloc::boxed::Box;
    use alloc::collections::BTreeMap;
    use alloc::string::String;
    use core::time::Duration;

    fn service(copies: bool) -> ServiceSpec {
        let clustering = if copies { Clustering::LoadBalanced } else { Clustering::ActivePassive };
        let pairing = Pairing::new(Kind::Command, clustering, Replication::None);
        let pairing = pairing.unwrap_or_else(|_| unreachable!());
        let copies = copies.then_some(Copies { replicas: None, drain_max: Duration::ZERO });
        ServiceSpec { copies, ..ServiceSpec::of_command(pairing, Timing::of_command()) }
    }

    fn after(steps: &[Option<ServiceSpec>]) -> ClusterState {
        let node = |role| NodeSpec { role, zone: None, priority: 100, capacity: 1 };
        let data = ["a", "b"].map(|name| (name.into(), node(NodeRole::Data)));
        let nodes: BTreeMap<NodeId, NodeSpec> =
            data.into_iter().chain([("w".into(), node(NodeRole::Witness))]).collect();
        let mut state = ClusterState::default();
        for step in steps {
            let services = step.iter().map(|spec| ("web".into(), spec.clone())).collect();
            let spec = ClusterSpec { nodes: nodes.clone(), services };
            let config = Box::new(Config { text: String::new(), spec });
            state.apply(&Command::Configure { expected: state.config_version, config });
        }
        state
    }

    /// By the configuration of which version it says that nothing is left; 0: it does not.
    fn facts(node: &str, version: u64) -> NodeFacts {
        let services = (version > 0).then(|| "web".into()).into_iter().collect();
        NodeFacts {
            node: node.into(),
            told: Told { start: 1, number: 1 },
            config_version: ConfigVersion(1),
            links: BTreeMap::new(),
            instances: BTreeMap::new(),
            draining: false,
            doors: BTreeMap::new(),
            ended: Ended { version: ConfigVersion(version), services },
        }
    }

    #[test]
    fn inv12_what_needed_no_lease_has_to_be_known_to_have_ended() {
        let out = after(&[Some(service(true)), None]);
        let told = |of: [Option<u64>; 2]| {
            let [a, b] = of;
            let all: BTreeMap<NodeId, NodeFacts> = [("a", a), ("b", b)]
                .into_iter()
                .filter_map(|(node, version)| Some((node.into(), facts(node, version?))))
                .collect();
            left(&out, &"web".into(), |node| all.get(node)).is_some()
        };
        assert_eq!(out.config_version, ConfigVersion(2));
        assert!(!told([Some(2), Some(2)]), "the witness has nothing to say");
        assert!(told([Some(2), Some(0)]), "it may be there");
        assert!(told([Some(2), Some(1)]), "that was before it came, and went, again");
        assert!(told([Some(3), Some(2)]), "it may have come back since");
        assert!(told([None, Some(2)]), "who knows");
    }

    #[test]
    fn what_was_never_there_or_had_a_lease_is_not_asked_about() {
        let nobody = |state: &ClusterState| left(state, &"web".into(), |_| None);
        assert_eq!(nobody(&after(&[None])), None);
        assert_eq!(nobody(&after(&[Some(service(false)), None])), None);
        let again = [Some(service(true)), None, Some(service(false)), None];
        assert_eq!(nobody(&after(&again)), None, "it had one since");
        assert!(nobody(&after(&again[..2])).is_some());
    }
}
