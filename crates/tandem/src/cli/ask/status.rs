//! Talks about the state of the cluster: a table for people, the documented JSON for programs.
//! Not here: what is in it (`api/status.rs`).
//! Tested by: `cli/tests/status.rs`.

use super::{balanced, divided};
use crate::api::status::{
    CopiesStatus, InstanceState, InstanceStatus, NodeState, NodeStatus, Phase, ScheduledSwitchover,
    ServiceStatus, Status,
};
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::moment;
use crate::cli::terminal::{Mood, Terminal, lines};
use crate::telemetry::problem::Problem;
use clap::Args;
use comfy_table::Cell;
use std::fmt::Write as _;
use std::time::Duration;
use tandem_core::pairing::Kind;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

/// Show nodes, services and their instances
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem status
  tandem status --watch
  tandem status --json | jq '.services[].primary'")]
pub struct Arguments {
    /// Show it again every second, in place on a terminal, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// Shows the status.
///
/// # Errors
/// No node answers, or nobody reads.
pub async fn run(
    arguments: Arguments,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    if !arguments.watch {
        let status = client.read::<Status>("/v1/status").await?;
        return show(&status, terminal);
    }
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            biased;
            _ = &mut interrupted => return Ok(()),
            _ = ticks.tick() => {}
        }
        tokio::select! {
            biased;
            _ = &mut interrupted => return Ok(()),
            seen = client.read::<Status>("/v1/status") => look(seen, terminal)?,
        }
    }
}

/// One look of `--watch`: a node that does not answer may answer the next time.
fn look(seen: Result<Status, Problem>, terminal: &mut Terminal) -> Result<(), Error> {
    match seen {
        Ok(status) if terminal.wants_json() => terminal.json(&status)?,
        Ok(status) => terminal.redraw(&page(&status, terminal))?,
        Err(problem) if terminal.wants_json() => terminal.json(&problem)?,
        Err(problem) => terminal.redraw(&format!("{}: {}", problem.what, problem.because))?,
    }
    Ok(())
}

fn show(status: &Status, terminal: &mut Terminal) -> Result<(), Error> {
    if terminal.wants_json() {
        terminal.json(status)?;
    } else {
        let page = page(status, terminal);
        terminal.line(page.trim_end())?;
    }
    Ok(())
}

/// The whole page for people.
pub fn page(status: &Status, terminal: &Terminal) -> String {
    let leader = status.leader.as_ref().map_or("nobody", |node| node.as_str());
    let mut page =
        format!("cluster {}  config {}  leader {leader}\n", status.cluster, status.config_version);
    for wait in &status.waits {
        let _ = writeln!(page, "  warning: not in force on this node: {wait}");
    }
    page.push('\n');
    page.push_str(&nodes(&status.nodes, terminal));
    for service in &status.services {
        page.push('\n');
        page.push_str(&service_page(service, terminal));
    }
    for service in &status.balanced {
        page.push('\n');
        page.push_str(&balanced::page(service, terminal));
    }
    page
}

fn nodes(nodes: &[NodeStatus], terminal: &Terminal) -> String {
    let mut table = terminal.table(&["NODE", "ADDRESS", "ROLE", "ZONE", "STATE"]);
    for node in nodes {
        let mood = match node.state {
            NodeState::Up => Mood::Good,
            NodeState::Draining | NodeState::Joining | NodeState::Unknown => Mood::Odd,
            NodeState::Silent | NodeState::Down => Mood::Bad,
        };
        table.add_row([
            Cell::new(&node.name),
            Cell::new(&node.address),
            Cell::new(node.role),
            Cell::new(node.zone.as_deref().unwrap_or("-")),
            Terminal::cell(node.state, mood),
        ]);
    }
    lines(&table)
}

fn service_page(service: &ServiceStatus, terminal: &Terminal) -> String {
    if let Some(partitions) = &service.partitions {
        return divided::page(service, partitions, terminal);
    }
    if let Some(copies) = &service.copies {
        return copies_page(service, copies, terminal);
    }
    let mut page = format!(
        "{}  {} {} {}  durability {}  term {}  {}{}  {} {}\n",
        service.name,
        service.kind,
        service.clustering,
        service.replication,
        service.durability,
        service.term,
        service.phase,
        if service.paused { " (paused: no automatic failover)" } else { "" },
        holder_word(service.kind),
        service.primary.as_ref().map_or("none", |node| node.as_str()),
    );
    for endpoint in &service.endpoints {
        let _ = write!(page, "  connect through {}: {}", endpoint.node, endpoint.listen);
        if let Some(reads) = &endpoint.read_listen {
            let _ = write!(page, " (reads: {reads})");
        }
        page.push('\n');
    }
    if let Some(scheduled) = &service.scheduled {
        let _ = writeln!(page, "  {}", waits(scheduled));
    }
    for warning in &service.warnings {
        let _ = writeln!(page, "  warning: {warning}");
    }
    page.push_str(&instances(service, terminal));
    if !service.readers.is_empty() {
        page.push_str("  reads, as this node's door spreads them\n");
        page.push_str(&balanced::upstreams(&service.readers, terminal));
    }
    page
}

