//! Talks to a node to make a one-time token with which another may join.

use crate::api::verbs::NodeRequest;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::show;
use crate::cli::terminal::Terminal;
use clap::Args;
use hyper::Method;

/// Make a one-time token with which a node may join
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem token d > token            on a member
  tandem join --node d --dir /var/lib/tandem --token-file token")]
pub struct Arguments {
    /// The name of the node that will join
    #[arg(value_name = "NODE")]
    pub node: String,
}

/// Has it done. Only the token goes to stdout, so that it can go into a file.
///
/// # Errors
/// It was refused, no node answers, or nobody reads.
pub async fn run(
    arguments: Arguments,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let body = NodeRequest { node: arguments.node.as_str().into() };
    let outcome = client.operate(Method::POST, "/v1/tokens", &body).await?;
    match &outcome.token {
        Some(token) if !terminal.wants_json() => terminal.line(token.reveal())?,
        _ => show(&outcome, terminal)?,
    }
    Ok(())
}
