//! Talks to a node to move a primary, planned: both are alive, nothing is lost.

use crate::api::verbs::{NothingMore, SwitchoverRequest};
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::moment::Moment;
use crate::cli::operate::{OfService, Verb};
use crate::cli::terminal::Terminal;
use crate::runtime::clock;
use clap::Args;
use hyper::Method;

/// Move the primary to another node, now or later, without losing anything
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem switchover orders --to b
  tandem switchover orders --at 2026-11-22T03:00:00Z
  tandem switchover orders --at +5m
  tandem switchover orders --cancel")]
pub struct Arguments {
    #[command(flatten)]
    pub of: OfService,
    /// The next primary; left out, the best standby
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Not before this time (RFC 3339, or from now as +5m); kept in the memory of the node that
    /// answers: when its daemon ends before, nothing happens (tandem status shows it)
    #[arg(long, value_name = "TIME")]
    pub at: Option<Moment>,
    /// Take a scheduled or running switchover back
    #[arg(long, conflicts_with_all = ["to", "at"])]
    pub cancel: bool,
}

/// Has it done.
///
/// # Errors
/// It was refused, no node answers, or nobody reads.
pub async fn run(
    arguments: Arguments,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let Arguments { of, to, at, cancel } = arguments;
    if cancel {
        let verb = Verb { method: Method::DELETE, name: "switchover", body: NothingMore {} };
        return of.operate(verb, client, terminal).await;
    }
    let body = SwitchoverRequest {
        to: to.as_deref().map(Into::into),
        at_unix_ms: at.map(|at| at.unix_ms(clock::unix_ms())),
    };
    of.operate(Verb::post("switchover", body), client, terminal).await
}
