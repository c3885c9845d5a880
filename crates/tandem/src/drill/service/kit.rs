//! Decides what the cluster of a drill looks like, and talks to the folder with its evidence.
//! In: a `Subject`. Out: a configuration, the ledger's place, addresses of endpoints.
//! Not here: the cluster itself (`dev`), what its service does (`worker`).
//! Tested by: below.

use super::faults::Shape;
use super::subject::Subject;
use crate::dev;
use crate::drill::Error;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tandem_core::ids::NodeId;

/// The service of a drill.
pub const SERVICE: &str = "drill";
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
/// As many as nodes: one can be lost, and two remain to choose between.
const ENDPOINTS: u8 = 3;
/// How they call themselves.
pub const ENDPOINT_NAMES: [&str; 3] = ["x", "y", "z"];
/// Into how many parts work is divided: some for each node, of as many as there may be.
pub const PARTITIONS: u32 = 12;
/// Ports that hardly anything else has; a taken one moves the cluster to other addresses.
const DOOR: u16 = 7480;
const INSTANCE: u16 = 7490;
const TRIES: u32 = 100;
/// A command that is another one to Tandem.
const CHANGED: &str = "env = { DRILL = \"changed\" }\n";
/// The capacity of a node that shall have more of the work than one of 1.
const GREATER: u32 = 3;

/// Everything of a drill but its cluster.
#[derive(Debug)]
pub struct Kit {
    subject: Subject,
    nodes: usize,
    exe: PathBuf,
    folder: Folder,
    /// Where its endpoints are; none where Tandem runs the service.
    pub endpoints: Vec<SocketAddr>,
}

/// Gone with its owner.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Kit {
    /// Makes the folder and finds addresses.
    ///
    /// # Errors
    /// When there is no room or no address.
    pub fn new(subject: Subject, nodes: usize, exe: &Path) -> Result<Self, Error> {
        let name = format!("tandem-drill-{:08x}", rand::random::<u32>());
        let path = std::env::temp_dir().join(name);
        let made = std::fs::DirBuilder::new().mode(0o755).create(&path);
        made.map_err(|source| Error::Folder { path: path.clone(), source })?;
        let folder = Folder(path);
        let endpoints = if subject.has_endpoints() { free_addresses()? } else { Vec::new() };
        Ok(Self { subject, nodes, exe: exe.into(), folder, endpoints })
    }

    /// Where everything that works writes down what it does.
    pub fn ledger(&self) -> PathBuf {
        self.folder.0.join("ledger")
    }

    /// Where a configuration is written that shall be applied.
    pub fn config_path(&self) -> PathBuf {
        self.folder.0.join("tandem.toml")
    }

    /// Keeps a token with which a node joins, from everybody else on the machine: it is worth a
    /// node's identity.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_token(&self, token: &str) -> Result<PathBuf, Error> {
        let path = self.folder.0.join("token");
        dev::write_private(&path, token)?;
        Ok(path)
    }

    /// The program that does the work.
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// A node that may join.
    pub fn spare(&self) -> NodeId {
        NodeId::new(NAMES.get(self.nodes).copied().unwrap_or("j"))
    }

    /// The configuration; its nodes have no addresses yet that mean anything.
    pub fn text(&self, shape: &Shape) -> String {
        let mut text = String::from("cluster = \"drill\"\n");
        let nodes = self.nodes + usize::from(shape.added);
        for (name, host) in NAMES.iter().take(nodes).zip(1..) {
            let _ = writeln!(text, "[nodes.{name}]\naddress = \"192.0.2.{host}:7400\"");
            if shape.greater.as_ref().is_some_and(|node| node.as_str() == *name) {
                let _ = writeln!(text, "capacity = {GREATER}");
            }
        }
        let _ = writeln!(text, "[services.{SERVICE}]\nreplication = \"none\"");
        // No door leads to the owner of a partition.
        if self.subject != Subject::Partitions {
            let _ = writeln!(text, "listen = {DOOR}");
        }
        if shape.changed {
            text.push_str(CHANGED);
        }
        match self.subject {
            // PostgreSQL has a cluster of its own: it is asked for nothing here.
            Subject::Postgres => {}
            Subject::Singleton => {
                text.push_str("clustering = \"active-passive\"\n");
                self.command(&mut text, "");
            }
            Subject::Partitions | Subject::Keys => {
                let _ = writeln!(
                    text,
                    "clustering = \"active-active\"\npartitions = {PARTITIONS}\n\
                     release_max = \"1s\""
                );
                if self.subject == Subject::Keys {
                    // Each request has a key of its own.
                    text.push_str("door = \"http\"\npartition_key = { path_segment = 2 }\n");
                }
                self.command(&mut text, ", \"--divided\"");
            }
            Subject::Copies | Subject::Sessions => {
                let clustering = match self.subject {
                    Subject::Copies => "load-balanced\"\n",
                    // Before the request's own name stands that of its session.
                    _ => "active-active\"\nhash_key = { path_segment = 2 }\n",
                };
                let _ = write!(
                    text,
                    "clustering = \"{clustering}door = \"http\"\nslow_start = \"0s\"\n\
                     ejection = {{ time = \"1s\" }}\n",
                );
                if let Some(replicas) = shape.replicas {
                    let _ = writeln!(text, "replicas = {replicas}");
                }
                self.command(&mut text, "");
            }
            Subject::Http => self.balanced(&mut text, ("http", ", path = \"/healthz\""), shape),
            Subject::Tcp => self.balanced(&mut text, ("tcp", ""), shape),
        }
        text
    }

    fn command(&self, text: &mut String, more: &str) {
        let (exe, ledger) = (self.exe.display().to_string(), self.ledger().display().to_string());
        let _ = writeln!(
            text,
            "kind = \"command\"\nport = {INSTANCE}\nstop_max = \"1s\"\n\
             command = [{exe:?}, \"drill-service\", \"--ledger\", {ledger:?}, \"--listen\", \
             \"{{bind}}:{{port}}\"{more}]\n\
             health = {{ http = \"/healthz\", interval = \"200ms\", timeout = \"500ms\", fall = 2, \
             rise = 1, grace = \"2s\" }}"
        );
    }

    fn balanced(&self, text: &mut String, (kind, path): (&str, &str), shape: &Shape) {
        let listed = self.endpoints.iter().enumerate();
        let listed = listed.filter(|(at, _)| shape.without != Some(*at));
        let upstreams: Vec<String> = listed.map(|(_, address)| format!("\"{address}\"")).collect();
        let _ = writeln!(
            text,
            "kind = \"{kind}\"\nclustering = \"load-balanced\"\nupstreams = [{}]\n\
             slow_start = \"0s\"\nejection = {{ time = \"1s\" }}\n\
             health = {{ interval = \"400ms\", timeout = \"300ms\", fall = 2, rise = 1{path} }}",
            upstreams.join(", ")
        );
    }
}