/// Where no instance is more than the others; its door is shown with its endpoints.
fn copies_page(service: &ServiceStatus, copies: &CopiesStatus, terminal: &Terminal) -> String {
    let ServiceStatus { name, kind, clustering, replication, term, .. } = service;
    let (serving, wanted) = (copies.serving, copies.wanted);
    let paused = if service.paused { " (paused: none is placed anew)" } else { "" };
    let mut page = format!(
        "{name}  {kind} {clustering} {replication}  {serving} of {wanted} copies serve  round \
         {term}{paused}\n"
    );
    if let Some(turn) = &copies.turn {
        let _ = writeln!(page, "  starts anew now, one at a time: {turn}");
    }
    for warning in &service.warnings {
        let _ = writeln!(page, "  warning: {warning}");
    }
    let mut table = terminal.table(&["COPY", "STATE", "ADDRESS", "REASON"]);
    for instance in &service.instances {
        table.add_row([
            Cell::new(&instance.node),
            Terminal::cell(instance.state, mood(instance.state, service.phase)),
            Cell::new(&instance.address),
            Cell::new(instance.reason.as_deref().unwrap_or("")),
        ]);
    }
    page.push_str(&lines(&table));
    page
}

/// A switchover that waits, in one line.
pub fn waits(scheduled: &ScheduledSwitchover) -> String {
    let ScheduledSwitchover { to, at_unix_ms, kept_by } = scheduled;
    let to = to.as_ref().map_or("the best standby", |node| node.as_str());
    format!("switchover to {to} at {} (kept by {kept_by})", moment::show(*at_unix_ms))
}

fn instances(service: &ServiceStatus, terminal: &Terminal) -> String {
    let header = ["INSTANCE", "ROLE", "STATE", "TL", "LSN", "LAG", "SYNC", "ADDRESS", "REASON"];
    let mut table = terminal.table(&header);
    for instance in &service.instances {
        table.add_row([
            Cell::new(&instance.node),
            Cell::new(instance.role),
            Terminal::cell(instance.state, mood(instance.state, service.phase)),
            Cell::new(instance.timeline.map_or("-".to_owned(), |timeline| timeline.to_string())),
            Cell::new(instance.lsn.map_or("-".to_owned(), |lsn| lsn.to_string())),
            Cell::new(lag(instance)),
            Cell::new(sync(instance)),
            Cell::new(&instance.address),
            Cell::new(instance.reason.as_deref().unwrap_or("")),
        ]);
    }
    lines(&table)
}

/// What the node is called that serves.
pub(super) const fn holder_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Command => "active",
        Kind::Postgres | Kind::Http | Kind::Tcp => "primary",
    }
}

/// Whether commits rest on it, and whether it can bear that.
const fn sync(instance: &InstanceStatus) -> &'static str {
    match (instance.in_commit_quorum, instance.state) {
        (_, _) if instance.awaited => "no (writes wait for it)",
        (true, InstanceState::Running | InstanceState::Streaming) => "yes",
        (true, _) => "no",
        (false, _) => "-",
    }
}

pub(super) const fn mood(state: InstanceState, phase: Phase) -> Mood {
    match state {
        InstanceState::Running | InstanceState::Streaming => match phase {
            Phase::Active => Mood::Good,
            Phase::Founding
            | Phase::Appointed
            | Phase::Switchover
            | Phase::Electing
            | Phase::Unknown => Mood::Odd,
        },
        InstanceState::Absent => Mood::Plain,
        InstanceState::Hung
        | InstanceState::Quarantined
        | InstanceState::Suspect
        | InstanceState::CrashLoop
        | InstanceState::Stopped => Mood::Bad,
        InstanceState::Disconnected
        | InstanceState::Starting
        | InstanceState::Promoting
        | InstanceState::Stopping
        | InstanceState::Draining
        | InstanceState::Promised
        | InstanceState::Rewinding
        | InstanceState::Cloning
        | InstanceState::Unknown => Mood::Odd,
    }
}

fn lag(instance: &InstanceStatus) -> String {
    match (instance.lag_bytes, instance.lag_s) {
        (None, None) => "-".to_owned(),
        (Some(bytes), None) => size(bytes),
        (None, Some(seconds)) => format!("{seconds:.1} s"),
        (Some(bytes), Some(seconds)) => format!("{} / {seconds:.1} s", size(bytes)),
    }
}

/// Bytes for people; units are powers of 1024, as PostgreSQL writes them.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64 / 1024.0;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS.get(unit).unwrap_or(&"TB"))
}
