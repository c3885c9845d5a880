//! Decides whether all listeners and folders of a node fit side by side.
//! In: the checked nodes and services. Out: problems for what collides.

use super::balanced::led_exists;
use super::checker::Checker;
use super::service::Services;
use super::{Balanced, Node, Upstream};
use crate::config::problem::{Code, Say};
use crate::config::value::Host;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec::NodeRole;

type Nodes = BTreeMap<NodeId, Node>;

pub(super) fn check(nodes: &Nodes, services: &Services, check: &mut Checker<'_, '_>) {
    addresses(nodes, check);
    machines(nodes, check);
    ports(nodes, services, check);
    folders(services, check);
    for (id, service) in &services.balanced {
        led_exists(services, (id, service), check);
        loops(nodes, (id, service), check);
        zones(nodes, (id, service), check);
    }
}

fn addresses(nodes: &Nodes, check: &mut Checker<'_, '_>) {
    let mut seen = BTreeMap::new();
    for (id, node) in nodes {
        let Some(first) = seen.insert(&node.address, id) else { continue };
        seen.insert(&node.address, first);
        let key = format!("nodes.{id}.address");
        let line = check.line_of(&format!("nodes.{first}.address"));
        let what = format!("{key} is {} again", node.address);
        let because = format!("line {line} gives it to {first}: nobody could tell the two apart");
        let place = check.place_of(&key);
        let say = Say::new(what, because, format!("write the address of {id}"));
        check.problems.error(Code::DuplicateAddress, &place, say);
    }
}

/// Nodes on one machine share its end and its ports; loopback and other addresses do not mix.
fn machines(nodes: &Nodes, check: &mut Checker<'_, '_>) {
    let loopback = nodes.values().filter(|node| node.address.host.is_loopback()).count();
    let mut hosts: BTreeMap<&Host, &NodeId> = BTreeMap::new();
    for (id, node) in nodes {
        let key = format!("nodes.{id}.address");
        let place = check.place_of(&key);
        let host = &node.address.host;
        if host.is_loopback() && loopback < nodes.len() {
            let what = format!("{key} is {host}");
            let because = "for every other node that address is itself, not this node";
            let instead = "write an address that the other nodes can reach";
            check.problems.warning(Code::SharedMachine, &place, Say::new(what, because, instead));
        }
        match hosts.get(host) {
            // Told already, as one address for two nodes.
            Some(first) if nodes[*first].address == node.address => {}
            Some(first) => {
                let what = format!("{id} and {first} are both on {host}");
                let because = "they fail together, and both would listen on the services' ports";
                let instead = "give each node a machine of its own, or at least its own address";
                let say = Say::new(what, because, instead);
                check.problems.warning(Code::SharedMachine, &place, say);
            }
            None => {
                hosts.insert(host, id);
            }
        }
    }
}

/// Something that listens on a node.
struct Claim {
    at: SocketAddr,
    key: String,
}

impl Claim {
    /// The key without its node: what collides on one node mostly collides on all.
    fn kind(&self) -> String {
        match self.key.split('.').collect::<Vec<_>>()[..] {
            ["nodes", _, key] => format!("nodes.{key}"),
            _ => self.key.clone(),
        }
    }

    /// The front door that a default is derived from.
    fn listen(&self) -> Option<String> {
        self.key.rsplit_once('.').map(|(service, _)| format!("{service}.listen"))
    }
}

/// Whether both are defaults derived from front doors that collide themselves.
fn follows(
    first: &Claim,
    second: &Claim,
    told: &BTreeSet<(String, String)>,
    check: &Checker<'_, '_>,
) -> bool {
    let (Some(a), Some(b)) = (first.listen(), second.listen()) else { return false };
    !check.is_written(&first.key) && !check.is_written(&second.key) && told.contains(&(a, b))
}

