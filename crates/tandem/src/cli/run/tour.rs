//! Talks about the tour: a cluster is made, broken on purpose, and loses nothing.

use clap::Args;
use clap::builder::BoolishValueParser;
use std::path::PathBuf;

/// Show what Tandem does: run a cluster on this machine, break it, and count what was lost
#[derive(Clone, Debug, Args)]
#[command(arg = crate::cli::no_api(), after_help = "\
Example:
  tandem tour
  tandem tour --once --json")]
pub struct Arguments {
    /// Stop by itself at the end; so does a tour without a terminal
    #[arg(long, env = "ONCE", value_parser = BoolishValueParser::new())]
    pub once: bool,
    /// How many nodes
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u8).range(3..=7))]
    pub nodes: u8,
    /// Where; left out, a temporary folder
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The folder of PostgreSQL's programs; left out, the newest that is found
    #[arg(long, value_name = "DIR")]
    pub postgres: Option<PathBuf>,
}
