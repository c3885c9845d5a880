//! Talks to a node to make a node no longer a member.

use crate::api::verbs::NothingMore;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{Verb, operate_node};
use crate::cli::terminal::Terminal;
use clap::Args;
use hyper::Method;

/// Make a node no longer a member; refused where that would lose quorum
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem remove c")]
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
    let verb = Verb { method: Method::DELETE, name: "", body: NothingMore {} };
    operate_node(verb, &arguments.node, client, terminal).await
}
