//! Talks about what is wrong or soon will be: on a running node, or on a machine before there is
//! one.
//! Tested by: `cli/tests/doctor.rs`.

use crate::api::explain::{Finding, Severity};
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::entry::Entry;
use crate::cli::terminal::{Mood, Terminal, lines};
use crate::telemetry::codes;
use clap::Args;
use comfy_table::Cell;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Check a running node, or this machine before there is one
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  tandem doctor
  tandem doctor --before --config tandem.toml --node a
  tandem doctor --before --config tandem.toml --dir /var/lib/tandem")]
pub struct Arguments {
    /// Check this machine only, without asking a node
    #[arg(long)]
    pub before: bool,
    /// The configuration to check this machine for
    #[arg(long, value_name = "FILE", requires = "before")]
    pub config: Option<PathBuf>,
    /// The folder a node would use
    #[arg(long, value_name = "DIR", requires = "before")]
    pub dir: Option<PathBuf>,
    /// Which node of the configuration; left out, the one that the folder belongs to
    #[arg(long, value_name = "NODE", requires = "before")]
    pub node: Option<String>,
}

/// Shows what was found.
///
/// # Errors
/// Something is bad, no node answers, or nobody reads.
pub async fn run(
    arguments: Arguments,
    client: &Client,
    terminal: &mut Terminal,
    entry: &dyn Entry,
) -> Result<(), Error> {
    let findings = if arguments.before {
        entry.doctor(arguments).await?
    } else {
        match client.read::<Vec<Finding>>("/v1/doctor").await {
            Err(mut problem) if problem.code == codes::API_UNREACHABLE => {
                problem.try_ = format!("{}; or tandem doctor --before", problem.try_);
                return Err(problem.into());
            }
            other => other?,
        }
    };
    show(&findings, terminal)?;
    if findings.iter().any(|finding| finding.severity == Severity::Bad) {
        return Err(Error::Unsuccessful);
    }
    Ok(())
}

fn show(findings: &[Finding], terminal: &mut Terminal) -> Result<(), Error> {
    if terminal.wants_json() {
        terminal.json(&findings)?;
        return Ok(());
    }
    let mut table = terminal.table(&["", "SUBJECT", "FOUND"]);
    for finding in findings {
        let mood = match finding.severity {
            Severity::Good => Mood::Good,
            Severity::Warning | Severity::Unknown => Mood::Odd,
            Severity::Bad => Mood::Bad,
        };
        let mut found = finding.what.clone();
        if let Some(because) = &finding.because {
            let _ = write!(found, "\nbecause: {because}");
        }
        if let Some(try_) = &finding.try_ {
            let _ = write!(found, "\ntry: {try_}");
        }
        let severity = Terminal::cell(finding.severity, mood);
        table.add_row([severity, Cell::new(&finding.subject), Cell::new(found)]);
    }
    terminal.line(lines(&table).trim_end())?;
    Ok(())
}
