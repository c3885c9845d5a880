//! Talks about making the first node of a cluster: its identity, certificates and secret.

use clap::Args;
use std::path::PathBuf;

/// Make the first node of a new cluster: its certificate authority, identity and secret
#[derive(Clone, Debug, Args)]
#[command(arg = crate::cli::no_api(), after_help = "\
Example:
  tandem init --config tandem.toml --node a --dir /var/lib/tandem
  tandem node --config tandem.toml --node a --dir /var/lib/tandem")]
pub struct Arguments {
    /// The cluster's configuration
    #[arg(long, value_name = "FILE", default_value = "tandem.toml")]
    pub config: PathBuf,
    /// The name of this node in it
    #[arg(long, value_name = "NODE")]
    pub node: String,
    /// The node's own folder
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
}
