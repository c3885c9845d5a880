//! Talks about commands whose work is divided: who owns what, what is on its way, and why.
//! In: `ServiceSeen`. Out: parts of `Status`, `Explanation` and `MetricsSnapshot`.
//! Keeps: INV-13, what is said here decides nothing.
//! Not here: the copies themselves (`mod.rs`), what changed (`rounds.rs`), one partition
//! (`partition.rs`).
//! Tested by: `tests/divided.rs`, `tests/partitions`.

use super::super::seen::ServiceSeen;
use super::rounds::Rounds;
use crate::api::explain::ShareNow;
use crate::api::metrics::{PartitionMetrics, PartitionsOfNode};
use crate::api::status::{NodePartitions, PartitionsStatus};
use tandem_core::cluster::ranges::ranges;
use tandem_core::clustering::active_active::standing::{self, Shares};
use tandem_core::ids::NodeId;

/// So many ranges of partitions are named in a sentence.
const NAMED_MAX: usize = 8;

pub(in crate::node::operations) fn is_divided(service: ServiceSeen<'_>) -> bool {
    service.spec.partitions.is_some()
}

fn shares(service: ServiceSeen<'_>) -> Option<Shares> {
    standing::shares(&service.view(), service.seen.now)
}

pub(super) fn count(service: ServiceSeen<'_>) -> Option<u32> {
    service.state.partitions.as_ref().map(|table| table.count())
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Who owns what, and what is on its way.
pub(in crate::node::operations) fn status(service: ServiceSeen<'_>) -> Option<PartitionsStatus> {
    let (count, shares) = (count(service)?, shares(service)?);
    let nodes = shares.nodes.into_iter().map(|(node, it)| NodePartitions {
        node,
        owned: number(it.owned.len()),
        releasing: number(it.releasing.len()),
        wanted: it.wanted,
        owned_ids: it.owned,
        releasing_ids: it.releasing,
    });
    let owned = count.saturating_sub(number(shares.unowned.len()));
    Some(PartitionsStatus { count, owned, unowned_ids: shares.unowned, nodes: nodes.collect() })
}

/// How many a node owns.
pub(in crate::node::operations) fn owns(service: ServiceSeen<'_>, node: &NodeId) -> u32 {
    let share = shares(service).and_then(|mut shares| shares.nodes.remove(node));
    share.map_or(0, |share| number(share.owned.len()))
}

/// What a human should know.
pub(in crate::node::operations) fn warnings(service: ServiceSeen<'_>) -> Vec<String> {
    let Some(PartitionsStatus { count, unowned_ids, nodes, .. }) = status(service) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    if !unowned_ids.is_empty() {
        let (lost, named) = (unowned_ids.len(), ranges(unowned_ids, NAMED_MAX));
        let name = service.name;
        warnings.push(format!(
            "nobody works on {lost} of {count} partitions ({named}): tandem explain {name}"
        ));
    }
    let silent = |it: &&NodePartitions| it.owned > 0 && service.instance(&it.node).is_none();
    for it in nodes.iter().filter(silent) {
        let (node, owned) = (&it.node, it.owned);
        warnings.push(format!("{node} owns {owned} partitions and is not heard"));
    }
    for it in &nodes {
        if service.instance(&it.node).is_some_and(|own| own.hook_failed) {
            warnings.push(format!("{}: on_partitions failed last time: tandem events", it.node));
        }
    }
    warnings
}

/// Who owns how many, in words.
pub(in crate::node::operations) fn summary(service: ServiceSeen<'_>) -> Option<String> {
    let PartitionsStatus { count, owned, nodes, .. } = status(service)?;
    let each = |it: &NodePartitions| match it.releasing {
        0 => format!("{} {}", it.node, it.owned),
        releasing => format!("{} {} ({releasing} to be released)", it.node, it.owned),
    };
    let nodes: Vec<String> = nodes.iter().map(each).collect();
    Some(format!("{owned} of {count} partitions are owned: {}", nodes.join(", ")))
}

/// What each node has of it, and whether it may have more.
pub(in crate::node::operations) fn shares_now(service: ServiceSeen<'_>) -> Vec<ShareNow> {
    let nodes = shares(service).unwrap_or_default().nodes.into_iter();
    let share = |(node, it): (NodeId, standing::Share)| ShareNow {
        node,
        owned: number(it.owned.len()),
        releasing: number(it.releasing.len()),
        wanted: it.wanted,
        gains: it.gains,
        because: it.why,
    };
    nodes.map(share).collect()
}

/// The same in numbers; how often the own copy was ended for it is known to the caller.
pub(in crate::node::operations) fn metrics(
    service: ServiceSeen<'_>,
    rounds: &Rounds,
    overdue_total: Option<u64>,
) -> Option<PartitionMetrics> {
    let (table, shares) = (service.state.partitions.as_ref()?, shares(service)?);
    let long = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let of = |(node, it): (NodeId, standing::Share)| PartitionsOfNode {
        owned: long(it.owned.len()),
        releasing: long(it.releasing.len()),
        wanted: it.wanted.into(),
        moves: rounds.moves(service.name, &node),
        node,
    };
    Some(PartitionMetrics {
        count: table.count().into(),
        unowned: long(shares.unowned.len()),
        epochs: table.iter().map(|(_, it)| it.epoch.0).sum(),
        overdue_total,
        nodes: shares.nodes.into_iter().map(of).collect(),
    })
}
