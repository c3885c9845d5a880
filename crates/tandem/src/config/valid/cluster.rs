//! Decides whether the cluster's name and its nodes can be used.
//! In: the written nodes. Out: the checked ones.
//! Handles: H47 (two data nodes without a witness: no automatic failover, said at set-up).

use super::Node;
use super::checker::{Checker, Limits, Shape};
use crate::config::problem::{Code, Say, quoted};
use crate::config::raw;
use crate::config::value::{self, HostPort, Unreadable};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tandem_core::ids::NodeId;
use tandem_core::spec::NodeRole;
use toml::Spanned;

const API_PORT: u16 = 7401;
const NODE_PORT: u16 = 7400;
/// Every node talks to every other ten times a second, and a majority agrees on everything.
const NODES_MAX: usize = 50;
const SERVICES_MAX: usize = 100;
const ZONE_CHARS_MAX: usize = 63;

const PRIORITY: Limits = Limits {
    range: 0..=1000,
    default: 100,
    example: None,
    because: "greater is preferred, 0 is never primary",
};

const CAPACITY: Limits = Limits {
    range: 1..=1000,
    default: 1,
    example: None,
    because: "it says how much work a node can do, relative to the others; to empty one, drain it",
};

pub(super) fn name(written: Option<&Spanned<String>>, check: &mut Checker<'_, '_>) -> String {
    let Some(written) = written else {
        check.missing("cluster", "certificates and logs are named after the cluster", "\"shop\"");
        return String::new();
    };
    checked_name("cluster", written, check);
    written.get_ref().clone()
}

/// Whether a written name can be used; a problem if not.
pub(super) fn checked_name(
    what: &str,
    written: &Spanned<String>,
    check: &mut Checker<'_, '_>,
) -> bool {
    match value::name(written.get_ref()) {
        Ok(()) => true,
        Err(Unreadable { because, try_ }) => {
            let what = format!("{what} name {} cannot be used", quoted(written.get_ref()));
            check.problems.error(Code::BadName, &written.span(), Say::new(what, because, try_));
            false
        }
    }
}

/// Whether the file has no more nodes and services than can be run, and compared with each other.
pub(super) fn is_bounded(file: &raw::File, check: &mut Checker<'_, '_>) -> bool {
    let nodes = file.nodes.get(NODES_MAX).map(|node| (&node.name, "nodes", NODES_MAX));
    let services = file.services.get(SERVICES_MAX);
    let services = services.map(|service| (&service.name, "services", SERVICES_MAX));
    let over: Vec<_> = nodes.into_iter().chain(services).collect();
    for (name, what, most) in &over {
        let say = Say::new(
            format!("more than {most} {what}"),
            "every node watches every other and keeps the state of every service",
            format!("keep {most} {what}, and make a second cluster of the others"),
        );
        check.problems.error(Code::OutOfRange, &name.span(), say);
    }
    over.is_empty()
}

pub(super) fn nodes(
    file: &raw::File,
    shape: Shape,
    check: &mut Checker<'_, '_>,
) -> BTreeMap<NodeId, Node> {
    let mut nodes = BTreeMap::new();
    for raw in &file.nodes {
        let named = checked_name("node", &raw.name, check);
        if let Some(node) = node(raw, check)
            && named
        {
            nodes.insert(NodeId::new(raw.name.get_ref().as_str()), node);
        }
    }
    if !members(shape, check) {
        return nodes;
    }
    failover(&nodes, shape, check);
    nodes
}

fn node(raw: &raw::Node, check: &mut Checker<'_, '_>) -> Option<Node> {
    let path = |key: &str| format!("nodes.{}.{key}", raw.name.get_ref());
    if raw.address.is_none() {
        let because = "the other nodes must know where to find it";
        check.missing(&path("address"), because, &format!("\"10.0.0.1:{NODE_PORT}\""));
    }
    let reader = |text: &str| value::host_port(text, NODE_PORT);
    let address = check.read(&path("address"), raw.address.as_ref(), reader);
    let address = address.filter(|address| can_be_dialled(raw, address, check));
    let role = raw.role.as_ref().and_then(|role| {
        let read = |word: &str| match word {
            "data" => Some(NodeRole::Data),
            "witness" => Some(NodeRole::Witness),
            _ => None,
        };
        check.word(&path("role"), role, (&["data", "witness"], read))
    });
    let role = role.unwrap_or(NodeRole::Data);
    let priority = check.number(&path("priority"), raw.priority.as_ref(), &PRIORITY);
    let capacity = check.number(&path("capacity"), raw.capacity.as_ref(), &CAPACITY);
    if let (NodeRole::Witness, Some(written)) = (role, &raw.priority) {
        let what = format!("{} has no effect", path("priority"));
        let say = Say::new(what, "a witness holds no data and is never primary", "remove it");
        check.problems.warning(Code::NoEffect, &written.span(), say);
    }
    let zone = check.read(&path("zone"), raw.zone.as_ref(), zone);
    let bind = check.read(&path("bind"), raw.bind.as_ref(), value::ip);
    let api = check.read(&path("api"), raw.api.as_ref(), |text| value::socket(text, API_PORT));
    let address = address?;
    Some(Node {
        bind: bind.unwrap_or_else(|| default_bind(&address)),
        api: api.unwrap_or_else(|| default_api(&address)),
        address,
        zone,
        role,
        priority: u32::try_from(priority).unwrap_or(0),
        capacity: u32::try_from(capacity).unwrap_or(1),
    })
}

