//! Talks to a node to use a node again that was drained.

use crate::api::verbs::NothingMore;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{Verb, operate_node};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Use a node again that was drained
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem undrain c")]
pub struct Arguments {
    /// Which
    #[arg(value_name = "NODE")]
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
    let verb = Verb::post("undrain", NothingMore {});
    operate_node(verb, &arguments.node, client, terminal).await
}
