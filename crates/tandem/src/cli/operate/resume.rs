//! Talks to a node to turn automatic failover on again.

use crate::api::verbs::NothingMore;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{OfService, Verb};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Turn automatic failover on again
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem resume orders")]
pub struct Arguments {
    #[command(flatten)]
    pub of: OfService,
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
    arguments.of.operate(Verb::post("resume", NothingMore {}), client, terminal).await
}