/// The address that others use is one of the machine's own; behind a name nobody knows which.
fn default_bind(address: &HostPort) -> IpAddr {
    address.host.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Loopback only; nodes that share a machine have loopback addresses of their own.
fn default_api(address: &HostPort) -> SocketAddr {
    let own = address.host.ip().filter(IpAddr::is_loopback);
    SocketAddr::new(own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), API_PORT)
}

fn can_be_dialled(raw: &raw::Node, address: &HostPort, check: &mut Checker<'_, '_>) -> bool {
    let Some(ip) = address.host.ip() else { return true };
    if !ip.is_unspecified() && !ip.is_multicast() {
        return true;
    }
    if let Some(written) = &raw.address {
        let why = Unreadable {
            because: format!("nobody can connect to {ip}"),
            try_: format!("write the node's own address, and bind = \"{ip}\" to listen on all"),
        };
        check.bad(&format!("nodes.{}.address", raw.name.get_ref()), written, why);
    }
    false
}

pub(super) fn zone(text: &str) -> Result<String, Unreadable> {
    let good = |c: char| c.is_alphanumeric() || "-_./:".contains(c);
    if !text.is_empty() && text.chars().count() <= ZONE_CHARS_MAX && text.chars().all(good) {
        return Ok(text.to_owned());
    }
    Err(Unreadable {
        because: format!("a zone is 1 to {ZONE_CHARS_MAX} letters, digits or -_./:"),
        try_: "write it like \"eu-west-1a\", or remove it".to_owned(),
    })
}

/// Whether there is anything to run on.
fn members(shape: Shape, check: &mut Checker<'_, '_>) -> bool {
    let place = check.place_of("nodes");
    if shape.voters() == 0 {
        let what = "there is no node";
        let because = "a cluster is made of nodes";
        let instead = "add: [nodes.a] and below it address = \"10.0.0.1:7400\"";
        check.problems.error(Code::TooFewNodes, &place, Say::new(what, because, instead));
    } else if shape.data == 0 {
        let what = "every node is a witness";
        let because = "a witness votes and holds no data: no instance could run anywhere";
        let instead = "remove role = \"witness\" from at least one node, better from two";
        check.problems.error(Code::TooFewNodes, &place, Say::new(what, because, instead));
    }
    shape.data > 0
}

/// Whether anybody can take over, and whether the votes can be won (H47).
fn failover(nodes: &BTreeMap<NodeId, Node>, shape: Shape, check: &mut Checker<'_, '_>) {
    let place = check.place_of("nodes");
    let may_be_primary: Vec<_> = nodes
        .iter()
        .filter(|(_, node)| node.role == NodeRole::Data && node.priority > 0)
        .map(|(id, _)| id)
        .collect();
    let known = nodes.len() == shape.voters();
    if known && may_be_primary.is_empty() {
        let what = "no node may be primary";
        let because = "every data node has priority = 0, which means never";
        let instead = "give at least two data nodes a priority above 0";
        check.problems.error(Code::TooFewNodes, &place, Say::new(what, because, instead));
        return;
    }
    let because = match (shape.data, shape.witnesses) {
        (1, _) => Some("there is only one data node: nobody holds a second copy".to_owned()),
        (2, 0) => Some(
            "two nodes that lose each other cannot tell which of them is cut off, and a majority \
             of two is both"
                .to_owned(),
        ),
        _ if known && may_be_primary.len() == 1 => {
            Some(format!("only {} has a priority above 0", may_be_primary[0]))
        }
        _ => None,
    };
    if let Some(because) = because {
        let instead = match shape.data {
            1 => "add a second data node, and a third node, if only as witness",
            2 if shape.witnesses == 0 => {
                "add a third node: [nodes.c] with its address and role = \"witness\" is enough"
            }
            _ => "give a second data node a priority above 0",
        };
        let say = Say::new("no automatic failover", because, instead);
        check.problems.warning(Code::NoFailover, &place, say);
        return;
    }
    if shape.voters().is_multiple_of(2) {
        let voters = shape.voters();
        let losses = (voters - 1) / 2;
        let say = Say::new(
            format!("{voters} nodes vote, an even number"),
            format!(
                "a majority of {voters} is {}, so {losses} may be lost: no more than of {}",
                voters / 2 + 1,
                voters - 1
            ),
            "add or remove one: a witness is enough",
        );
        check.problems.warning(Code::EvenVoters, &place, say);
    }
}
