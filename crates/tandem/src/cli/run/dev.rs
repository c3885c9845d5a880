//! Talks about a whole cluster on one machine.

use crate::cli::moment::delay;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Run a whole cluster on this machine until Ctrl-C; nothing is left behind
#[derive(Clone, Debug, Args)]
#[command(arg = crate::cli::no_api(), after_help = "\
Example:
  tandem dev
  tandem dev --delay 5ms
  tandem dev --config tandem.toml
  tandem dev --nodes 5 --dir /tmp/shop --keep")]
pub struct Arguments {
    /// How many nodes
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=7))]
    pub nodes: u8,
    /// A cluster's configuration: its nodes, each with an address of this machine, and its services
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "postgres", "durability"])]
    pub config: Option<PathBuf>,
    /// Where; left out, a temporary folder
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder there at the end
    #[arg(long, requires = "dir")]
    pub keep: bool,
    /// The folder of PostgreSQL's programs; left out, the newest that is found
    #[arg(long, value_name = "DIR")]
    pub postgres: Option<PathBuf>,
    /// What an acknowledged commit is worth
    #[arg(long, value_name = "quorum|preferred|async", default_value = "quorum")]
    #[arg(value_parser = ["quorum", "preferred", "async"])]
    pub durability: String,
    /// Between any two nodes, each way, as 5ms; at most 1s
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = delay)]
    pub delay: Duration,
}
