//! Talks to the loopback network to find free addresses, and lays a cluster out on them.
//! In: number of nodes, folder. Out: `Layout`, the configuration file's text, the routes' text.
//! Linux answers on all of 127.0.0.0/8, so each node has an address of its own and the usual ports.
//! Not here: the folders themselves (`folders.rs`).
//! Tested by: below.

mod given;

pub use given::Given;

use super::{DevConfig, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use tandem_core::ids::NodeId;

/// The service of a dev cluster.
pub const SERVICE: &str = "orders";
/// The name of a dev cluster, in its certificates too.
const CLUSTER: &str = "dev";
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
/// The last byte of the first node's address.
const FIRST_HOST: u8 = 11;
/// The last byte of an address that only marks the network as taken.
const CLAIM_HOST: u8 = 10;

/// Where everything of a dev cluster is.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The folder with everything.
    pub root: PathBuf,
    /// The nodes, in the order of their names.
    pub nodes: Vec<NodePlace>,
    /// Those that may join later.
    spares: Vec<NodePlace>,
    ports: Ports,
    /// What somebody wrote; none: the service of PostgreSQL.
    given: Option<Given>,
}

/// Where one node is.
#[derive(Clone, Debug)]
pub struct NodePlace {
    /// Its name.
    pub node: NodeId,
    /// Its own loopback address.
    pub ip: Ipv4Addr,
    /// Votes, holds no data.
    pub witness: bool,
    /// Its folder.
    pub dir: PathBuf,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    peer: u16,
    api: u16,
    door: u16,
    instance: u16,
}

impl Ports {
    /// The usual ports, or ones above them where something listens on every address of the machine.
    const fn shifted(by: u16) -> Self {
        Self { peer: 7400 + by, api: 7401 + by, door: 5432 + by, instance: 6432 + by }
    }

    const fn all(self) -> [u16; 4] {
        [self.peer, self.api, self.door, self.instance]
    }
}

/// Keeps a network of addresses from being chosen by another dev cluster.
#[derive(Debug)]
pub struct Claim {
    _listener: TcpListener,
}

impl Layout {
    /// Finds addresses on which every port is free, and claims them.
    ///
    /// # Errors
    /// When the number of nodes makes no sense, or everything is taken.
    pub fn find(config: &DevConfig, root: &Path) -> Result<(Self, Claim), Error> {
        let given = config.given.as_deref().map(Given::read).transpose()?;
        let nodes = given.as_ref().map_or(config.nodes, |given| given.nodes().len());
        if !(1..=NAMES.len()).contains(&nodes) {
            return Err(Error::Nodes { nodes });
        }
        let networks = || std::iter::once([127, 0, 0]).chain((1..=254).map(|n| [127, 77, n]));
        let mut tried = 0;
        for ports in [0, 10_000, 20_000].map(Ports::shifted) {
            for network in networks() {
                tried += 1;
                let mut layout = Self::on(config, root, network, ports);
                layout.give(given.as_ref());
                layout.spare(&config.spares);
                if let Some(claim) = layout.claim(network) {
                    return Ok((layout, claim));
                }
            }
        }
        Err(Error::NoFreeAddresses { tried })
    }

    fn on(config: &DevConfig, root: &Path, network: [u8; 3], ports: Ports) -> Self {
        let last = config.nodes - 1;
        let nodes = NAMES
            .iter()
            .take(config.nodes)
            .zip(FIRST_HOST..)
            .enumerate()
            .map(|(index, (name, host))| NodePlace {
                node: NodeId::new(*name),
                ip: Ipv4Addr::new(network[0], network[1], network[2], host),
                witness: config.witness && index == last && index > 0,
                dir: root.join(name),
            })
            .collect();
        Self { root: root.into(), nodes, spares: Vec::new(), ports, given: None }
    }

    /// Puts the nodes of a given configuration where this cluster is.
    fn give(&mut self, given: Option<&Given>) {
        let (Some(given), Some(first)) = (given, self.nodes.first()) else { return };
        let [one, two, three, _] = first.ip.octets();
        let place = |((node, witness), host): ((NodeId, bool), u8)| NodePlace {
            dir: self.root.join(node.as_str()),
            ip: Ipv4Addr::new(one, two, three, host),
            node,
            witness,
        };
        self.nodes = given.nodes().into_iter().zip(FIRST_HOST..).map(place).collect();
        self.given = Some(given.clone());
    }

