//! Talks to a whole cluster on one machine: its daemons, its processes, the relays between its
//! nodes.
//! In: `DevConfig`, `Wiring`. Out: `DevCluster`, with one method per way to break it.
//! Keeps: nothing but what it started is ever signalled; nothing is left behind.
//! Not here: what a fault costs (`drill`), what a daemon does (`node`).
//! Tested by: the tests of each file; the drill.

pub mod client;
mod cluster;
mod daemon;
pub(crate) mod disk;
mod faults;
mod folders;
mod layout;
mod mesh;
mod processes;
pub mod relay;
mod remains;
mod run;
pub mod status;

pub use cluster::DevCluster;
pub use folders::write_private;
pub use layout::{Given, Layout, NodePlace};
pub use relay::Condition;
pub use run::{DevArgs, interrupted, run, unless_interrupted, write_how_to_connect};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::NodeId;

/// An error of something that is handed in.
pub type ForeignError = Box<dyn std::error::Error + Send + Sync>;
/// Makes `ROOT/NODE/identity` for every node; the first argument is ROOT.
pub type MakeIdentities = Arc<dyn Fn(&Path, &[NodeId]) -> Result<(), ForeignError> + Send + Sync>;
/// The password of a service's role, from a node's folder: (folder, service, role).
pub type Password = Arc<dyn Fn(&Path, &str, &str) -> Result<String, ForeignError> + Send + Sync>;

/// What a dev cluster needs of the rest of the program.
#[derive(Clone)]
pub struct Wiring {
    /// The program to start as `EXE node …`.
    pub exe: PathBuf,
    /// Makes certificates and secrets.
    pub identities: MakeIdentities,
    /// Derives passwords.
    pub password: Password,
}

impl std::fmt::Debug for Wiring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wiring").field("exe", &self.exe).finish_non_exhaustive()
    }
}

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// A configuration whose nodes are put on this machine; none for a service of PostgreSQL.
    pub given: Option<String>,
    /// How many nodes, 1 to 9; a given configuration names its own.
    pub nodes: usize,
    /// Nodes that may join later: they have addresses and links from the beginning.
    pub spares: Vec<NodeId>,
    /// The last node votes and holds no data.
    pub witness: bool,
    /// Where; none for a new temporary folder. It must be empty, and is removed if it was made
    /// here.
    pub root: Option<PathBuf>,
    /// Leave the folder there at the end; its processes go in any case.
    pub keep: bool,
    /// Where the programs of PostgreSQL are; none to let each node find them.
    pub bin_dir: Option<PathBuf>,
    /// As in the configuration file; none for its default.
    pub durability: Option<String>,
    /// Puts the services of each node on a small disk of its own, so that it can be filled. Needs
    /// root.
    pub disk_bytes: Option<u64>,
    /// How much longer everything between two nodes takes, each way.
    pub delay: Duration,
}

impl Default for DevConfig {
    /// Three nodes survive the loss of one: the smallest cluster that shows everything.
    fn default() -> Self {
        Self {
            given: None,
            nodes: 3,
            spares: Vec::new(),
            witness: false,
            root: None,
            keep: false,
            bin_dir: None,
            durability: None,
            disk_bytes: None,
            delay: Duration::ZERO,
        }
    }
}

/// Why a dev cluster could not do something.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot run a cluster of {nodes} nodes; try a number between 1 and 9")]
    Nodes { nodes: usize },
    #[error("the configuration cannot be run on one machine: {because}")]
    Given { because: String },
    #[error("cannot write {path}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{path} is not empty; try a new folder, or none for a temporary one")]
    FolderInUse { path: PathBuf },
    #[error(
        "user postgres cannot enter {ancestor}, so PostgreSQL could not use {path}; \
         try a folder below /tmp, or chmod o+x {ancestor}"
    )]
    FolderHidden { path: PathBuf, ancestor: PathBuf },
    #[error(
        "{path} is too long for PostgreSQL's socket, which must fit in 107 bytes; \
         try a folder of at most {bytes_max} bytes"
    )]
    FolderTooLong { path: PathBuf, bytes_max: usize },
    #[error("user postgres is not known here; try installing postgresql, or run as a plain user")]
    NoPostgresUser,
    #[error(
        "no free loopback addresses: in each of {tried} networks below 127.0.0.0/8 a port was \
         taken; \
         try ending other clusters of this machine"
    )]
    NoFreeAddresses { tried: usize },
    #[error("cannot open a relay on 127.0.0.1")]
    Relay { source: std::io::Error },
    #[error("cannot make the certificates of the nodes")]
    Identities { source: ForeignError },
    #[error("cannot derive the password of role {role}")]
    Password { role: String, source: ForeignError },
    #[error("there is no node {node}")]
    UnknownNode { node: NodeId },
    #[error("node {node} has no running {what}")]
    NoProcess { node: NodeId, what: &'static str },
    #[error("node {node} ended while it started: {said}")]
    NodeEnded { node: NodeId, said: String },
    #[error("node {node} did not end in peace when it was removed: {how}")]
    EndedBadly { node: NodeId, how: String },
    #[error("cannot signal process {pid}")]
    Signal { pid: i32, source: nix::errno::Errno },
    #[error("processes of node {node} are still there after {seconds} s: {pids:?}")]
    StillRunning { node: NodeId, seconds: u64, pids: Vec<i32> },
    #[error("cannot mount a small disk at {path}: {because}; try as root, outside of a container")]
    Mount { path: PathBuf, because: String },
    #[error("no answer from {address} within {seconds} s")]
    ApiSilent { address: SocketAddr, seconds: u64 },
    #[error("cannot connect to {address}")]
    ApiConnect { address: SocketAddr, source: std::io::Error },
    #[error("the conversation with {address} broke")]
    ApiTalk { address: SocketAddr, source: hyper::Error },
    #[error("the answer of {address} broke off or is too long")]
    ApiBody { address: SocketAddr, source: ForeignError },
    #[error("{address} refused with status {status}: {body}")]
    ApiRefused { address: SocketAddr, status: u16, body: String },
    #[error("{address} sent something that is no status")]
    ApiAnswer { address: SocketAddr, source: serde_json::Error },
    #[error("cannot build a request for {path}")]
    ApiRequest { path: String, source: hyper::http::Error },
    #[error("cannot print")]
    Print { source: std::io::Error },
}
