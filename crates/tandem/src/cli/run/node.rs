//! Talks about running a node: the daemon.

use clap::Args;
use std::path::PathBuf;

/// Run a node; it supervises its instances until it is asked to end (SIGTERM)
#[derive(Clone, Debug, Args)]
#[command(arg = crate::cli::no_api(), after_help = "\
Example:
  tandem node --config tandem.toml --node a --dir /var/lib/tandem")]
pub struct Arguments {
    /// The cluster's configuration; once there is an agreed one, that counts
    #[arg(long, value_name = "FILE", default_value = "tandem.toml")]
    pub config: PathBuf,
    /// The name of this node in it
    #[arg(long, value_name = "NODE")]
    pub node: String,
    /// The node's own folder, as made by init or join
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Other addresses at which this node reaches its peers (NAT, tunnels)
    #[arg(long, value_name = "FILE")]
    pub routes: Option<PathBuf>,
}
