//! Talks to PostgreSQL: the processes, files and SQL of one instance.
//! In: `InstanceConfig`, and one method call per thing to do, each with its own deadline.
//! Out: `Observation`, `Stopped`, `StartCommand`, positions, or an `Error` that says what is
//! missing.
//! It starts no tasks and owns no policy: the driver decides, the keeper is the postmaster's
//! parent.
//! Keeps: INV-2 the promise is durable (`state_file`); INV-6 every method may be repeated; H5 an
//! instance always starts as a standby (`config`).
//! Not here: when to do what (core), who runs the postmaster (the keeper).
//! Tested by: `tests/postgres_adapter.rs`, against real servers.

pub mod ballast;
pub mod binaries;
pub mod config;
pub mod control;
pub mod copy;
pub mod error;
mod files;
mod last_words;
mod log;
mod names;
pub mod probe;
pub mod sql;
pub mod state_file;

pub use ballast::Ballast;
pub use binaries::Binaries;
pub use config::{NotTaken, StartCommand};
pub use control::{ControlState, Stopped};
pub use copy::rewind::Rewind;
pub use error::Error;
pub use sql::audit::Finding;
pub use sql::observe::{Observation, Observer, Receiver};
pub use sql::receiver::StoppedAt;
pub use sql::rule::{RuleState, Why};
pub use sql::slots::SlotReport;
pub use state_file::{Sentinel, StateFile};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tandem_core::ids::{ClusterId, NodeId, ServiceId};

/// The role of the daemon itself, over the unix socket only.
pub const SUPERUSER: &str = "tandem";
/// The role of WAL receivers, base backups and rewinds.
pub const REPLICATION_ROLE: &str = "tandem_replication";
/// The role and the database of the application.
pub const APP_ROLE: &str = "app";

/// Everything the adapter must know of one instance.
#[derive(Clone, Debug)]
pub struct InstanceConfig {
    /// Identity of the cluster, part of every application name (H10).
    pub cluster: ClusterId,
    /// The service that the instance belongs to.
    pub service: ServiceId,
    /// The node that it runs on.
    pub me: NodeId,
    /// PostgreSQL's programs.
    pub binaries: Binaries,
    /// The folder of the instance: `data/`, `run/`, `state.json`, `pgpass`, `postgres.log`.
    pub dir: PathBuf,
    /// PGDATA where the owner wants it; none is `data/` in `dir`. Data that somebody else made is
    /// adopted from here only.
    pub data_dir: Option<PathBuf>,
    /// Room to be given up when the disk is full; 0 is none.
    pub ballast_bytes: u64,
    /// Addresses that PostgreSQL listens on.
    pub listen: Vec<IpAddr>,
    /// Port that PostgreSQL listens on; part of the unix socket's name too.
    pub port: u16,
    /// The user that PostgreSQL's processes run as; none is the daemon's own.
    pub run_as: Option<RunAs>,
    /// Passwords of the three roles.
    pub passwords: Passwords,
    /// Locale of a new database cluster.
    pub locale: String,
    /// The owner's settings.
    pub user_settings: BTreeMap<String, String>,
    /// The owner's lines for pg_hba.conf.
    pub hba_extra: Vec<String>,
    /// Where this node reaches each member's PostgreSQL.
    pub peers: BTreeMap<NodeId, PeerAddress>,
    /// The nodes that hold a copy, this one included.
    pub members: BTreeSet<NodeId>,
}

impl InstanceConfig {
    /// PGDATA.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.dir.join("data"))
    }
}

/// A user of the operating system, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Where a member's PostgreSQL is reached from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Passwords of the three roles. Shown by nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Passwords {
    /// Of `tandem`.
    pub superuser: String,
    /// Of `tandem_replication`.
    pub replication: String,
    /// Of `app`.
    pub app: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords(hidden)")
    }
}

/// One instance of PostgreSQL. Clones share its configuration as it was when they were made.
#[derive(Clone, Debug)]
pub struct Postgres {
    config: Arc<InstanceConfig>,
    disk: Arc<probe::DiskProbe>,
    state_turn: Arc<Mutex<()>>,
}

impl Postgres {
    /// An instance; checks what can be checked without touching it.
    ///
    /// # Errors
    /// `Setting` for a setting that high availability rests on, `SocketPath` for too deep a folder.
    pub fn new(config: InstanceConfig) -> Result<Self, Error> {
        config::check(&config)?;
        Ok(Self { config: Arc::new(config), disk: Arc::default(), state_turn: Arc::default() })
    }

    /// An instance that nobody will start.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        let secret = String::from("x");
        let config = InstanceConfig {
            cluster: "0123456789abcdef".into(),
            service: "orders".into(),
            me: "a".into(),
            binaries: Binaries::for_test(),
            dir: "/tmp/x".into(),
            data_dir: None,
            ballast_bytes: 0,
            listen: Vec::new(),
            port: 1,
            run_as: None,
            passwords: Passwords {
                superuser: secret.clone(),
                replication: secret.clone(),
                app: secret,
            },
            locale: "C".into(),
            user_settings: BTreeMap::new(),
            hba_extra: Vec::new(),
            peers: BTreeMap::new(),
            members: BTreeSet::new(),
        };
        Self::new(config).unwrap()
    }

    /// Uses another configuration from now on; files change with the next start or `reload`.
    ///
    /// # Errors
    /// As `new`; the old configuration stays.
    pub fn reconfigure(&mut self, config: InstanceConfig) -> Result<(), Error> {
        config::check(&config)?;
        self.config = Arc::new(config);
        Ok(())
    }

    /// The configuration in use.
    pub fn config(&self) -> &InstanceConfig {
        &self.config
    }

    /// PGDATA.
    pub fn data_dir(&self) -> PathBuf {
        self.config.data_dir()
    }

    /// Folder of the unix socket.
    pub fn run_dir(&self) -> PathBuf {
        self.config.dir.join("run")
    }

    /// The durable promises and sentinels.
    pub fn state_path(&self) -> PathBuf {
        self.config.dir.join("state.json")
    }

    fn passfile(&self) -> PathBuf {
        self.config.dir.join("pgpass")
    }
}
