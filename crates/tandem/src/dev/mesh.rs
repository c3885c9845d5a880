//! Talks to the relays of all pairs of nodes: one for their own traffic, one for
//! each instance.
//! In: which links are cut or slow. Out: routes for each node.
//! Tested by: below.

use super::Error;
use super::layout::{Detour, Detours, Layout};
use super::relay::{Condition, Relay};
use crate::runtime::supervisor::Supervisor;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::ids::NodeId;

/// One direction between two nodes, by who dials.
#[derive(Debug)]
struct Way {
    peer: Relay,
    services: BTreeMap<String, Relay>,
}

/// Every way.
#[derive(Debug)]
pub struct Mesh {
    ways: BTreeMap<(NodeId, NodeId), Way>,
    /// How slow a link is that nothing is wrong with.
    delay: Duration,
}

impl Mesh {
    /// Opens the relays of a layout; every byte takes `delay` longer, each way.
    pub async fn start(
        tasks: &Supervisor,
        layout: &Layout,
        delay: Duration,
    ) -> Result<Self, Error> {
        let mut ways = BTreeMap::new();
        for from in layout.places() {
            for to in layout.places().filter(|to| to.node != from.node) {
                let peer = Relay::start(tasks, layout.peer(to)).await?;
                let mut services = BTreeMap::new();
                for (service, address) in layout.instances(to) {
                    services.insert(service, Relay::start(tasks, address).await?);
                }
                ways.insert((from.node.clone(), to.node.clone()), Way { peer, services });
            }
        }
        let mesh = Self { ways, delay };
        mesh.heal();
        Ok(mesh)
    }

    /// What one node dials to reach the others.
    pub fn detours(&self, node: &NodeId) -> Detours {
        self.ways
            .iter()
            .filter(|((from, _), _)| from == node)
            .map(|((_, to), way)| {
                let instance =
                    |(service, relay): (&String, &Relay)| (service.clone(), relay.address());
                let services = way.services.iter().map(instance).collect();
                (to.clone(), Detour { peer: way.peer.address(), services })
            })
            .collect()
    }

    /// Changes both directions between two nodes.
    pub fn set_link(&self, a: &NodeId, b: &NodeId, condition: Condition) {
        self.set(condition, |from, to| (from == a && to == b) || (from == b && to == a));
    }

    /// Changes everything to and from a node.
    pub fn set_node(&self, node: &NodeId, condition: Condition) {
        self.set(condition, |from, to| from == node || to == node);
    }

    /// Changes one direction, by who dials.
    pub fn set_way(&self, dialer: &NodeId, dialed: &NodeId, condition: Condition) {
        self.set(condition, |from, to| from == dialer && to == dialed);
    }

    /// Heals everything.
    pub fn heal(&self) {
        self.set(Condition::default(), |_, _| true);
    }

    fn set(&self, condition: Condition, affected: impl Fn(&NodeId, &NodeId) -> bool) {
        let condition = Condition { delay: condition.delay.max(self.delay), ..condition };
        for ((from, to), way) in &self.ways {
            if affected(from, to) {
                way.peer.set(condition);
                way.services.values().for_each(|service| service.set(condition));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DevConfig;
    use super::*;
    use std::path::Path;

    #[tokio::test]
    async fn cutting_a_link_or_a_node_touches_its_ways_only() {
        let tasks = Supervisor::new();
        let config = DevConfig { witness: true, ..DevConfig::default() };
        let (layout, _claim) = Layout::find(&config, Path::new("/x")).unwrap();
        let mesh = Mesh::start(&tasks, &layout, Duration::from_millis(5)).await.unwrap();
        let cut = || -> Vec<String> {
            mesh.ways
                .iter()
                .filter(|(_, way)| way.peer.condition().cut)
                .map(|((from, to), _)| format!("{from}{to}"))
                .collect()
        };
        let [a, b, c] = ["a", "b", "c"].map(NodeId::new);
        let broken = Condition { cut: true, ..Condition::default() };
        mesh.set_link(&a, &b, broken);
        assert_eq!(cut(), ["ab", "ba"]);
        mesh.heal();
        mesh.set_node(&c, broken);
        assert_eq!(cut(), ["ac", "bc", "ca", "cb"]);
        mesh.heal();
        mesh.set_way(&a, &c, broken);
        assert_eq!(cut(), ["ac"]);
        let slow = |way: &Way| way.peer.condition().delay == Duration::from_millis(5);
        assert!(mesh.ways.values().all(slow), "healing ends a fault, not the distance");
        let detours = mesh.detours(&a);
        let instances = |node: &NodeId| detours[node].services.len();
        assert_eq!((instances(&b), instances(&c)), (1, 0), "a witness has no instance");
        assert!(tasks.stop(std::time::Duration::from_secs(5)).await);
    }
}
