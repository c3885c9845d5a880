//! Talks about making this machine a node of a cluster that exists, with a one-time token.
//! A token on the command line is seen by every user of the machine: a file, or the environment.

use crate::api::operations::Secret;
use clap::Args;
use std::path::PathBuf;

/// Make this machine a node of a cluster, with a one-time token of a member
#[derive(Clone, Debug, Args)]
#[command(arg = crate::cli::no_api(), after_help = "\
Example:
  tandem token d > token            on a member
  tandem join --node d --dir /var/lib/tandem --token-file token
  tandem node --config /var/lib/tandem/tandem.toml --node d --dir /var/lib/tandem")]
pub struct Arguments {
    /// The name of this node
    #[arg(long, value_name = "NODE")]
    pub node: String,
    /// The node's own folder
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The address of the member that made the token, where the one in the token is not reached
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<String>,
    /// The token; other users of this machine see it, so rather use the variable or a file
    #[arg(long, env = "TANDEM_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    #[arg(required_unless_present = "token_file", conflicts_with = "token_file")]
    pub token: Option<Secret>,
    /// A file with the token; - is stdin
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}