    /// Puts nodes that may join later behind the others.
    fn spare(&mut self, names: &[NodeId]) {
        let Some(last) = self.nodes.last() else { return };
        let [one, two, three, host] = last.ip.octets();
        let place = |(node, host): (&NodeId, u8)| NodePlace {
            node: node.clone(),
            ip: Ipv4Addr::new(one, two, three, host),
            witness: false,
            dir: self.root.join(node.as_str()),
        };
        self.spares = names.iter().zip(host.saturating_add(1)..).map(place).collect();
    }

    /// The nodes, and those that may join later.
    pub fn places(&self) -> impl Iterator<Item = &NodePlace> {
        self.nodes.iter().chain(&self.spares)
    }

    /// The nodes that may join later.
    pub fn spares(&self) -> &[NodePlace] {
        &self.spares
    }

    fn claim(&self, [first, second, third]: [u8; 3]) -> Option<Claim> {
        let claim = Ipv4Addr::new(first, second, third, CLAIM_HOST);
        let listener = TcpListener::bind((claim, self.ports.peer)).ok()?;
        let of_given = self.given.iter().flat_map(|given| given.ports().iter().copied());
        let ports: BTreeSet<u16> = self.ports.all().into_iter().chain(of_given).collect();
        let free = |ip: Ipv4Addr| ports.iter().all(|port| TcpListener::bind((ip, *port)).is_ok());
        self.places().all(|place| free(place.ip)).then_some(Claim { _listener: listener })
    }

    /// A node's place.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn place(&self, node: &NodeId) -> Result<&NodePlace, Error> {
        self.places()
            .find(|place| place.node == *node)
            .ok_or_else(|| Error::UnknownNode { node: node.clone() })
    }

    /// Where the nodes talk to a node.
    pub const fn peer(&self, place: &NodePlace) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(place.ip), self.ports.peer)
    }

    /// Where a node answers operators.
    pub const fn api(&self, place: &NodePlace) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(place.ip), self.ports.api)
    }

    /// A node's front door.
    pub const fn door(&self, place: &NodePlace) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(place.ip), self.ports.door)
    }

    /// A node's instance, past all doors.
    pub const fn instance(&self, place: &NodePlace) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(place.ip), self.ports.instance)
    }

    /// Every instance of a node, by service.
    pub fn instances(&self, place: &NodePlace) -> Vec<(String, SocketAddr)> {
        if place.witness {
            return Vec::new();
        }
        let Some(given) = &self.given else {
            return vec![(SERVICE.to_owned(), self.instance(place))];
        };
        let at = |port: u16| SocketAddr::new(IpAddr::V4(place.ip), port);
        given.instances().iter().map(|(name, port)| (name.clone(), at(*port))).collect()
    }

    /// A node's door of a service; none if that has none.
    pub fn door_of(&self, place: &NodePlace, service: &str) -> Option<SocketAddr> {
        match &self.given {
            None => (service == SERVICE).then(|| self.door(place)),
            Some(given) => {
                let port = given.doors().get(service)?;
                Some(SocketAddr::new(IpAddr::V4(place.ip), *port))
            }
        }
    }

    /// What somebody wrote; none: the service of PostgreSQL.
    pub const fn given(&self) -> Option<&Given> {
        self.given.as_ref()
    }

    /// Whether a service of it is PostgreSQL.
    pub fn runs_postgres(&self) -> bool {
        self.given.as_ref().is_none_or(|given| !given.postgres().is_empty())
    }

    /// A given configuration with the addresses of this cluster.
    pub fn text_of(&self, given: &Given) -> String {
        let places: Vec<NodePlace> = self.places().cloned().collect();
        given.text(&places, |place| (self.peer(place), self.api(place)))
    }

    /// The configuration file, the same on every node.
    pub fn config_text(&self, config: &DevConfig) -> String {
        if let Some(given) = &self.given {
            return self.text_of(given);
        }
        let mut text = format!("cluster = \"{CLUSTER}\"\n");
        for place in &self.nodes {
            let _ = write!(
                text,
                "\n[nodes.{}]\naddress = \"{}\"\napi = \"{}\"\n",
                place.node,
                self.peer(place),
                self.api(place)
            );
            if place.witness {
                text.push_str("role = \"witness\"\n");
            }
        }
        let _ = write!(
            text,
            "\n[services.{SERVICE}]\nkind = \"postgres\"\nclustering = \"active-passive\"\n\
             replication = \"primary-replica\"\nlisten = {}\nport = {}\n\
             ballast = \"4MB\"\n",
            self.ports.door, self.ports.instance
        );
        if let Some(durability) = &config.durability {
            let _ = writeln!(text, "durability = {durability:?}");
        }
        if let Some(bin_dir) = &config.bin_dir {
            let _ = writeln!(text, "bin_dir = {:?}", bin_dir.display().to_string());
        }
        text
    }
}

