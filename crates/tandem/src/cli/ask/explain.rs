//! Talks about why: a service's last plans and reasons, or what an error code means.
//! Tested by: `cli/tests/explain.rs`.

mod divided;

use crate::api::explain::{Explanation, FailoverNow, OnePartition, Placement, Planned, Reason};
use crate::api::status::Phase;
use crate::cli::Error;
use crate::cli::ask::status::{holder_word, size, waits};
use crate::cli::client::{Client, segment};
use crate::cli::moment;
use crate::cli::terminal::{Terminal, lines};
use crate::telemetry::codes;
use crate::telemetry::problem::{Code, Problem};
use clap::Args;
use comfy_table::Cell;
use serde_json::json;
use std::fmt::Write as _;
use tandem_core::pairing::Kind;
use tandem_core::reason::list;

/// Say why a service is as it is, whether a failover would be safe, or what an error code means
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem explain orders
  tandem explain work --partition 7
  tandem explain work --key shop-17
  tandem explain TDM0606")]
pub struct Arguments {
    /// A service, or a code such as TDM0104
    #[arg(value_name = "SERVICE|CODE")]
    pub subject: String,
    /// One partition of a service whose work is divided: who owns it, and what it waits for
    #[arg(long, value_name = "NUMBER", conflicts_with = "key")]
    pub partition: Option<u32>,
    /// The same for the partition that this key belongs to
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

/// Explains.
///
/// # Errors
/// There is no such service or code, no node answers, or nobody reads.
pub async fn run(
    arguments: Arguments,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let path = format!("/v1/explain/{}", segment(&arguments.subject));
    let of = match (arguments.partition, &arguments.key) {
        (Some(partition), _) => Some(format!("{path}?partition={partition}")),
        (None, Some(key)) => Some(format!("{path}?key={}", segment(key))),
        (None, None) => None,
    };
    if let Some(path) = of {
        let one = client.read::<OnePartition>(&path).await?;
        if terminal.wants_json() {
            terminal.json(&one)?;
        } else {
            terminal.line(divided::one(&one).trim_end())?;
        }
        return Ok(());
    }
    if let Ok(code) = arguments.subject.parse::<Code>() {
        return explain_code(code, terminal);
    }
    let explanation = client.read::<Explanation>(&path).await?;
    if terminal.wants_json() {
        terminal.json(&explanation)?;
    } else {
        let page = page(&explanation, terminal);
        terminal.line(page.trim_end())?;
    }
    Ok(())
}

fn explain_code(code: Code, terminal: &mut Terminal) -> Result<(), Error> {
    let Some(entry) = codes::entry(code) else {
        return Err(Error::Problem(Problem::new(
            codes::ARGUMENT,
            format!("cannot explain {code}"),
            "this version of tandem has no such code",
            "check its digits, or ask the version that printed it",
        )));
    };
    if terminal.wants_json() {
        let exit_status = entry.exit.status();
        terminal.json(&json!({ "code": code, "exit_status": exit_status, "page": entry.page }))?;
    } else {
        terminal.line(entry.page.trim_end())?;
    }
    Ok(())
}

fn page(of: &Explanation, terminal: &Terminal) -> String {
    let primary = of.primary.as_ref().map_or("none", |node| node.as_str());
    let kind = of.kind.unwrap_or(Kind::Postgres);
    let holder = holder_word(kind);
    let Explanation { service, term, phase, summary, .. } = of;
    // A command that serves without an active node has copies side by side.
    let are_copies = kind == Kind::Command && of.primary.is_none() && *phase == Phase::Active;
    let mut page = match are_copies {
        true => format!("{service}  round {term}  {phase}\n{summary}\n"),
        false => format!("{service}  term {term}  {phase}  {holder} {primary}\n{summary}\n"),
    };
    if let Some(scheduled) = &of.scheduled {
        let _ = writeln!(page, "{}", waits(scheduled));
    }
    if !of.no_failover_because.is_empty() {
        page.push_str("\nNo failover now, because:\n");
        for reason in &of.no_failover_because {
            let _ = writeln!(page, "  - {}", words(reason));
        }
    }
    // Where no instance is more than the others there is nothing to fail over.
    if of.primary.is_some() || !of.no_failover_because.is_empty() {
        page.push_str(&failover(&of.failover_now, terminal));
    }
    if !of.placements.is_empty() {
        page.push_str("\nPlaced:\n");
    }
    for Placement { nodes, reason, at_unix_ms } in &of.placements {
        let time = moment::show(*at_unix_ms);
        let _ = writeln!(page, "  {time}  {}: {reason}", list(nodes));
    }
    if !of.shares.is_empty() {
        page.push_str(&divided::shares(&of.shares, terminal));
    }
    page.push_str(&plans(&of.plans));
    if !of.history.is_empty() {
        let title = if kind == Kind::Command { "Where it ran" } else { "Primaries" };
        let _ = writeln!(page, "\n{title}:");
        for line in &of.history {
            let took = line.active_unix_ms.map(|active| active.saturating_sub(line.at_unix_ms));
            let took = took.map_or("never served".to_owned(), |ms| format!("served after {ms} ms"));
            let time = moment::show(line.at_unix_ms);
            let (term, primary, reason) = (line.term, &line.primary, &line.reason);
            let _ = writeln!(page, "  {time}  term {term}  {primary}  {took}: {reason}");
        }
    }
    page
}

fn plans(all: &[Planned]) -> String {
    let mut page = String::new();
    if !all.is_empty() {
        page.push_str("\nLast plans:\n");
    }
    for plan in all {
        let times = if plan.times > 1 { format!(" (x{})", plan.times) } else { String::new() };
        let (time, reason) = (moment::show(plan.unix_ms), words(&plan.reason));
        let _ = writeln!(page, "  {time}  {}  {}{times}: {reason}", plan.by, plan.plan);
    }
    page
}

fn failover(now: &FailoverNow, terminal: &Terminal) -> String {
    let mut page = format!("\nA failover now would be {}: {}\n", now.safety, words(&now.because));
    if let Some(node) = &now.would_choose {
        let _ = writeln!(page, "  it would choose {node}");
    }
    if let Some(bytes) = now.may_lose_bytes.filter(|bytes| *bytes > 0) {
        let _ = writeln!(page, "  it could lose up to {}", size(bytes));
    }
    if now.candidates.is_empty() {
        return page;
    }
    let mut table = terminal.table(&["  CANDIDATE", "ELIGIBLE", "LSN", "LAG", "BECAUSE"]);
    for candidate in &now.candidates {
        table.add_row([
            Cell::new(format!("  {}", candidate.node)),
            Cell::new(if candidate.eligible { "yes" } else { "no" }),
            Cell::new(candidate.lsn.map_or("-".to_owned(), |lsn| lsn.to_string())),
            Cell::new(candidate.lag_bytes.map_or("-".to_owned(), size)),
            Cell::new(&candidate.because),
        ]);
    }
    page.push_str(&lines(&table));
    page
}

fn words(reason: &Reason) -> String {
    let mut text = reason.text.clone();
    for (index, (name, value)) in reason.numbers.iter().enumerate() {
        let start = if index == 0 { " [" } else { ", " };
        let _ = write!(text, "{start}{name} {value}");
    }
    if !reason.numbers.is_empty() {
        text.push(']');
    }
    text
}
