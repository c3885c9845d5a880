//! Talks about commands whose work is divided: who owns what, what is on its way, and why.
//! In: `ServiceSeen`. Out: parts of `Status` and `Explanation`.
//! Keeps: INV-13, what is said here decides nothing.
//! Not here: the copies themselves (`mod.rs`).
//! Tested by: `tests/partitions`.

use super::super::seen::ServiceSeen;
use crate::api::status::{NodePartitions, PartitionsStatus};
use tandem_core::clustering::active_active::controller::is_lost;
use tandem_core::ids::NodeId;

pub(in crate::node::operations) fn is_divided(service: ServiceSeen<'_>) -> bool {
    service.spec.partitions.is_some()
}

/// Who owns how many, and how many are on their way.
pub(in crate::node::operations) fn status(service: ServiceSeen<'_>) -> Option<PartitionsStatus> {
    let table = service.state.partitions.as_ref()?;
    let view = service.view();
    let nodes = service.seen.agreed.spec.data_nodes();
    let mut nodes: Vec<NodePartitions> =
        nodes.map(|node| NodePartitions { node: node.clone(), owned: 0, releasing: 0 }).collect();
    let mut owned = 0;
    for (_, it) in table.iter() {
        let Some(owner) = it.owner.as_ref().filter(|owner| !is_lost(&view, owner)) else {
            continue;
        };
        owned += 1;
        if let Some(node) = nodes.iter_mut().find(|node| node.node == owner.node) {
            node.owned += 1;
            node.releasing += u32::from(it.releasing.is_some());
        }
    }
    Some(PartitionsStatus { count: table.count(), owned, nodes })
}

/// How many a node owns.
pub(in crate::node::operations) fn owns(service: ServiceSeen<'_>, node: &NodeId) -> u32 {
    let nodes = status(service).map(|status| status.nodes).unwrap_or_default();
    nodes.iter().find(|it| it.node == *node).map_or(0, |it| it.owned)
}

/// What a human should know.
pub(in crate::node::operations) fn warnings(service: ServiceSeen<'_>) -> Vec<String> {
    let Some(PartitionsStatus { count, owned, nodes }) = status(service) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    if owned < count {
        let lost = count - owned;
        warnings.push(format!("nobody works on {lost} of {count} partitions: tandem explain"));
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
    let PartitionsStatus { count, owned, nodes } = status(service)?;
    let each = |it: &NodePartitions| match it.releasing {
        0 => format!("{} {}", it.node, it.owned),
        releasing => format!("{} {} ({releasing} to be released)", it.node, it.owned),
    };
    let nodes: Vec<String> = nodes.iter().map(each).collect();
    Some(format!("{owned} of {count} partitions are owned: {}", nodes.join(", ")))
}
