//! Talks to the text of a configuration file: changes one thing and keeps everything else as its
//! owner wrote it, comments and order included.
//! In: a text that parses. Out: another one; whether it may be used is for `Config::parse` to say.
//! Not here: whether a running cluster may take it (`change.rs`).
//! Tested by: below.

use super::value::{HostPort, host_port};
use std::collections::BTreeSet;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec::NodeRole;
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

/// A node to be written into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Its name.
    pub node: NodeId,
    /// Where its peers reach it.
    pub address: String,
    /// What it is for.
    pub role: NodeRole,
    /// Where it stands.
    pub zone: Option<String>,
}

/// Why a text cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It was agreed by a version that reads it differently.
    #[error("the agreed configuration is not TOML: {0}")]
    NotToml(String),
    /// Its tables are not where they should be.
    #[error("the agreed configuration has no table of {0}")]
    NoTable(&'static str),
}

fn document(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|error: toml_edit::TomlError| EditError::NotToml(error.to_string()))
}

fn table<'a>(
    document: &'a mut DocumentMut,
    name: &'static str,
) -> Result<&'a mut dyn TableLike, EditError> {
    document.get_mut(name).and_then(Item::as_table_like_mut).ok_or(EditError::NoTable(name))
}

/// The text without some nodes.
///
/// # Errors
/// When it is no configuration.
pub fn without_nodes(text: &str, nodes: &BTreeSet<NodeId>) -> Result<String, EditError> {
    let mut document = document(text)?;
    let table = table(&mut document, "nodes")?;
    for node in nodes {
        table.remove(node.as_str());
    }
    Ok(document.to_string())
}

/// The text with one more node.
///
/// # Errors
/// When it is no configuration.
pub fn with_node(text: &str, new: &NewNode) -> Result<String, EditError> {
    let mut document = document(text)?;
    // After the nodes that are there, not at the end of the file.
    let last = table(&mut document, "nodes")?
        .iter()
        .filter_map(|(_, item)| item.as_table()?.position())
        .max();
    let mut own = Table::new();
    own.set_position(last);
    own.insert("address", value(&new.address));
    if new.role == NodeRole::Witness {
        own.insert("role", value("witness"));
    }
    if let Some(zone) = &new.zone {
        own.insert("zone", value(zone));
    }
    own.decor_mut().set_prefix("\n");
    table(&mut document, "nodes")?.insert(new.node.as_str(), Item::Table(own));
    Ok(document.to_string())
}

/// The text with another durability, and none of its numbers, for some services.
///
/// # Errors
/// When it is no configuration.
pub fn with_durability(
    text: &str,
    word: &str,
    services: &BTreeSet<ServiceId>,
) -> Result<String, EditError> {
    let mut document = document(text)?;
    let all = table(&mut document, "services")?.iter_mut();
    for (_, item) in all.filter(|(name, _)| services.contains(&ServiceId::new(name.get()))) {
        let service = item.as_table_like_mut().ok_or(EditError::NoTable("services"))?;
        service.insert("durability", value(word));
        service.remove("acks");
        service.remove("async_lag_max");
        service.remove("async_delay_max");
    }
    Ok(document.to_string())
}