fn claims(node: (&NodeId, &Node), services: &Services) -> Vec<Claim> {
    let (id, node) = node;
    let mut claims = vec![
        Claim { at: node.listen_address(), key: format!("nodes.{id}.address") },
        Claim { at: node.api, key: format!("nodes.{id}.api") },
    ];
    for (name, service) in &services.postgres {
        let key = |key: &str| format!("services.{name}.{key}");
        claims.push(Claim { at: service.listen.on(node), key: key("listen") });
        if let Some(listen) = service.read_listen {
            claims.push(Claim { at: listen.on(node), key: key("read_listen") });
        }
        if node.role == NodeRole::Data {
            claims.push(Claim { at: service.instance_address(node), key: key("port") });
        }
    }
    for (name, service) in &services.commands {
        let key = |key: &str| format!("services.{name}.{key}");
        if let Some(listen) = service.listen {
            claims.push(Claim { at: listen.on(node), key: key("listen") });
        }
        if let Some(at) = service.instance_address(node).filter(|_| node.role == NodeRole::Data) {
            claims.push(Claim { at, key: key("port") });
        }
    }
    for (name, service) in &services.balanced {
        let key = format!("services.{name}.listen");
        claims.push(Claim { at: service.listen.on(node), key });
    }
    claims
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn ports(nodes: &Nodes, services: &Services, check: &mut Checker<'_, '_>) {
    let mut told = BTreeSet::new();
    for node in nodes {
        let mut before: BTreeMap<u16, Vec<Claim>> = BTreeMap::new();
        for claim in claims(node, services) {
            let port = claim.at.port();
            let same_port = before.entry(port).or_default();
            if let Some(first) = same_port.iter().find(|first| collide(first.at, claim.at))
                && !follows(first, &claim, &told, check)
                && told.insert((first.kind(), claim.kind()))
            {
                clash(first, &claim, check);
            }
            same_port.push(claim);
        }
    }
}

fn clash(first: &Claim, second: &Claim, check: &mut Checker<'_, '_>) {
    // The one that somebody wrote is the one to point at and to change.
    let (guilty, other) = if check.is_written(&second.key) || !check.is_written(&first.key) {
        (second, first)
    } else {
        (first, second)
    };
    let describe = |claim: &Claim, check: &Checker<'_, '_>| {
        if check.is_written(&claim.key) {
            format!("{} (line {})", claim.key, check.line_of(&claim.key))
        } else {
            format!("{} (by default)", claim.key)
        }
    };
    let port = guilty.at.port();
    let what = format!("{} and {} both listen on port {port}", guilty.key, other.key);
    let because = format!(
        "{} listens on {} and {} on {}: the second to start would fail",
        describe(guilty, check),
        guilty.at,
        describe(other, check),
        other.at
    );
    let short = guilty.key.rsplit('.').next().unwrap_or(&guilty.key);
    let place = check.place_of(&guilty.key);
    let say = Say::new(what, because, format!("write another port for `{short}`"));
    check.problems.error(Code::PortClash, &place, say);
}

fn folders(services: &Services, check: &mut Checker<'_, '_>) {
    let written: Vec<_> = services
        .postgres
        .iter()
        .filter_map(|(name, service)| Some((name, service.data_dir.as_ref()?)))
        .collect();
    for (index, (name, folder)) in written.iter().enumerate() {
        for (other, taken) in &written[..index] {
            if folder.starts_with(taken) || taken.starts_with(folder) {
                let key = format!("services.{name}.data_dir");
                let what = format!("{key} and that of {other} overlap");
                let because = format!(
                    "{} and {}: one would destroy the other",
                    folder.display(),
                    taken.display()
                );
                let place = check.place_of(&key);
                let say = Say::new(what, because, "give each service a folder of its own");
                check.problems.error(Code::DataDirectory, &place, say);
            }
        }
    }
}

/// An endpoint that is the service's own front door: each connection would make another one.
fn loops(nodes: &Nodes, (id, service): (&ServiceId, &Balanced), check: &mut Checker<'_, '_>) {
    for (at, Upstream { address, .. }) in service.upstreams.iter().enumerate() {
        let is_door = |node: &Node| {
            let door = service.listen.on(node);
            let by_name = address.host == node.address.host;
            let by_ip = address.host.ip().is_some_and(|ip| collide(door, (ip, door.port()).into()));
            // Of a door on all addresses only the own ones count, as far as they are known.
            let is_own = !door.ip().is_unspecified() || address.host.is_loopback();
            let is_here = by_name || (by_ip && is_own);
            door.port() == address.port && is_here
        };
        let Some((node, _)) = nodes.iter().find(|(_, node)| is_door(node)) else { continue };
        let key = format!("services.{id}.upstreams.{}.address", at + 1);
        let what = format!("{key} is the front door of {id} itself");
        let because = format!("on {node} it listens there: each connection would make another one");
        let instead = "write where the endpoint listens, or another port for `listen`";
        let place = check.place_of(&key);
        check.problems.error(Code::Contradiction, &place, Say::new(what, because, instead));
    }
}

/// A zone that no node is in is far from all of them.
fn zones(nodes: &Nodes, (id, service): (&ServiceId, &Balanced), check: &mut Checker<'_, '_>) {
    let known: BTreeSet<&str> = nodes.values().filter_map(|node| node.zone.as_deref()).collect();
    for (at, upstream) in service.upstreams.iter().enumerate() {
        let Some(zone) = upstream.zone.as_deref().filter(|zone| !known.contains(zone)) else {
            continue;
        };
        let key = format!("services.{id}.upstreams.{}.zone", at + 1);
        let what = format!("{key} is a zone of no node");
        let (because, instead) = if known.is_empty() {
            ("no node has a zone, so all endpoints are near".to_owned(), "give the nodes zones")
        } else {
            let known: Vec<&str> = known.iter().copied().collect();
            let because = format!("the nodes are in {}: {zone} is far from all", known.join(", "));
            (because, "write the zone of a node, if it is meant to be near to one")
        };
        let place = check.place_of(&key);
        check.problems.warning(Code::NoEffect, &place, Say::new(what, because, instead));
    }
}
