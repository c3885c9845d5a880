//! Talks about a service whose connections a node spreads over endpoints: a table for people.
//! Not here: what is in it (`api/balanced.rs`).
//! Tested by: `cli/tests/status.rs`.

use crate::api::balanced::{BalancedStatus, UpstreamState, UpstreamStatus};
use crate::cli::terminal::{Mood, Terminal, lines};
use comfy_table::Cell;
use std::fmt::Write as _;

/// One service.
pub fn page(service: &BalancedStatus, terminal: &Terminal) -> String {
    let mut page = format!(
        "{}  {} {} {}  by {}  at {}: {} open, {} held, {} so far, {} retried\n",
        service.name,
        service.kind,
        service.clustering,
        service.replication,
        service.balance,
        service.node,
        service.sessions,
        service.held,
        service.sessions_total,
        service.retried_total,
    );
    for door in &service.doors {
        let _ = writeln!(page, "  connect through {}: {}", door.node, door.listen);
    }
    for warning in &service.warnings {
        let _ = writeln!(page, "  warning: {warning}");
    }
    page.push_str(&upstreams(&service.upstreams, terminal));
    page
}

fn upstreams(upstreams: &[UpstreamStatus], terminal: &Terminal) -> String {
    let header = [
        "UPSTREAM", "STATE", "WEIGHT", "SHARE", "OPEN", "TOTAL", "FAILED", "EJECTED", "CONNECT",
        "REASON",
    ];
    let mut table = terminal.table(&header);
    for it in upstreams {
        let zone = if it.far { " (far)" } else { "" };
        let latency = it.latency_ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        table.add_row([
            Cell::new(format!("{}{zone}", it.address)),
            Terminal::cell(it.state, mood(it.state)),
            Cell::new(it.weight),
            Cell::new(format!("{} %", it.share_percent)),
            Cell::new(it.in_flight),
            Cell::new(it.sessions_total),
            Cell::new(it.failed_total),
            Cell::new(it.ejected_total),
            Cell::new(latency),
            Cell::new(it.reason.as_deref().unwrap_or("")),
        ]);
    }
    lines(&table)
}

const fn mood(state: UpstreamState) -> Mood {
    match state {
        UpstreamState::Up => Mood::Good,
        UpstreamState::Down | UpstreamState::Ejected => Mood::Bad,
        UpstreamState::Starting
        | UpstreamState::Draining
        | UpstreamState::Unchecked
        | UpstreamState::Unknown => Mood::Odd,
    }
}