/// The text with one endpoint of a balanced service drained, or used again.
///
/// # Errors
/// When it is no configuration, or the endpoint is not in it.
pub fn with_drain(
    text: &str,
    service: &ServiceId,
    address: &HostPort,
    drain: bool,
) -> Result<String, EditError> {
    let mut document = document(text)?;
    let own = table(&mut document, "services")?.get_mut(service.as_str());
    let upstreams = own.and_then(|own| own.get_mut("upstreams"));
    let upstreams = upstreams.ok_or(EditError::NoTable("upstreams"))?;
    let is_it = |text: Option<&str>| {
        text.is_some_and(|text| host_port(text, 0).is_ok_and(|it| it == *address))
    };
    let of = |table: &dyn TableLike| is_it(table.get("address").and_then(Item::as_str));
    let found: Option<&mut dyn TableLike> = match upstreams {
        Item::Value(Value::Array(list)) => {
            let at = list.iter().position(|it| {
                is_it(it.as_str()) || it.as_inline_table().is_some_and(|table| of(table))
            });
            at.and_then(|at| list.get_mut(at)).and_then(|it| {
                if let Some(text) = it.as_str().map(str::to_owned) {
                    let decor = it.decor().clone();
                    let alone = InlineTable::from_iter([("address", text)]);
                    *it = Value::InlineTable(alone);
                    *it.decor_mut() = decor;
                }
                it.as_inline_table_mut().map(|table| table as &mut dyn TableLike)
            })
        }
        Item::ArrayOfTables(list) => {
            list.iter_mut().find(|table| of(*table)).map(|table| table as &mut dyn TableLike)
        }
        _ => None,
    };
    let found = found.ok_or(EditError::NoTable("upstreams"))?;
    if drain {
        found.insert("drain", value(true));
    } else {
        found.remove("drain");
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use tandem_core::spec::Durability;

    const TEXT: &str = "# the shop\ncluster = \"shop\"\n\n\
        [nodes.a]\naddress = \"10.0.0.1:7400\"\n\n\
        # in the cellar\n[nodes.b]\naddress = \"10.0.0.2:7400\"\n\n\
        [nodes.c]\naddress = \"10.0.0.3:7400\"\n\n\
        # the money\n[services.orders]\nkind = \"postgres\"\nclustering = \"active-passive\"\n\
        replication = \"primary-replica\"\nacks = 2\nlisten = 5432\n";

    fn parse(text: &str) -> Config {
        Config::parse(text, "test").unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
    }

    #[test]
    fn a_node_goes_and_the_rest_stays_as_written() {
        let text = without_nodes(TEXT, &["b".into()].into()).unwrap();
        assert!(!text.contains("nodes.b") && text.contains("# the money"), "{text}");
        let text = text.replace("acks = 2\n", "");
        assert_eq!(parse(&text).nodes.keys().map(NodeId::as_str).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn other_ways_to_write_nodes_are_understood() {
        let text = "cluster = \"s\"\n[nodes]\na = { address = \"10.0.0.1:7400\" }\n\
            b.address = \"10.0.0.2:7400\"\n";
        let left = without_nodes(text, &["b".into()].into()).unwrap();
        assert_eq!(parse(&left).nodes.len(), 1, "{left}");
    }

    #[test]
    fn a_node_comes_after_the_others() {
        let new = NewNode {
            node: "d".into(),
            address: "10.0.0.4:7400".into(),
            role: NodeRole::Witness,
            zone: Some("west".into()),
        };
        let text = with_node(TEXT, &new).unwrap();
        let config = parse(&text);
        assert_eq!(config.nodes[&new.node].role, NodeRole::Witness);
        assert_eq!(config.nodes[&new.node].zone.as_deref(), Some("west"));
        assert!(text.find("nodes.d").unwrap() < text.find("services").unwrap(), "{text}");
    }

    #[test]
    fn durability_is_written_without_the_old_numbers() {
        let config = parse(&with_durability(TEXT, "preferred", &["orders".into()].into()).unwrap());
        let orders = &config.services[&"orders".into()];
        assert_eq!(orders.durability, Durability::Preferred { acks: 1 });
    }

    #[test]
    fn an_endpoint_is_drained_however_it_is_written() {
        let head = "cluster = \"s\"\n[nodes.a]\naddress = \"10.0.0.1:7400\"\n[services.w]\n\
            kind = \"tcp\"\nclustering = \"load-balanced\"\nreplication = \"none\"\nlisten = 80\n";
        let lists = [
            "upstreams = [\"e1:1\", # the old one\n  \"E2:2\"]\n",
            "upstreams = [\"e1:1\", { address = \"e2:2\", weight = 2 }]\n",
            "[[services.w.upstreams]]\naddress = \"e1:1\"\n[[services.w.upstreams]]\n\
             address = \"e2:2\" # second\n",
        ];
        for list in lists {
            let before = parse(&format!("{head}{list}"));
            let service = "w".into();
            let address = &before.balanced[&service].upstreams[1].address;
            let drained = with_drain(&before.text, &service, address, true).unwrap();
            let after = parse(&drained);
            let drains = |config: &Config| {
                let all = config.balanced[&service].upstreams.iter();
                all.map(|it| it.drain).collect::<Vec<_>>()
            };
            assert_eq!(drains(&after), [false, true], "{drained}");
            assert_eq!(drained.matches('#').count(), list.matches('#').count(), "{drained}");
            let back = with_drain(&drained, &service, address, false).unwrap();
            assert_eq!(parse(&back).balanced, before.balanced, "{back}");
            let other = host_port("e3:3", 1).unwrap();
            let none = with_drain(&before.text, &service, &other, true);
            assert_eq!(none, Err(EditError::NoTable("upstreams")));
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert!(matches!(without_nodes("= 1", &BTreeSet::new()), Err(EditError::NotToml(_))));
        assert_eq!(without_nodes("", &BTreeSet::new()), Err(EditError::NoTable("nodes")));
    }
}
