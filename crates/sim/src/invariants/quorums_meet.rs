//! Checks INV-4: every set that can acknowledge a commit meets every set that can elect, with the
//! rules by which the walsenders really work.

use crate::postgres::server::Mode;
use crate::world::{World, name};
use std::collections::BTreeSet;
use tandem_core::ids::NodeId;
use tandem_core::replication::primary_replica::sync_quorum::elects;

/// Looks at every instance that takes writes.
pub fn check(world: &mut World) {
    for n in 0..world.nodes.len() {
        if world.is_given_up(n) {
            continue;
        }
        let acks = acks_needed(world, n);
        for (among, acks) in acks {
            if acks == 0 && world.record.async_bound.is_some() {
                // In `Async` mode the lease keeps them apart.
                continue;
            }
            if let Some(set) = escapes(world, n, &among, acks) {
                let rules = rules_text(world);
                world.violate(format!(
                    "INV-4: {} can acknowledge with {set:?}, which the election \
                     under {rules} need not meet",
                    name(n)
                ));
            }
        }
    }
}

fn rules_text(world: &World) -> String {
    let service = world.raft.last().services.get(&world.service);
    let rules = service
        .and_then(|s| s.appointment.as_ref())
        .map(|a| a.rules.iter().map(|rule| format!("[{rule}]")).collect::<Vec<_>>().join(" "));
    rules.unwrap_or_default()
}

/// By whom and how many a commit can be confirmed: for each walsender by its own copy of the rule,
/// and by the file for whoever connects next.
fn acks_needed(world: &World, n: usize) -> Vec<(BTreeSet<usize>, usize)> {
    let node = &world.nodes[n];
    let Some(server) = node.server.as_ref().filter(|server| server.mode == Mode::Primary) else {
        return Vec::new();
    };
    if !server.must_wait {
        return vec![(BTreeSet::new(), 0)];
    }
    let listed: BTreeSet<usize> = world.listed(n).map(|(peer, _)| peer).collect();
    let mut all = Vec::new();
    for (peer, sender) in &server.senders {
        if let Some(rule) = sender.rule.as_ref().filter(|_| listed.contains(peer)) {
            all.push((listed.clone(), rule.acks));
        }
    }
    all
}

/// A set that acknowledges although everyone else could elect.
fn escapes(
    world: &World,
    n: usize,
    among: &BTreeSet<usize>,
    acks: usize,
) -> Option<BTreeSet<NodeId>> {
    let state = world.raft.last().services.get(&world.service)?;
    let appointment = state.appointment.as_ref()?;
    // Those that are bound to a later term confirm nothing that was not decided before.
    let term = world.nodes[n].disk.state.promoted;
    let able: Vec<usize> = among
        .iter()
        .copied()
        .filter(|peer| world.nodes[*peer].disk.state.promised <= term)
        .collect();
    for bits in 0_u32..1 << able.len() {
        if bits.count_ones() as usize != acks {
            continue;
        }
        let mut set: BTreeSet<usize> =
            able.iter().enumerate().filter(|(i, _)| bits & 1 << i != 0).map(|(_, p)| *p).collect();
        set.insert(n);
        let others: BTreeSet<NodeId> = (0..world.nodes.len())
            .filter(|peer| !set.contains(peer) && !world.nodes[*peer].witness)
            .map(|peer| world.nodes[peer].id.clone())
            .collect();
        if elects(&appointment.rules, &others) {
            return Some(set.into_iter().map(|peer| world.nodes[peer].id.clone()).collect());
        }
    }
    None
}
