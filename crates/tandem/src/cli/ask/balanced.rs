//! Talks about a service whose connections a node spreads over endpoints: a table for people.
//! Not here: what is in it (`api/balanced.rs`).
//! Tested by: `cli/tests/status.rs`.

use crate::api::balanced::{BalancedStatus, HttpStatus, UpstreamState, UpstreamStatus};
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
    if let Some(http) = &service.http {
        page.push_str(&requests(http));
    }
    for door in &service.doors {
        let _ = writeln!(page, "  connect through {}: {}", door.node, door.listen);
    }
    for warning in &service.warnings {
        let _ = writeln!(page, "  warning: {warning}");
    }
    page.push_str(&upstreams(&service.upstreams, terminal));
    page
}

fn requests(http: &HttpStatus) -> String {
    let mut line = format!("  {} requests", http.requests_total);
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(http.responses_total);
    let rest = [
        ("retried", http.retried_total),
        ("not retried: budget used up", http.over_budget_total),
        ("refused", http.refused_total),
        ("waited in vain", http.expired_total),
        ("not answered in time", http.timed_out_total),
        ("broken off", http.broken_total),
        ("left", http.abandoned_total),
        ("upgraded", http.upgraded_total),
    ];
    for (word, count) in classes.chain(rest).filter(|(_, count)| *count > 0) {
        let _ = write!(line, ", {count} {word}");
    }
    line.push('\n');
    line
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
