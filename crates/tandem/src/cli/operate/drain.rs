//! Talks to a node to empty a node, or an endpoint of a service.

use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::Emptied;
use crate::cli::terminal::Terminal;
use clap::Args;

/// Move primaries away from a node and place none there; or give an endpoint no new connections
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem drain c
  tandem drain --service cache --endpoint 10.0.0.11:6379")]
pub struct Arguments {
    #[command(flatten)]
    of: Emptied,
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
    arguments.of.operate("drain", client, terminal).await
}
