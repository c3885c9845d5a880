//! Decides who shall own which partition: by weight, and with the fewest moves.
//! In: who owns each now, if anybody of those that count; every node's weight. Out: who shall.
//! Keeps: each node gets its weighted share, rounded up or down; no partition moves that need not;
//! the same in, the same out.
//! Not here: who counts, and when a partition may be given on (`controller.rs`).
//! Tested by: below, all small cases.

use crate::ids::NodeId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// Nodes that may own, and how much each can do relative to the others.
pub type Weights = BTreeMap<NodeId, u32>;

/// Divides everything: shares as even as weights allow, with the fewest moves. Nobody's where no
/// node counts.
pub fn balance(now: &[Option<NodeId>], weights: &Weights) -> Vec<Option<NodeId>> {
    let mut free = quotas(now, weights);
    let mut wanted: Vec<Option<NodeId>> = Vec::with_capacity(now.len());
    for owner in now {
        let room = owner.as_ref().and_then(|owner| free.get_mut(owner)).filter(|room| **room > 0);
        wanted.push(match room {
            Some(room) => {
                *room -= 1;
                owner.clone()
            }
            None => None,
        });
    }
    let mut takers = free.into_iter().flat_map(|(node, room)| (0..room).map(move |_| node.clone()));
    for place in wanted.iter_mut().filter(|place| place.is_none()) {
        *place = takers.next();
    }
    wanted
}

/// Gives what is nobody's to those that may gain, evenly; nothing else moves.
pub fn fill(
    now: &[Option<NodeId>],
    weights: &Weights,
    gains: impl Fn(&NodeId) -> bool,
) -> Vec<Option<NodeId>> {
    let mut held: BTreeMap<&NodeId, u64> = weights.keys().map(|node| (node, 0)).collect();
    for owner in now.iter().flatten() {
        held.entry(owner).and_modify(|count| *count += 1);
    }
    let taker = |held: &BTreeMap<&NodeId, u64>| {
        let all = weights.iter().filter(|(node, weight)| **weight > 0 && gains(node));
        // Who has the least for its weight with one more; a million is fine enough.
        let load = |(node, weight): &(&NodeId, &u32)| {
            let with_one_more = held.get(node).map_or(1, |count| count + 1);
            with_one_more * 1_000_000 / u64::from(**weight)
        };
        all.min_by_key(load).map(|(node, _)| node)
    };
    let mut wanted = now.to_vec();
    for place in wanted.iter_mut().filter(|place| place.is_none()) {
        let Some(node) = taker(&held) else { break };
        held.entry(node).and_modify(|count| *count += 1);
        *place = Some(node.clone());
    }
    wanted
}

