//! Talks to a node to load the settings of a service again.

use crate::api::verbs::NothingMore;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{OfService, Verb};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Load the settings of a service again, on every node
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem reload orders")]
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
    arguments.of.operate(Verb::post("reload", NothingMore {}), client, terminal).await
}