/// Through which addresses one node reaches another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// The node itself.
    pub peer: SocketAddr,
    /// Its instances, by service.
    pub services: BTreeMap<String, SocketAddr>,
}

/// Through which addresses one node reaches the others.
pub type Detours = BTreeMap<NodeId, Detour>;

/// One node's routes file.
pub fn routes_text(detours: &Detours) -> String {
    let mut text = String::new();
    for (node, Detour { peer, services }) in detours {
        let _ = writeln!(text, "[{node}]\npeer = \"{peer}\"");
        if !services.is_empty() {
            let _ = writeln!(text, "[{node}.services]");
        }
        for (service, address) in services {
            let _ = writeln!(text, "{service} = \"{address}\"");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_get_different_addresses() {
        let config = DevConfig { witness: true, ..DevConfig::default() };
        let (one, _claim) = Layout::find(&config, Path::new("/x")).unwrap();
        let (two, _other) = Layout::find(&config, Path::new("/y")).unwrap();
        assert_ne!(one.door(&one.nodes[0]), two.door(&two.nodes[0]));
        assert!(one.nodes[2].witness && !one.nodes[1].witness);
        assert_eq!(one.place(&NodeId::new("c")).unwrap().dir, Path::new("/x/c"));
    }

    #[test]
    fn a_taken_port_moves_the_cluster_elsewhere() {
        let config = DevConfig { nodes: 2, ..DevConfig::default() };
        let (one, claim) = Layout::find(&config, Path::new("/x")).unwrap();
        let _busy = TcpListener::bind(one.api(&one.nodes[1])).unwrap();
        drop(claim);
        let (two, _claim) = Layout::find(&config, Path::new("/x")).unwrap();
        assert_ne!(one.api(&one.nodes[0]), two.api(&two.nodes[0]));
    }

    #[test]
    fn a_node_that_may_join_has_a_place_of_its_own() {
        let config = DevConfig { spares: vec!["d".into()], ..DevConfig::default() };
        let (layout, _claim) = Layout::find(&config, Path::new("/x")).unwrap();
        let place = layout.place(&"d".into()).unwrap();
        assert_eq!((layout.nodes.len(), layout.places().count()), (3, 4));
        assert!(layout.nodes.iter().all(|it| it.ip != place.ip), "{layout:?}");
        assert!(!layout.config_text(&config).contains("nodes.d"), "it has not joined");
        let given = "cluster = \"x\"\n[nodes.c]\naddress = \"10.0.0.1:7400\"\n\
                     [nodes.d]\naddress = \"10.0.0.2:7400\"\n";
        let text = layout.text_of(&Given::read(given).unwrap());
        assert!(text.contains(&layout.peer(place).to_string()), "{text}");
    }

    #[test]
    fn odd_numbers_of_nodes_are_refused() {
        for nodes in [0, 10] {
            let config = DevConfig { nodes, ..DevConfig::default() };
            assert!(matches!(Layout::find(&config, Path::new("/x")), Err(Error::Nodes { .. })));
        }
    }

    #[test]
    fn files_are_toml() {
        let config = DevConfig {
            witness: true,
            durability: Some("quorum".into()),
            bin_dir: Some("/usr/lib/postgresql/15/bin".into()),
            ..DevConfig::default()
        };
        let layout = Layout::on(&config, Path::new("/x"), [127, 77, 3], Ports::shifted(0));
        let table: toml::Table = layout.config_text(&config).parse().unwrap();
        assert_eq!(table["nodes"]["c"]["role"].as_str(), Some("witness"));
        assert_eq!(table["nodes"]["a"]["address"].as_str(), Some("127.77.3.11:7400"));
        assert_eq!(table["services"]["orders"]["listen"].as_integer(), Some(5432));
        let peer: SocketAddr = "127.0.0.1:1234".parse().unwrap();
        let service: SocketAddr = "127.0.0.1:1235".parse().unwrap();
        let services = BTreeMap::from([(SERVICE.to_owned(), service)]);
        let detours = Detours::from([
            (NodeId::new("b"), Detour { peer, services }),
            (NodeId::new("c"), Detour { peer, services: BTreeMap::new() }),
        ]);
        let table: toml::Table = routes_text(&detours).parse().unwrap();
        assert_eq!(table["b"]["services"]["orders"].as_str(), Some("127.0.0.1:1235"));
        assert_eq!(table["c"]["peer"].as_str(), Some("127.0.0.1:1234"));
    }
}
