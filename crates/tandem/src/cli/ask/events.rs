//! Talks about what happened: the kept events of a node, and those to come.
//! `--follow` survives a restart of the node: it comes back with the last number it saw.
//! Tested by: `cli/tests/events.rs`.

use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::moment;
use crate::cli::terminal::Terminal;
use crate::telemetry::problem::Problem;
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// Between two attempts to reach a node that went away.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Show what happened, as the asked node saw it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem events
  tandem events --follow
  tandem events --json | jq 'select(.kind == \"failover.done\")'")]
pub struct Arguments {
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// Only events after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub since: u64,
    /// Only events about this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
}

/// Shows events.
///
/// # Errors
/// No node answers at first, or nobody reads.
pub async fn run(
    arguments: Arguments,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    if arguments.follow {
        return tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Ok(()),
            outcome = follow(&arguments, client, terminal) => outcome,
        };
    }
    let path = format!("/v1/events?since={}", arguments.since);
    for event in client.read::<Vec<Value>>(&path).await? {
        show(&event, &arguments, terminal)?;
    }
    Ok(())
}

async fn follow(
    arguments: &Arguments,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let mut seen = arguments.since;
    let mut stream = Some(client.follow(seen).await?);
    loop {
        let Some(open) = stream.as_mut() else {
            tokio::time::sleep(AGAIN_AFTER).await;
            stream = client.follow(seen).await.ok();
            continue;
        };
        match open.next().await {
            Ok(Some(event)) => {
                seen = event["seq"].as_u64().unwrap_or(seen);
                show(&event, arguments, terminal)?;
            }
            Ok(None) => stream = None,
            Err(problem) => {
                note_gap(&problem);
                stream = None;
            }
        }
    }
}

fn note_gap(problem: &Problem) {
    tracing::info!(because = problem.because, "the event stream broke off; coming back");
}

fn show(event: &Value, arguments: &Arguments, terminal: &mut Terminal) -> Result<(), Error> {
    let wanted = arguments.service.as_deref();
    if wanted.is_some() && event["service"].as_str() != wanted {
        return Ok(());
    }
    if terminal.wants_json() {
        terminal.json(event)?;
    } else {
        terminal.line(text(event))?;
    }
    Ok(())
}

/// One line for people. Read from JSON, not from our own type: a node of a later version may send
/// kinds that this one does not know.
fn text(event: &Value) -> String {
    let word = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
    let time = event["unix_ms"].as_u64().map_or_else(|| "-".to_owned(), moment::show);
    let mut line = format!("{time}  {}  {:<20}  ", word("node"), word("kind"));
    if let Some(service) = event["service"].as_str() {
        let _ = write!(line, "{service}");
        if let Some(term) = event["term"].as_u64() {
            let _ = write!(line, "/{term}");
        }
        line.push_str(": ");
    }
    line.push_str(event["message"].as_str().unwrap_or(""));
    if let Some(fields) = event["fields"].as_object() {
        for (name, value) in fields {
            match value.as_str() {
                Some(text) => {
                    let _ = write!(line, "  {name}={text}");
                }
                None => {
                    let _ = write!(line, "  {name}={value}");
                }
            }
        }
    }
    line
}
