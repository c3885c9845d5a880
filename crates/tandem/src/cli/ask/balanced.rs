//! Talks about a service whose connections a node spreads over endpoints: a table for people.
//! Not here: what is in it (`api/balanced.rs`).
//! Tested by: `cli/tests/status.rs`.

use crate::api::balanced::{
    BalancedStatus, HeldStatus, HttpStatus, OwnersStatus, QuantilesStatus, STATUS_CLASSES,
    UpstreamState, UpstreamStatus,
};
use crate::cli::terminal::{Mood, Terminal, lines};
use comfy_table::Cell;
use std::fmt::Write as _;

/// Of so many partitions it is said what waits.
const HELD_MAX: usize = 8;

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
    let limited = [
        (service.limited_client_total, "of clients over their rate"),
        (service.limited_service_total, "over the rate of all"),
    ];
    for (count, whose) in limited.into_iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(page, "  {count} refused {whose}");
    }
    if let Some(http) = &service.http {
        page.push_str(&requests(http));
    }
    if let Some(OwnersStatus { partitions, routed, held, misdirected_total }) = &service.owners {
        let _ = write!(page, "  {routed} of {partitions} partitions lead to their owner");
        for HeldStatus { partition, held } in held.iter().take(HELD_MAX) {
            let _ = write!(page, ", {held} wait for {partition}");
        }
        let _ = writeln!(page, ", {misdirected_total} turned away");
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
    let classes = STATUS_CLASSES.into_iter().zip(http.responses_total);
    let rest = [
        ("retried", http.retried_total),
        ("not retried: budget used up", http.over_budget_total),
        ("refused", http.refused_total),
        ("waited in vain", http.expired_total),
        ("not answered in time", http.timed_out_total),
        ("broken off", http.broken_total),
        ("left", http.abandoned_total),
        ("upgraded", http.upgraded_total),
        ("floods cut", http.floods_total),
    ];
    for (word, count) in classes.chain(rest).filter(|(_, count)| *count > 0) {
        let _ = write!(line, ", {count} {word}");
    }
    line.push('\n');
    line
}

/// A table of endpoints.
pub(super) fn upstreams(upstreams: &[UpstreamStatus], terminal: &Terminal) -> String {
    let header = [
        "UPSTREAM",
        "STATE",
        "WEIGHT",
        "SHARE",
        "OPEN",
        "RATE",
        "P50/P90/P99",
        "TOTAL",
        "FAILED",
        "RETRIED",
        "EJECTED",
        "REASON",
    ];
    let mut table = terminal.table(&header);
    for it in upstreams {
        let took =
            it.quantiles.map_or("-".to_owned(), |QuantilesStatus { p50_ms, p90_ms, p99_ms }| {
                format!("{p50_ms:.1} / {p90_ms:.1} / {p99_ms:.1} ms")
            });
        table.add_row([
            Cell::new(place(it)),
            Terminal::cell(it.state, mood(it.state)),
            Cell::new(it.weight),
            Cell::new(format!("{} %", it.share_percent)),
            Cell::new(it.in_flight),
            Cell::new(format!("{:.1}/s", it.rate_per_s)),
            Cell::new(took),
            Cell::new(it.sessions_total),
            Cell::new(it.failed_total),
            Cell::new(it.retried_total),
            Cell::new(it.ejected_total),
            Cell::new(it.reason.as_deref().unwrap_or("")),
        ]);
    }
    lines(&table)
}

/// Its address, and what else is to be known of where it stands.
fn place(it: &UpstreamStatus) -> String {
    let name = it.name.as_deref().map(|name| name.rsplit_once(':').map_or(name, |(host, _)| host));
    let marks: Vec<&str> = name.into_iter().chain(it.far.then_some("far")).collect();
    if marks.is_empty() {
        it.address.clone()
    } else {
        format!("{} ({})", it.address, marks.join(", "))
    }
}

const fn mood(state: UpstreamState) -> Mood {
    match state {
        UpstreamState::Up => Mood::Good,
        UpstreamState::Down | UpstreamState::Ejected => Mood::Bad,
        UpstreamState::Starting
        | UpstreamState::Draining
        | UpstreamState::Removed
        | UpstreamState::Unchecked
        | UpstreamState::Unknown => Mood::Odd,
    }
}
