//! Decides whether two nodes accepted writes at the same time, from what the canary wrote down.
//! In: `CanaryWrite`s. Out: how many of them prove it.
//! That two writes were under way at once proves nothing: an acknowledgement can arrive seconds
//! after the commit, from a node that was frozen in between. What does prove it: a node that
//! accepted a write before another node's write was sent, and one after that was acknowledged, on
//! one and the same timeline. Promotion always begins a new timeline, so it was primary all the
//! while. Both nodes' writes count, as in published measurements of other products.
//! Keeps: INV-1, checked. Tested by: below, with crafted histories.

use std::collections::BTreeMap;
use tandem_core::ids::{NodeId, TimelineId};
use tandem_core::time::Timestamp;

/// A write that an instance acknowledged to the canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryWrite {
    /// Where.
    pub node: NodeId,
    /// Its number on that node.
    pub n: i64,
    /// When it was sent.
    pub sent: Timestamp,
    /// When the acknowledgement arrived.
    pub acked: Timestamp,
    /// On which timeline the instance wrote it.
    pub timeline: TimelineId,
}

/// How many writes were accepted while another node was provably a primary too.
pub fn dual_primary_instants(writes: &[CanaryWrite]) -> u64 {
    // From a first acknowledgement to a last sending, each (node, timeline) was primary for
    // certain.
    let mut reigns = BTreeMap::<(&NodeId, TimelineId), (Timestamp, Timestamp)>::new();
    for write in writes {
        let reign =
            reigns.entry((&write.node, write.timeline)).or_insert((write.acked, write.sent));
        *reign = (reign.0.min(write.acked), reign.1.max(write.sent));
    }
    let disputed = |write: &&CanaryWrite| {
        reigns.iter().any(|((node, _), (from, to))| {
            **node != write.node && *from <= write.sent && write.acked <= *to
        })
    };
    writes.iter().filter(disputed).count() as u64
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::ms;
    use super::*;

    fn writes(lines: &[(&str, u32, u64, u64)]) -> Vec<CanaryWrite> {
        lines
            .iter()
            .zip(1..)
            .map(|((node, timeline, sent, acked), n)| CanaryWrite {
                node: NodeId::new(*node),
                n,
                sent: ms(*sent),
                acked: ms(*acked),
                timeline: TimelineId(*timeline),
            })
            .collect()
    }

    #[test]
    fn one_primary_after_another() {
        let history =
            writes(&[("a", 1, 0, 1), ("a", 1, 50, 51), ("b", 2, 90, 91), ("b", 2, 140, 141)]);
        assert_eq!(dual_primary_instants(&history), 0);
    }

    #[test]
    fn there_and_back_again() {
        let history = writes(&[
            ("a", 1, 0, 1),
            ("a", 1, 50, 51),
            ("b", 2, 90, 91),
            ("b", 2, 140, 141),
            ("a", 3, 190, 191),
            ("a", 3, 240, 241),
        ]);
        assert_eq!(dual_primary_instants(&history), 0, "a new timeline is a new reign");
    }

    #[test]
    fn a_late_acknowledgement_is_no_proof() {
        let history = writes(&[
            ("a", 1, 0, 1),
            ("a", 1, 50, 3050),
            ("b", 2, 2000, 2001),
            ("b", 2, 2050, 2051),
            ("b", 2, 4000, 4001),
        ]);
        assert_eq!(dual_primary_instants(&history), 0, "committed at 51, heard at 3050");
    }

    #[test]
    fn two_primaries_at_once_are_seen_from_both_sides() {
        let history = writes(&[
            ("a", 1, 0, 1),
            ("a", 1, 50, 51),
            ("b", 2, 60, 61),
            ("a", 1, 100, 101),
            ("b", 2, 110, 111),
            ("a", 1, 150, 151),
        ]);
        assert_eq!(dual_primary_instants(&history), 3, "two of b within a, one of a within b");
    }

    #[test]
    fn the_same_timeline_number_on_two_nodes_is_seen_too() {
        let history = writes(&[("a", 2, 0, 1), ("b", 2, 50, 51), ("a", 2, 100, 101)]);
        assert_eq!(dual_primary_instants(&history), 1);
    }

    #[test]
    fn a_resurrected_primary_is_seen_as_soon_as_it_writes_once() {
        let history =
            writes(&[("a", 1, 0, 1), ("b", 2, 50, 51), ("b", 2, 99, 100), ("a", 1, 150, 151)]);
        assert_eq!(dual_primary_instants(&history), 2);
    }
}
