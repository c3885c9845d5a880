//! Talks to a node to replace a primary that does not serve.

use crate::api::verbs::FailoverRequest;
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::operate::{OfService, Verb};
use crate::cli::terminal::Terminal;
use clap::Args;

/// Replace a primary that does not serve, without waiting for the cluster to decide it
///
/// While it serves this is refused: tandem switchover moves it and loses nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tandem explain orders             is it safe at this moment, and why not
  tandem failover orders
  tandem failover orders --to c --accept-loss")]
pub struct Arguments {
    #[command(flatten)]
    pub of: OfService,
    /// The next primary; left out, the best standby
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Go on although acknowledged commits may be lost, or the primary serves. First make sure that
    /// the old primary is off: in a partition it may go on acknowledging to clients on its side,
    /// and that is lost as well
    #[arg(long)]
    pub accept_loss: bool,
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
    let Arguments { of, to, accept_loss } = arguments;
    let body = FailoverRequest { to: to.as_deref().map(Into::into), accept_loss };
    of.operate(Verb::post("failover", body), client, terminal).await
}