/// How many each node shall own: its share rounded down, and one more for those that save a move
/// by it, then for those whose share was cut most.
fn quotas(now: &[Option<NodeId>], weights: &Weights) -> BTreeMap<NodeId, u64> {
    let total: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
    if total == 0 {
        return BTreeMap::new();
    }
    let count = now.len() as u64;
    let held = |node: &NodeId| now.iter().flatten().filter(|owner| *owner == node).count() as u64;
    let mut quotas = BTreeMap::new();
    let mut cut = Vec::new();
    for (node, weight) in weights {
        let (floor, rest) =
            (count * u64::from(*weight) / total, count * u64::from(*weight) % total);
        quotas.insert(node.clone(), floor);
        if rest > 0 {
            let saves = held(node) > floor;
            cut.push((Reverse(saves), Reverse(rest), node.clone()));
        }
    }
    cut.sort_unstable();
    let left = count - quotas.values().sum::<u64>();
    for (_, _, node) in cut.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
        quotas.entry(node).and_modify(|quota| *quota += 1);
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    fn owners(text: &str) -> Vec<Option<NodeId>> {
        let owner = |c: char| (c != '-').then(|| NodeId::new(format!("{c}")));
        text.chars().map(owner).collect()
    }

    fn text(owners: &[Option<NodeId>]) -> String {
        let name = |it: &Option<NodeId>| it.as_ref().map_or("-", NodeId::as_str).chars().next();
        owners.iter().map(|it| name(it).unwrap_or('-')).collect()
    }

    fn weights(all: &[(&str, u32)]) -> Weights {
        all.iter().map(|(node, weight)| (NodeId::from(*node), *weight)).collect()
    }

    #[test]
    fn only_what_must_move_moves() {
        let even = weights(&[("a", 1), ("b", 1), ("c", 1)]);
        let done = |now: &str, weights: &Weights| text(&balance(&owners(now), weights));
        assert_eq!(done("------", &even), "aabbcc");
        assert_eq!(done("abcabc", &even), "abcabc");
        assert_eq!(done("abababab", &even), "abababcc", "c came");
        assert_eq!(done("a--a--b", &even), "aabaccb", "some died");
        let two = weights(&[("a", 2), ("b", 1)]);
        assert_eq!(done("bbbbbb", &two), "bbaaaa");
        assert_eq!(done("ab", &weights(&[])), "--");
    }

    /// Every assignment of up to 6 partitions to 3 nodes, under several weights.
    #[test]
    fn shares_are_right_and_no_plan_moves_less() {
        let names = ["a", "b", "c"];
        for weights in [[1, 1, 1], [2, 1, 1], [3, 1, 2], [1, 0, 1], [1, 1, 0], [5, 1, 1]] {
            let all: Weights = names
                .iter()
                .zip(weights)
                .filter(|(_, weight)| *weight > 0)
                .map(|(node, weight)| (NodeId::from(*node), weight))
                .collect();
            for count in 1..=6_u32 {
                let results: Vec<_> =
                    every(count).into_iter().filter(|it| fair(it, &all)).collect();
                for now in every(count) {
                    let now: Vec<_> =
                        now.into_iter().map(|it| it.filter(|it| all.contains_key(it))).collect();
                    let wanted = balance(&now, &all);
                    assert!(fair(&wanted, &all), "{now:?} to {wanted:?}");
                    let least = results.iter().map(|other| moved(&now, other)).min();
                    assert_eq!(Some(moved(&now, &wanted)), least, "{now:?} to {wanted:?}");
                    assert_eq!(balance(&wanted, &all), wanted, "it is at rest");
                }
            }
        }
    }

    fn every(count: u32) -> Vec<Vec<Option<NodeId>>> {
        let digit = |n: u32, at: u32| ["-", "a", "b", "c"][(n / 4_u32.pow(at) % 4) as usize];
        let one = |n: u32| owners(&(0..count).map(|at| digit(n, at)).collect::<String>());
        (0..4_u32.pow(count)).map(one).collect()
    }

    /// Everything owned, and each share rounded up or down.
    fn fair(owners: &[Option<NodeId>], weights: &Weights) -> bool {
        let total: u32 = weights.values().sum();
        let count = owners.len() as u32;
        owners.iter().all(|it| it.as_ref().is_some_and(|it| weights.contains_key(it)))
            && weights.iter().all(|(node, weight)| {
                let held = owners.iter().flatten().filter(|it| *it == node).count() as u32;
                let floor = count * weight / total;
                held == floor || held * total < count * weight + total && held > floor
            })
    }

    fn moved(now: &[Option<NodeId>], wanted: &[Option<NodeId>]) -> usize {
        now.iter().zip(wanted).filter(|(now, wanted)| now != wanted).count()
    }

    #[test]
    fn what_is_nobodys_goes_to_who_may_gain_and_nothing_else_moves() {
        let all = weights(&[("a", 1), ("b", 1), ("c", 2)]);
        let filled = |now: &str, gains: &str| {
            text(&fill(&owners(now), &all, |node| gains.contains(node.as_str())))
        };
        assert_eq!(filled("aaa-----", "abc"), "aaacbccb");
        assert_eq!(filled("aaa---", "b"), "aaabbb");
        assert_eq!(filled("aaa---", ""), "aaa---");
    }
}
