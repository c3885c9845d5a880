//! Talks to the rest of the product: a configuration in which every value has been checked.
//! In: what was written. Out: `Config`, made by `Config::parse` and by nothing else.
//! Not here: the defaults' reasons (`reference.rs`).

mod balanced;
mod checker;
mod cluster;
mod command;
mod durability;
mod http;
mod key;
mod postgres;
mod rate;
mod service;
mod timing;
mod upstream_tls;
mod wiring;

use super::problem::Source;
use super::problem::{Code, Problem, Problems, Say};
use super::raw::{self, Reading};
use super::value::HostPort;
pub use balanced::{Balanced, Health, ProxyVersion, Role, RoleCheck, Upstream};
use checker::{Checker, Shape};
pub use command::{Command, CommandHealth, Copies, KeyDoor, LEASE_MAX, Partitions, Probe};
pub use http::{Certificate, Http, Question};
pub use rate::RateLimit;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::pairing::{Clustering, Kind, Pairing};
use tandem_core::spec::{self, ClusterSpec, Durability, NodeRole, NodeSpec, ServiceSpec, Timing};
pub use upstream_tls::{UpstreamProtocol, UpstreamTls};

/// Every key that the reader asked for, and for which kind of service.
pub(super) type Accepted = BTreeSet<(Option<&'static str>, String)>;

/// One file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// Every machine.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The services of kind `postgres`: Tandem runs them.
    pub services: BTreeMap<ServiceId, Service>,
    /// The services of kind `command`: Tandem runs them.
    pub commands: BTreeMap<ServiceId, Command>,
    /// The services whose endpoints something else runs. No name is in two of these.
    pub balanced: BTreeMap<ServiceId, Balanced>,
    /// What the owner should know though the file can be used.
    pub warnings: Vec<Problem>,
    /// The file as written: this is what the nodes agree on.
    pub text: String,
    /// What the file was called.
    pub file_name: String,
    /// Where each written key has its value.
    origins: BTreeMap<String, Range<usize>>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where the other nodes reach it.
    pub address: HostPort,
    /// What its listeners for nodes, clients and replicas bind to.
    pub bind: IpAddr,
    /// Where its HTTP interface listens.
    pub api: SocketAddr,
    /// Where it stands.
    pub zone: Option<String>,
    /// What it is for.
    pub role: NodeRole,
    /// Preferred as primary among equals; 0 is never.
    pub priority: u32,
    /// How much work it can do, relative to the others.
    pub capacity: u32,
}

impl Node {
    /// Where it listens for the other nodes.
    pub const fn listen_address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.address.port)
    }
}

/// Where a front door listens, on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The same address on every node; none: each node's own `bind`.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl Listen {
    /// The address on one node.
    pub fn on(&self, node: &Node) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(node.bind), self.port)
    }
}

/// How far behind a replica may be that serves reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLag {
    /// In bytes of the write-ahead log.
    Bytes(u64),
    /// In time since its newest replayed commit.
    Time(Duration),
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The two words and the kind.
    pub pairing: Pairing,
    /// What an acknowledged commit is worth.
    pub durability: Durability,
    /// How long things may take.
    pub timing: Timing,
    /// The front door.
    pub listen: Listen,
    /// The front door for reads.
    pub read_listen: Option<Listen>,
    /// How far behind a replica may be that serves reads.
    pub read_lag_max: ReadLag,
    /// How a replica is chosen for a session that reads.
    pub read_policy: Policy,
    /// The port of the instance itself, on each data node's `bind`.
    pub port: u16,
    /// How long a client is held while the service moves.
    pub hold_max: Duration,
    /// How many clients are held at once, per node.
    pub held_max: usize,
    /// How many sessions the front door has at once, per node.
    pub sessions_max: usize,
    /// PostgreSQL's settings: names in lower case, values as unquoted text.
    pub settings: BTreeMap<String, String>,
    /// The owner's lines of `pg_hba.conf`.
    pub hba: Vec<String>,
    /// The system user that the instance runs as; none: `postgres` if Tandem runs as root.
    pub run_as: Option<String>,
    /// Where PostgreSQL's programs are; none: each node finds them.
    pub bin_dir: Option<PathBuf>,
    /// Where the data is; none: in the node's own folder.
    pub data_dir: Option<PathBuf>,
    /// Room beside the data that is given up when the disk is full; 0 is none.
    pub ballast_bytes: u64,
}

impl Service {
    /// Where the instance itself listens on a node.
    pub const fn instance_address(&self, node: &Node) -> SocketAddr {
        SocketAddr::new(node.bind, self.port)
    }

