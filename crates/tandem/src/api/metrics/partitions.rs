//! Talks to Prometheus about commands whose work is divided.
//! In: `ServiceMetrics`. Out: families, where there is such a service. No label names a partition:
//! there may be thousands.
//! Tested by: below.

use super::{Page, ServiceMetrics};
use std::fmt::Display;
use tandem_core::ids::NodeId;

/// Who owns the partitions of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetrics {
    /// How many there are.
    pub count: u64,
    /// On so many nobody works.
    pub unowned: u64,
    /// The sum of their epochs: grows with each that changes hands.
    pub epochs: u64,
    /// How often the own copy was ended since it did not release in time; none without one.
    pub overdue_total: Option<u64>,
    /// Each data node's.
    pub nodes: Vec<PartitionsOfNode>,
}

/// How many concern one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionsOfNode {
    /// Which node.
    pub node: NodeId,
    /// Its copy may work on these.
    pub owned: u64,
    /// Of these it was asked to release so many.
    pub releasing: u64,
    /// So many it will own once all that shall move has.
    pub wanted: u64,
    /// What it was given since this daemon has watched.
    pub moves: Moves,
}

/// Partitions that a node was given, by what made that safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// The owner before released them.
    pub released: u64,
    /// The copy of the owner before is proven gone.
    pub lost: u64,
    /// Nobody ever owned them.
    pub first: u64,
}

impl Moves {
    const fn by_why(self) -> [(&'static str, u64); 3] {
        [("released", self.released), ("lost", self.lost), ("first", self.first)]
    }
}

pub(super) fn families(page: &mut Page, services: &[ServiceMetrics]) {
    let all: Vec<_> =
        services.iter().filter_map(|of| Some((&of.service, of.partitions.as_ref()?))).collect();
    if all.is_empty() {
        return;
    }
    let mut of_service = |name: &str, help: &str, value: fn(&PartitionMetrics) -> Option<u64>| {
        page.family(name, help);
        for (service, of) in &all {
            if let Some(value) = value(of) {
                page.sample(name, &[("service", service)], value);
            }
        }
    };
    of_service("tandem_partitions", "Partitions that the work is divided into.", |of| {
        Some(of.count)
    });
    of_service("tandem_partitions_unowned", "Partitions on which nobody works.", |of| {
        Some(of.unowned)
    });
    let help = "The sum of the partitions' epochs: a node that says less than another is behind.";
    of_service("tandem_partitions_epoch", help, |of| Some(of.epochs));
    let help = "Copies here that were ended since they did not release in time.";
    of_service("tandem_partition_overdue_total", help, |of| of.overdue_total);
    let mut of_node = |name: &str, help: &str, value: fn(&PartitionsOfNode) -> u64| {
        page.family(name, help);
        for (service, of) in &all {
            for it in &of.nodes {
                let labels: [(&str, &dyn Display); 2] = [("service", service), ("node", &it.node)];
                page.sample(name, &labels, value(it));
            }
        }
    };
    let help = "Partitions that the node's copy may work on.";
    of_node("tandem_partitions_owned", help, |it| it.owned);
    let help = "Of these, those that it was asked to release.";
    of_node("tandem_partitions_releasing", help, |it| it.releasing);
    let help = "Partitions that the node will own once all that shall move has.";
    of_node("tandem_partitions_wanted", help, |it| it.wanted);
    moves(page, &all);
}

fn moves(page: &mut Page, all: &[(&tandem_core::ids::ServiceId, &PartitionMetrics)]) {
    let name = "tandem_partition_moves_total";
    page.family(name, "Partitions that the node was given, by what made that safe.");
    for (service, of) in all {
        for it in &of.nodes {
            for (why, count) in it.moves.by_why() {
                let labels: [(&str, &dyn Display); 3] =
                    [("service", service), ("node", &it.node), ("why", &why)];
                page.sample(name, &labels, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::metrics::DoorMetrics;
    use tandem_core::ids::Term;

    fn text(partitions: Option<PartitionMetrics>) -> String {
        let mut page = Page(String::new());
        let of = ServiceMetrics {
            service: "work".into(),
            term: Term(0),
            active: true,
            paused: false,
            failovers_total: 0,
            switchovers_total: 0,
            lease_s: None,
            copies: None,
            partitions,
            door: DoorMetrics::default(),
            instances: Vec::new(),
        };
        families(&mut page, &[of]);
        page.0
    }

    #[test]
    fn each_node_is_told_with_what_it_owns_and_will() {
        assert_eq!(text(None), "", "nothing is divided");
        let moves = Moves { released: 2, lost: 1, first: 4 };
        let node = PartitionsOfNode { node: "a".into(), owned: 4, releasing: 1, wanted: 3, moves };
        let nodes = vec![node];
        let all =
            PartitionMetrics { count: 12, unowned: 5, epochs: 30, overdue_total: Some(1), nodes };
        let said = text(Some(all.clone()));
        for line in [
            "tandem_partitions{service=\"work\"} 12",
            "tandem_partitions_unowned{service=\"work\"} 5",
            "tandem_partitions_epoch{service=\"work\"} 30",
            "# TYPE tandem_partition_overdue_total counter",
            "tandem_partition_overdue_total{service=\"work\"} 1",
            "tandem_partitions_owned{service=\"work\",node=\"a\"} 4",
            "tandem_partitions_releasing{service=\"work\",node=\"a\"} 1",
            "tandem_partitions_wanted{service=\"work\",node=\"a\"} 3",
            "# TYPE tandem_partition_moves_total counter",
            "tandem_partition_moves_total{service=\"work\",node=\"a\",why=\"released\"} 2",
            "tandem_partition_moves_total{service=\"work\",node=\"a\",why=\"lost\"} 1",
            "tandem_partition_moves_total{service=\"work\",node=\"a\",why=\"first\"} 4",
        ] {
            assert!(said.lines().any(|it| it == line), "{line}: {said}");
        }
        let said = text(Some(PartitionMetrics { overdue_total: None, ..all }));
        assert!(!said.contains("overdue_total{"), "no copy here: {said}");
    }
}
