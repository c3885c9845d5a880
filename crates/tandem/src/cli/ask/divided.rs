//! Talks about a service whose work is divided: who owns which partitions.
//! Not here: what is in it (`api/status.rs`), services of other kinds (`status.rs`).
//! Tested by: `tests/partitions`.

use super::status::mood;
use crate::api::status::{NodePartitions, PartitionsStatus, ServiceStatus};
use crate::cli::terminal::{Terminal, lines};
use comfy_table::Cell;
use std::fmt::Write as _;
use tandem_core::cluster::ranges::ranges;
use tandem_core::ids::PartitionId;

/// More in one cell help nobody: `tandem explain NAME --partition 7` asks for one.
const RANGES_MAX: usize = 6;

pub(super) fn page(
    service: &ServiceStatus,
    partitions: &PartitionsStatus,
    terminal: &Terminal,
) -> String {
    let ServiceStatus { name, kind, clustering, replication, .. } = service;
    let PartitionsStatus { count, owned, nodes, .. } = partitions;
    let paused = if service.paused { " (paused: none moves)" } else { "" };
    let mut page = format!(
        "{name}  {kind} {clustering} {replication}  {owned} of {count} partitions are \
         owned{paused}\n"
    );
    for warning in &service.warnings {
        let _ = writeln!(page, "  warning: {warning}");
    }
    let mut table = terminal.table(&["COPY", "STATE", "OWNS", "TO RELEASE", "ADDRESS", "REASON"]);
    for instance in &service.instances {
        let own = nodes.iter().find(|it| it.node == instance.node);
        let some = |of: fn(&NodePartitions) -> (u32, &[PartitionId])| {
            own.map_or_else(|| "-".to_owned(), |own| which(of(own)))
        };
        table.add_row([
            Cell::new(&instance.node),
            Terminal::cell(instance.state, mood(instance.state, service.phase)),
            Cell::new(some(|own| (own.owned, &own.owned_ids))),
            Cell::new(some(|own| (own.releasing, &own.releasing_ids))),
            Cell::new(&instance.address),
            Cell::new(instance.reason.as_deref().unwrap_or("")),
        ]);
    }
    page.push_str(&lines(&table));
    page
}

/// How many, and which.
fn which((count, ids): (u32, &[PartitionId])) -> String {
    match ids {
        [] => count.to_string(),
        ids => format!("{count} ({})", ranges(ids.iter().copied(), RANGES_MAX)),
    }
}
