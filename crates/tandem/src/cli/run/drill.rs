//! Talks about the drill: faults on purpose, and what they cost.

use crate::cli::moment::delay;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Break a cluster on this machine on purpose, and report outage, loss and duplicates per fault
#[derive(Clone, Debug, Args)]
#[command(arg = crate::cli::no_api(), after_help = "\
Example:
  tandem drill --rounds 5
  tandem drill --service singleton
  tandem drill --service http --fault instance-kill,lie
  tandem drill --service partitions --fault node-kill,drain
  tandem drill --fault link-slow,switchover --delay 5ms
  tandem drill --service singleton --rounds 5 --strict
  tandem drill --fault postmaster-kill --fault node-cut --seed 7 --json")]
pub struct Arguments {
    /// What to break: postgres, singleton (a command of which one copy runs), copies (one on each
    /// node), sessions (whose clients stay at one of them), partitions (its work is divided among
    /// them), http or tcp (endpoints behind the doors)
    #[arg(long, value_name = "SERVICE", default_value = "postgres")]
    pub service: String,
    /// Only these faults, in this order; left out, all
    #[arg(long = "fault", value_name = "FAULT", value_delimiter = ',')]
    pub faults: Vec<String>,
    /// How often each
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Repeats the choices of an earlier drill; left out, a new one
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Fail also where a fault costs more than its budget, which is a median on a quiet machine
    #[arg(long)]
    pub strict: bool,
    /// Concurrent writers
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub writers: u16,
    /// How many nodes
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u8).range(3..=7))]
    pub nodes: u8,
    /// What an acknowledged commit is worth
    #[arg(long, value_name = "quorum|preferred|async", default_value = "quorum")]
    #[arg(value_parser = ["quorum", "preferred", "async"])]
    pub durability: String,
    /// Between any two nodes, each way, as 5ms; at most 1s
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = delay)]
    pub delay: Duration,
    /// Where; left out, a temporary folder
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The folder of PostgreSQL's programs; left out, the newest that is found
    #[arg(long, value_name = "DIR")]
    pub postgres: Option<PathBuf>,
}
