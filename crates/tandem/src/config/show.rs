//! Talks to the owner: every value that is in effect, and where it comes from.
//! In: a `Config`. Out: `Shown`, one per key, in the order of the reference.
//! Not here: tables (`cli/config.rs`), the reasons themselves (`reference.rs`).

mod balanced;
mod command;
mod http;
mod key;
mod rate;

use super::reference::entry_of;
use super::valid::{Config, Listen, Node, ReadLag, Service};
use super::value::{print_bytes, print_duration};
use serde::Serialize;
use std::time::Duration;
use tandem_core::ids::ServiceId;
use tandem_core::spec::{Durability, NodeRole, Timing};

/// One value that is in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its key, in full.
    pub key: String,
    /// The value as it would be written; none where nothing is set.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The file, at this line.
    File(usize),
    /// Not written; why it is what it is.
    Default(String),
}

/// Every value that is in effect.
pub fn show(config: &Config) -> Vec<Shown> {
    let mut values = vec![("cluster".to_owned(), Some(config.cluster.clone()))];
    for (id, node) in &config.nodes {
        values.extend(node_values(node).map(|(key, value)| (format!("nodes.{id}.{key}"), value)));
    }
    for (id, service) in &config.services {
        let path = |key: &str| format!("services.{id}.{key}");
        values.extend(service_values(service).into_iter().map(|(key, value)| (path(key), value)));
        for (name, value) in &service.settings {
            values.push((path(&format!("postgresql.{name}")), Some(value.clone())));
        }
        values.extend(timing_values(&service.timing).map(|(key, value)| (path(key), value)));
    }
    for (id, service) in &config.commands {
        let path = |key: &str| format!("services.{id}.{key}");
        let shown = command::values(service).into_iter();
        values.extend(shown.map(|(key, value)| (path(&key), value)));
    }
    for (id, service) in &config.balanced {
        let path = |key: &str| format!("services.{id}.{key}");
        let shown = balanced::values(service).into_iter();
        values.extend(shown.map(|(key, value)| (path(&key), value)));
    }
    values.into_iter().map(|(key, value)| shown(config, key, value)).collect()
}

fn shown(config: &Config, key: String, value: Option<String>) -> Shown {
    let origin = config.line_of(&key).map_or_else(|| default_origin(config, &key), Origin::File);
    Shown { key, value, origin }
}

fn default_origin(config: &Config, key: &str) -> Origin {
    if let Some(service) = key.strip_suffix(".durability").and_then(|k| k.strip_prefix("services."))
    {
        return Origin::Default(durability_because(config, &service.into()));
    }
    let service = key.strip_prefix("services.").and_then(|rest| rest.split('.').next());
    let kind = service.and_then(|service| config.kind_of(&service.into()));
    Origin::Default(entry_of(key, kind).map_or_else(String::new, |entry| entry.reason.to_owned()))
}

/// Why a service has the durability that it has.
pub fn durability_because(config: &Config, service: &ServiceId) -> String {
    if let Some(line) = config.line_of(&format!("services.{service}.durability")) {
        return format!("line {line} says so");
    }
    if config.data_nodes().count() == 2 {
        "there are exactly two data nodes: with quorum, writes would stop whenever either is down"
            .to_owned()
    } else {
        "by default no acknowledged commit is ever lost".to_owned()
    }
}

fn node_values(node: &Node) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let role = match node.role {
        NodeRole::Data => "data",
        NodeRole::Witness => "witness",
    };
    [
        ("address", Some(node.address.to_string())),
        ("bind", Some(node.bind.to_string())),
        ("api", Some(node.api.to_string())),
        ("zone", node.zone.clone()),
        ("role", Some(role.to_owned())),
        ("priority", Some(node.priority.to_string())),
        ("capacity", Some(node.capacity.to_string())),
    ]
    .into_iter()
}

pub(super) fn listen(listen: Listen) -> String {
    listen.ip.map_or_else(
        || listen.port.to_string(),
        |ip| std::net::SocketAddr::new(ip, listen.port).to_string(),
    )
}

/// The word and the acknowledgements of a durability.
pub(super) const fn durability_parts(durability: Durability) -> (&'static str, Option<usize>) {
    match durability {
        Durability::Quorum { acks } => ("quorum", Some(acks)),
        Durability::Preferred { acks } => ("preferred", Some(acks)),
        Durability::Async { .. } => ("async", None),
    }
}

/// What a failover may lose, in bytes and in time.
const fn async_bounds(durability: Durability) -> Option<(u64, Duration)> {
    match durability {
        Durability::Quorum { .. } | Durability::Preferred { .. } => None,
        Durability::Async { lag_bytes_max, lag_max } => Some((lag_bytes_max, lag_max)),
    }
}

fn service_values(service: &Service) -> Vec<(&'static str, Option<String>)> {
    let (word, acks) = durability_parts(service.durability);
    let bounds = async_bounds(service.durability);
    let read_lag = match service.read_lag_max {
        ReadLag::Bytes(bytes) => print_bytes(bytes),
        ReadLag::Time(time) => print_duration(time),
    };
    let folder = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| p.display().to_string());
    let hba = (!service.hba.is_empty()).then(|| service.hba.join("; "));
    vec![
        ("kind", Some(service.pairing.kind().to_string())),
        ("clustering", Some(service.pairing.clustering().to_string())),
        ("replication", Some(service.pairing.replication().to_string())),
        ("durability", Some(word.to_owned())),
        ("acks", acks.map(|acks| acks.to_string())),
        ("async_lag_max", bounds.map(|(bytes, _)| print_bytes(bytes))),
        ("async_delay_max", bounds.map(|(_, time)| print_duration(time))),
        ("listen", Some(listen(service.listen))),
        ("read_listen", service.read_listen.map(listen)),
        ("read_lag_max", service.spreads_reads().then_some(read_lag)),
        ("read_balance", service.spreads_reads().then(|| service.read_policy.word().to_owned())),
        ("port", Some(service.port.to_string())),
        ("hold_max", Some(print_duration(service.hold_max))),
        ("held_max", Some(service.held_max.to_string())),
        ("sessions_max", Some(service.sessions_max.to_string())),
        ("bin_dir", folder(&service.bin_dir)),
        ("data_dir", folder(&service.data_dir)),
        ("ballast", Some(print_bytes(service.ballast_bytes))),
        ("run_as", service.run_as.clone()),
        ("hba", hba),
    ]
}

fn timing_values(timing: &Timing) -> impl Iterator<Item = (&'static str, Option<String>)> {
    [
        ("timing.heartbeat", timing.heartbeat),
        ("timing.suspicion", timing.suspicion),
        ("timing.lease", timing.lease),
        ("timing.drift_margin", timing.drift_margin),
        ("timing.stable_after", timing.stable_after),
        ("timing.rejoin_patience", timing.rejoin_patience),
    ]
    .into_iter()
    .map(|(key, duration)| (key, Some(print_duration(duration))))
}