    /// Whether reads are spread over the replicas.
    pub fn spreads_reads(&self) -> bool {
        self.pairing.clustering() == Clustering::LoadBalanced
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Every problem of the file, in its order, warnings included; syntax errors come alone.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Vec<Problem>> {
        Self::read(text, file_name).0
    }

    /// As `parse`, and every key that the reader asked for.
    pub(super) fn read(text: &str, file_name: &str) -> (Result<Self, Vec<Problem>>, Accepted) {
        let problems = Problems::new(Source::new(text, file_name));
        let mut reading = Reading { problems, origins: BTreeMap::new(), accepted: BTreeSet::new() };
        if text.len() > super::FILE_BYTES_MAX {
            too_large(&mut reading.problems, text.len());
            return (Err(reading.problems.into_sorted()), reading.accepted);
        }
        let file = raw::read(text, &mut reading);
        let Reading { problems, origins, accepted } = reading;
        let mut check = Checker::new(problems, &origins);
        let file = file.filter(|file| cluster::is_bounded(file, &mut check));
        let parts = file.map(|file| {
            let shape = Shape::of(&file);
            let cluster = cluster::name(file.cluster.as_ref(), &mut check);
            let nodes = cluster::nodes(&file, shape, &mut check);
            let services = service::all(&file, shape, &mut check);
            wiring::check(&nodes, &services, &mut check);
            (cluster, nodes, services)
        });
        let errors = check.problems.errors();
        let problems = check.problems.into_sorted();
        let config = match parts {
            Some((cluster, nodes, services)) if errors == 0 => Ok(Self {
                cluster,
                nodes,
                services: services.postgres,
                commands: services.commands,
                balanced: services.balanced,
                warnings: problems,
                text: text.to_owned(),
                file_name: file_name.to_owned(),
                origins,
            }),
            Some(_) | None => Err(problems),
        };
        (config, accepted)
    }

    /// The part that decisions need.
    pub fn spec(&self) -> ClusterSpec {
        let node = |node: &Node| NodeSpec {
            role: node.role,
            zone: node.zone.clone(),
            priority: node.priority,
            capacity: node.capacity,
        };
        let service = |it: &Service| ServiceSpec::new(it.pairing, it.durability, it.timing);
        let command = |it: &Command| ServiceSpec {
            copies: it
                .copies
                .as_ref()
                .map(|it| spec::Copies { replicas: it.replicas, drain_max: it.drain_max }),
            partitions: it.partitions.as_ref().map(|it| it.count),
            ..ServiceSpec::of_command(it.pairing, it.timing)
        };
        ClusterSpec {
            nodes: self.nodes.iter().map(|(id, it)| (id.clone(), node(it))).collect(),
            services: self
                .services
                .iter()
                .map(|(id, it)| (id.clone(), service(it)))
                .chain(self.commands.iter().map(|(id, it)| (id.clone(), command(it))))
                .collect(),
        }
        .with_seats()
    }

    /// The nodes that hold data, in the order of their names.
    pub fn data_nodes(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.nodes.iter().filter(|(_, node)| node.role == NodeRole::Data)
    }

    /// The kind of a service.
    pub fn kind_of(&self, service: &ServiceId) -> Option<Kind> {
        let postgres = self.services.get(service).map(|service| service.pairing.kind());
        let command = self.commands.get(service).map(|service| service.pairing.kind());
        let balanced = self.balanced.get(service).map(|service| service.pairing.kind());
        postgres.or(command).or(balanced)
    }

    /// The line that a key was written on, if it was.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let span = self.origins.get(key)?;
        Some(Source::new(&self.text, &self.file_name).line(span.start))
    }

    /// Where to point for a key: its value, else the nearest table around it, else the start.
    pub(super) fn place_of(&self, key: &str) -> Range<usize> {
        place_of(&self.origins, key)
    }
}

/// Where to point for a key that may not be written.
fn place_of(origins: &BTreeMap<String, Range<usize>>, key: &str) -> Range<usize> {
    let mut path = key;
    loop {
        if let Some(span) = origins.get(path) {
            return span.clone();
        }
        match path.rsplit_once('.') {
            Some((parent, _)) => path = parent,
            None => return 0..0,
        }
    }
}

fn too_large(problems: &mut Problems<'_>, bytes: usize) {
    let say = Say::new(
        format!("the file has {bytes} bytes"),
        format!("the limit is {} bytes: all nodes keep and send this file", super::FILE_BYTES_MAX),
        "check that this is the configuration; a real one has a few kilobytes",
    );
    problems.error(Code::TooLarge, &(0..0), say);
}
