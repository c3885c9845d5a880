//! Talks to a node to use a node again that was drained, or an endpoint.

use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::Emptied;
use crate::cli::terminal::Terminal;
use clap::Args;

/// Use a node again that was drained, or an endpoint
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem undrain c
  tandem undrain --service cache --endpoint 10.0.0.11:6379")]
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
    arguments.of.operate("undrain", client, terminal).await
}
