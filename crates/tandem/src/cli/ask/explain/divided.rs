//! Talks about divided work: what each node has of it, and why one partition is where it is.
//! Not here: what is in it (`api/explain/divided.rs`), services of other kinds (`explain.rs`).
//! Tested by: `cli/tests/explain.rs`.

use super::{plans, words};
use crate::api::explain::{OnePartition, PartitionState, ShareNow};
use crate::cli::terminal::{Terminal, lines};
use comfy_table::Cell;
use std::fmt::Write as _;

pub(super) fn shares(all: &[ShareNow], terminal: &Terminal) -> String {
    let mut table =
        terminal.table(&["  COPY", "OWNS", "TO RELEASE", "SHALL OWN", "GETS MORE", "BECAUSE"]);
    for it in all {
        table.add_row([
            Cell::new(format!("  {}", it.node)),
            Cell::new(it.owned),
            Cell::new(it.releasing),
            Cell::new(it.wanted),
            Cell::new(if it.gains { "yes" } else { "no" }),
            Cell::new(&it.because),
        ]);
    }
    format!("\nWho may own what:\n{}", lines(&table))
}

pub(super) fn one(of: &OnePartition) -> String {
    let mut page = String::new();
    let OnePartition { service, partition, count, epoch, state, because, .. } = of;
    if let (Some(key), Some(hash)) = (&of.key, &of.hash) {
        let _ = writeln!(page, "key {key:?} has the hash {hash}: partition {partition} of {count}");
    }
    let _ = write!(page, "{service}  partition {partition} of {count}  epoch {epoch}  {state}");
    match (&of.owner, of.state) {
        (Some(owner), PartitionState::Lost) => {
            let _ = write!(page, "  was owned by {owner}");
        }
        (Some(owner), _) => {
            let _ = write!(page, "  owner {owner}");
        }
        (None, _) => page.push_str("  owner none"),
    }
    if let Some(to) = &of.to {
        let _ = write!(page, "  to {to}");
    }
    let _ = writeln!(page, "\n{}", words(because));
    if let Some(ms) = of.releasing_ms {
        let max = of.release_max_ms;
        let _ = writeln!(page, "  seen releasing for {ms} ms; past {max} ms its copy is ended");
    }
    if let Some(node) = &of.waits_for {
        let _ = writeln!(page, "  waits for {node}");
    }
    if let Some(route) = &of.route {
        let _ = writeln!(page, "  {route}");
    }
    page.push_str(&plans(&of.plans));
    page
}
