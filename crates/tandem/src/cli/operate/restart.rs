//! Talks to a node to restart one instance.

use crate::api::verbs::NodeRequest;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{OfService, Verb};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Restart the instance of one node
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem restart orders --node b")]
pub struct Arguments {
    #[command(flatten)]
    pub of: OfService,
    /// Whose instance
    #[arg(long, value_name = "NODE")]
    pub node: String,
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
    let body = NodeRequest { node: node.as_str().into() };
    of.operate(Verb::post("restart", body), client, terminal).await
}
