//! Talks to a node to turn automatic failover off.

use crate::api::verbs::NothingMore;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{OfService, Verb};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Turn automatic failover off; fencing goes on
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem pause orders")]
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
    arguments.of.operate(Verb::post("pause", NothingMore {}), client, terminal).await
}
