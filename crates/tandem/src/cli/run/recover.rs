//! Talks about going on after a majority of the voters is lost for good.

use clap::Args;
use std::path::PathBuf;

/// Go on with this node alone after a majority was lost for good; says first what may be lost
#[derive(Clone, Debug, Args)]
#[command(arg = crate::cli::no_api(), after_help = "\
Example:
  tandem recover --dir /var/lib/tandem                 says what would be lost, changes nothing
  tandem recover --dir /var/lib/tandem --accept-loss   on one survivor, stopped; never on two")]
pub struct Arguments {
    /// The node's own folder; its daemon must not run
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Do it, knowing what may be lost
    #[arg(long)]
    pub accept_loss: bool,
}
