//! Decides what a cluster looks like whose configuration somebody wrote, put on this machine.
//! In: the file's text, addresses. Out: the same text with other addresses, the ports that must
//! be free, where instances listen.
//! Not here: which addresses (`layout.rs`).
//! Tested by: below.

use super::{CLUSTER, Error, NodePlace};
use crate::config::{Config, Listen, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tandem_core::ids::NodeId;
use toml::{Table, Value};

/// A configuration that was written for any cluster.
#[derive(Clone, Debug)]
pub struct Given {
    table: Table,
    ports: BTreeSet<u16>,
    instances: BTreeMap<String, u16>,
    doors: BTreeMap<String, u16>,
    /// Services of PostgreSQL, and their door for reads.
    postgres: BTreeMap<String, Option<u16>>,
}

impl Given {
    /// Reads one.
    ///
    /// # Errors
    /// It is no configuration, or cannot be had several times on one machine.
    pub fn read(text: &str) -> Result<Self, Error> {
        let config = Config::parse(text, "the configuration").map_err(|found| refused(&found))?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| Error::Given {
            because: error.message().to_owned(),
        })?;
        let mut given = Self {
            table,
            ports: BTreeSet::new(),
            instances: BTreeMap::new(),
            doors: BTreeMap::new(),
            postgres: BTreeMap::new(),
        };
        for (name, service) in &config.services {
            given.door(name.as_str(), service.listen)?;
            let reads = service.read_listen.map(|listen| listen.port);
            given.ports.extend(reads);
            given.postgres.insert(name.to_string(), reads);
            given.instance(name.as_str(), service.port);
        }
        for (name, command) in &config.commands {
            if let Some(listen) = command.listen {
                given.door(name.as_str(), listen)?;
            }
            if let Some(port) = command.port {
                given.instance(name.as_str(), port);
            }
        }
        for (name, balanced) in &config.balanced {
            given.door(name.as_str(), balanced.listen)?;
        }
        Ok(given)
    }

    fn door(&mut self, service: &str, listen: Listen) -> Result<(), Error> {
        if let Some(ip) = listen.ip {
            let because = format!(
                "services.{service}.listen names {ip}, and here each node has an address of its \
                 own; try listen = {}",
                listen.port
            );
            return Err(Error::Given { because });
        }
        self.ports.insert(listen.port);
        self.doors.insert(service.to_owned(), listen.port);
        Ok(())
    }

    fn instance(&mut self, service: &str, port: u16) {
        self.ports.insert(port);
        self.instances.insert(service.to_owned(), port);
    }

    /// Its nodes, and which of them are witnesses.
    pub fn nodes(&self) -> Vec<(NodeId, bool)> {
        let nodes = self.table.get("nodes").and_then(Value::as_table);
        let role = |node: &Value| node.get("role").and_then(Value::as_str) == Some("witness");
        nodes.into_iter().flatten().map(|(name, it)| (NodeId::new(name), role(it))).collect()
    }

    /// What must be free on the address of each node.
    pub const fn ports(&self) -> &BTreeSet<u16> {
        &self.ports
    }

    /// Where instances listen, by service.
    pub const fn instances(&self) -> &BTreeMap<String, u16> {
        &self.instances
    }

    /// Where clients connect, by service.
    pub const fn doors(&self) -> &BTreeMap<String, u16> {
        &self.doors
    }

    /// Its services of PostgreSQL, each with the port of its door for reads, if it has one.
    pub const fn postgres(&self) -> &BTreeMap<String, Option<u16>> {
        &self.postgres
    }

    /// The file with the addresses that its nodes have here: (peer, API).
    pub fn text(
        &self,
        places: &[NodePlace],
        addresses: impl Fn(&NodePlace) -> (SocketAddr, SocketAddr),
    ) -> String {
        let mut table = self.table.clone();
        table.insert("cluster".into(), CLUSTER.into());
        let nodes = table.get_mut("nodes").and_then(Value::as_table_mut);
        for (name, node) in nodes.into_iter().flatten() {
            let place = places.iter().find(|place| place.node.as_str() == name);
            let (Some(place), Some(node)) = (place, node.as_table_mut()) else { continue };
            let (peer, api) = addresses(place);
            node.insert("address".into(), peer.to_string().into());
            node.insert("api".into(), api.to_string().into());
            node.remove("bind");
        }
        table.to_string()
    }
}

/// The first of what is wrong with it.
fn refused(found: &[Problem]) -> Error {
    let because = found.first().map_or_else(String::new, ToString::to_string);
    Error::Given { because: because.trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
cluster = "shop"
[nodes.x]
address = "10.0.0.1:7400"
zone = "east"
[nodes.y]
address = "10.0.0.2:7400"
bind = "0.0.0.0"
[nodes.z]
address = "10.0.0.3:7400"
role = "witness"
[services.jobs]
kind = "command"
clustering = "active-passive"
replication = "none"
command = ["/bin/true"]
listen = 8080
[services.web]
kind = "http"
clustering = "load-balanced"
replication = "none"
listen = 8081
upstreams = ["10.0.0.9:1"]
"#;

    #[test]
    fn the_nodes_move_here_and_the_rest_stays() {
        let given = Given::read(TEXT).unwrap();
        let names: Vec<_> =
            given.nodes().into_iter().map(|(node, w)| format!("{node}{w}")).collect();
        assert_eq!(names, ["xfalse", "yfalse", "ztrue"]);
        assert!(given.ports().contains(&8080) && given.ports().contains(&8081));
        assert_eq!(given.instances().len(), 1, "{given:?}");
        let places = [NodePlace {
            node: NodeId::new("y"),
            ip: [127, 77, 1, 12].into(),
            witness: false,
            dir: "/x/y".into(),
        }];
        let here = |_: &NodePlace| {
            ("127.77.1.12:7400".parse().unwrap(), "127.77.1.12:7401".parse().unwrap())
        };
        let table: Table = given.text(&places, here).parse().unwrap();
        assert_eq!(table["nodes"]["y"]["address"].as_str(), Some("127.77.1.12:7400"));
        assert!(table["nodes"]["y"].get("bind").is_none());
        assert_eq!(table["nodes"]["x"]["zone"].as_str(), Some("east"));
        assert_eq!(table["services"]["web"]["listen"].as_integer(), Some(8081));
    }

    #[test]
    fn what_cannot_be_had_three_times_on_one_machine_is_refused() {
        let text = TEXT.replace("listen = 8080", "listen = \"10.0.0.1:8080\"");
        let error = Given::read(&text).unwrap_err().to_string();
        assert!(
            error.contains("services.jobs.listen") && error.contains("listen = 8080"),
            "{error}"
        );
        let error = Given::read("cluster = 3").unwrap_err().to_string();
        assert!(error.contains("cluster"), "{error}");
    }
}
