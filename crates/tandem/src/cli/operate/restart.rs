//! Talks to a node to restart one instance, or every copy of a command in turns.

use crate::api::verbs::RestartRequest;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{OfService, Verb};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Restart the instance of one node, or every copy of a command, one at a time
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem restart orders --node b
  tandem restart web            every copy of a command, one at a time")]
pub struct Arguments {
    #[command(flatten)]
    pub of: OfService,
    /// Whose instance; without it, every copy of a command in turns
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
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
    let Arguments { of, node } = arguments;
    let body = RestartRequest { node: node.as_deref().map(Into::into) };
    of.operate(Verb::post("restart", body), client, terminal).await
}
