//! Talks to a node to replace one copy by a new base backup.

use crate::api::verbs::NodeRequest;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{OfService, Verb};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Replace the copy of one node by a new base backup; never the primary's
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem reinit orders --node b")]
pub struct Arguments {
    #[command(flatten)]
    pub of: OfService,
    /// Whose copy
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
    of.operate(Verb::post("reinit", body), client, terminal).await
}