/// Addresses on which nothing of another drill listens. Connections to them come from 127.0.0.1,
/// so that none can take the port of an endpoint that is down.
fn free_addresses() -> Result<Vec<SocketAddr>, Error> {
    for _ in 0..TRIES {
        let network = rand::random_range(1..=254);
        let at = |host: u8| SocketAddr::from((Ipv4Addr::new(127, 88, network, host), INSTANCE));
        let addresses: Vec<SocketAddr> = (1..=ENDPOINTS).map(at).collect();
        if addresses.iter().all(|address| TcpListener::bind(address).is_ok()) {
            return Ok(addresses);
        }
    }
    Err(Error::NoFreeAddresses { tried: TRIES })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::drill::Fault;

    #[test]
    fn what_it_writes_can_be_run() {
        for subject in Subject::ALL.iter().filter(|it| **it != Subject::Postgres) {
            let kit = Kit::new(*subject, 3, Path::new("/bin/tandem")).unwrap();
            let text = kit.text(&Shape::default());
            let config = Config::parse(&text, "t").unwrap_or_else(|found| panic!("{found:?}"));
            assert_eq!(config.nodes.len(), 3);
            let more = kit.text(&Shape { added: true, ..Shape::default() });
            let more = Config::parse(&more, "t").unwrap();
            assert!(more.nodes.len() == 4 && more.nodes.contains_key(&kit.spare()));
            assert_eq!(config.commands.len() + config.balanced.len(), 1, "{subject}");
            if subject.has_endpoints() {
                let smaller = kit.text(&Shape { without: Some(1), ..Shape::default() });
                let config = Config::parse(&smaller, "t").unwrap();
                assert_eq!(config.balanced[&SERVICE.into()].upstreams.len(), 2);
            }
            if *subject == Subject::Copies {
                let fewer = kit.text(&Shape { replicas: Some(2), ..Shape::default() });
                let config = Config::parse(&fewer, "t").unwrap();
                let copies = config.commands[&SERVICE.into()].copies.as_ref().unwrap();
                assert_eq!(copies.replicas, Some(2));
            }
            if subject.faults().contains(&Fault::Change) {
                let changed = kit.text(&Shape { changed: true, ..Shape::default() });
                let changed = &Config::parse(&changed, "t").unwrap().commands[&SERVICE.into()];
                assert_ne!(changed.env, config.commands[&SERVICE.into()].env);
            }
            if *subject == Subject::Partitions {
                let shape = Shape { greater: Some("b".into()), ..Shape::default() };
                let greater = Config::parse(&kit.text(&shape), "t").unwrap();
                assert_eq!(greater.nodes[&"b".into()].capacity, GREATER);
                assert_eq!(greater.nodes[&"a".into()].capacity, 1);
            }
            let door = config.commands.get(&SERVICE.into()).and_then(|it| it.partitions.as_ref());
            let by_key = door.is_some_and(|it| it.door.is_some());
            assert_eq!(by_key, *subject == Subject::Keys);
            let folder = kit.folder.0.clone();
            assert!(folder.exists());
            drop(kit);
            assert!(!folder.exists());
        }
    }

    #[test]
    fn nobody_else_can_read_a_token() {
        use std::os::unix::fs::PermissionsExt;
        let kit = Kit::new(Subject::Copies, 3, Path::new("/bin/tandem")).unwrap();
        for token in ["one", "two"] {
            let path = kit.keep_token(token).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), token);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
