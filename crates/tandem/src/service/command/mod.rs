//! Talks to a command that Tandem runs: what is run, what it is told, how it is asked.
//! In: `CommandConfig`. Out: words and environments, answers of checks, a bounded log.
//! Keeps: INV-12's part of the adapter: nothing here starts a copy; INV-2 (`state_file.rs`).
//! Not here: when (`tandem_core`, `driver/singleton`), the copy's process and the programs beside
//! it (`fence`).
//! Tested by: the modules below.

mod check;
mod log;
mod needs;
mod state_file;

pub use log::Printed;
pub use needs::Lack;
pub use state_file::{Runs, State};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tandem_core::ids::{NodeId, ServiceId, Term};

/// Where its programs are looked for, as for a system service.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One command on one node.
#[derive(Clone, Debug)]
pub struct CommandConfig {
    /// The service.
    pub service: ServiceId,
    /// This node.
    pub me: NodeId,
    /// Where Tandem keeps what belongs to it: state, log, the keeper's socket.
    pub dir: PathBuf,
    /// Its working folder, not filled in.
    pub cwd: PathBuf,
    /// Program and arguments, not filled in.
    pub command: Vec<String>,
    /// Its own environment.
    pub env: BTreeMap<String, String>,
    /// Whom it runs as, by name; none is the daemon's user.
    pub run_as: Option<String>,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// What asks it to end; empty is a signal.
    pub stop: Vec<String>,
    /// How long it may take to end.
    pub stop_max: Duration,
    /// For what it still serves to end before it is stopped by a plan, where it runs alone.
    pub drain_max: Duration,
    /// Run before a start.
    pub on_start: Vec<String>,
    /// Run after a planned end.
    pub on_stop: Vec<String>,
    /// Run whenever what the copy owns has changed.
    pub on_partitions: Vec<String>,
    /// How long a hook may take.
    pub hook_max: Duration,
    /// How it is asked.
    pub health: Option<Health>,
    /// How long its log grows.
    pub log_bytes_max: u64,
    /// What it is told besides, `{sitting}` not filled in.
    pub told: BTreeMap<String, String>,
}

/// How a command is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Between two checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// So many failures in a row: it is not well.
    pub fall: u32,
    /// So many successes in a row: it is well.
    pub rise: u32,
    /// After its start failures do not count for so long.
    pub grace: Duration,
}

/// One way to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// At its port.
    Port(AtPort),
    /// A program.
    Exec(Vec<String>),
}

/// One way to ask at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtPort {
    /// A GET of this path.
    Http(String),
    /// A connection.
    Tcp,
}

impl CommandConfig {
    /// Where its keeper has its socket.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Where what it prints goes.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("output.log")
    }

    /// Its working folder on this node.
    pub fn folder(&self) -> PathBuf {
        self.cwd.to_str().map_or_else(|| self.cwd.clone(), |text| self.fill(text).into())
    }

    /// The words with what differs from node to node filled in.
    pub fn filled(&self, words: &[String]) -> Vec<String> {
        words.iter().map(|word| self.fill(word)).collect()
    }

    /// A text with the same filled in.
    pub fn fill(&self, text: &str) -> String {
        let port = self.address.map(|address| address.port().to_string()).unwrap_or_default();
        let bind = self.address.map(|address| address.ip().to_string()).unwrap_or_default();
        text.replace("{port}", &port).replace("{bind}", &bind).replace("{node}", self.me.as_str())
    }

    /// A number that changes with whatever a copy has to be started anew for.
    pub fn recipe<L: std::fmt::Debug>(&self, limits: &BTreeMap<L, u64>) -> u64 {
        let parts = (&self.command, &self.cwd, &self.env, &self.run_as, self.address, limits);
        let hash = blake3::hash(format!("{parts:?}").as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        // 0 says that there is none.
        u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
    }

    /// The whole environment of everything of it, in a term and, of a seat, a sitting.
    pub fn environment(&self, term: Term, sitting: Term) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
        env.extend(self.env.iter().map(|(name, value)| (name.clone(), self.fill(value))));
        let told = [
            ("TANDEM_NODE", self.me.to_string()),
            ("TANDEM_SERVICE", self.service.to_string()),
            ("TANDEM_TERM", term.to_string()),
        ];
        env.extend(told.map(|(name, value)| (name.to_owned(), value)));
        if let Some(address) = self.address {
            env.insert("TANDEM_PORT".to_owned(), address.port().to_string());
            env.insert("TANDEM_BIND".to_owned(), address.ip().to_string());
        }
        let sitting = sitting.to_string();
        let told = self.told.iter();
        env.extend(told.map(|(name, value)| (name.clone(), value.replace("{sitting}", &sitting))));
        env
    }
}

#[cfg(test)]
mod tests;
