//! Talks to a node to empty a node.

use crate::api::verbs::NothingMore;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{Verb, operate_node};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Move primaries away from a node and place none there
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem drain c")]
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
    let verb = Verb::post("drain", NothingMore {});
    operate_node(verb, &arguments.node, client, terminal).await
}
