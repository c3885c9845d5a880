//! Tells every value of a service that is a command.
//! In: `Command`. Out: keys below its table, and values as they would be written.

use super::{balanced, key, listen};
use crate::config::valid::{Balanced, Command, KeyDoor, Probe};
use crate::config::value::{print_bytes, print_duration};

type Value = (String, Option<String>);

pub(super) fn values(service: &Command) -> Vec<Value> {
    let words = |words: &[String]| (!words.is_empty()).then(|| words.join(" "));
    let names: Vec<&str> = service.env.keys().map(String::as_str).collect();
    let limits = if service.limits.is_empty() { "false" } else { "on" };
    let health = if service.health.is_some() { "on" } else { "false" };
    let mut values: Vec<Value> = vec![
        ("kind", Some(service.pairing.kind().to_string())),
        ("clustering", Some(service.pairing.clustering().to_string())),
        ("replication", Some(service.pairing.replication().to_string())),
        ("command", words(&service.command)),
        ("listen", service.listen.map(listen)),
        ("port", service.port.map(|port| port.to_string())),
        ("run_as", service.run_as.clone()),
        ("cwd", service.cwd.as_ref().map(|path| path.display().to_string())),
        // Values may be long, and tell more than a table should.
        ("env", (!names.is_empty()).then(|| names.join(", "))),
        ("limits", Some(limits.to_owned())),
        ("stop", words(&service.stop)),
        ("stop_max", Some(print_duration(service.stop_max))),
        ("health", Some(health.to_owned())),
        ("on_start", words(&service.on_start)),
        ("on_stop", words(&service.on_stop)),
        ("hook_max", Some(print_duration(service.hook_max))),
        ("log_max", Some(print_bytes(service.log_bytes_max))),
        ("lease", Some(print_duration(service.timing.lease))),
        ("hold_max", Some(print_duration(service.hold_max))),
        ("sessions_max", Some(service.sessions_max.to_string())),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    for key in ["nofile", "core", "nproc", "memlock", "address_space", "fsize"] {
        let limit = service.limits.get(key).map(u64::to_string);
        values.push((format!("limits.{key}"), limit));
    }
    health_values(service, &mut values);
    copies_values(service, &mut values);
    if let Some(partitions) = &service.partitions {
        values.push(("partitions".to_owned(), Some(partitions.count.to_string())));
        values.push(("release_max".to_owned(), Some(print_duration(partitions.release_max))));
        values.push(("on_partitions".to_owned(), words(&partitions.on_partitions)));
        key_door_values(partitions.door.as_ref(), &mut values);
    }
    values
}

/// The door to the owners, which has nothing to choose.
fn key_door_values(door: Option<&KeyDoor>, values: &mut Vec<Value>) {
    let Some(KeyDoor { key, door }) = door else { return };
    key::values("partition_key", Some(key), values);
    door_values(door, values);
    let chooses = |key: &str| {
        let part = key.split('.').next().unwrap_or_default();
        ["balance", "sticky", "hash_key", "ejection", "slow_start"].contains(&part)
    };
    values.retain(|(key, _)| !chooses(key));
}

/// What several copies have, and their door.
fn copies_values(service: &Command, values: &mut Vec<Value>) {
    let drain_alone = Some(print_duration(service.drain_max));
    let Some(copies) = &service.copies else {
        // A door of another service may lead there, if it listens.
        let is_reached = service.port.is_some() && service.partitions.is_none();
        values.extend(is_reached.then(|| ("drain_max".to_owned(), drain_alone)));
        return;
    };
    let replicas = copies.replicas.map(|replicas| replicas.to_string());
    values.push(("replicas".to_owned(), replicas));
    values.push(("drain_max".to_owned(), Some(print_duration(copies.drain_max))));
    // It has none.
    values.retain(|(key, _)| key != "lease");
    copies.door.iter().for_each(|door| door_values(door, values));
}

fn door_values(door: &Balanced, values: &mut Vec<Value>) {
    let word = if door.http.is_some() { "http" } else { "tcp" };
    values.push(("door".to_owned(), Some(word.to_owned())));
    let is_new = |(key, _): &Value| {
        let is_of_others = key == "upstreams" || key == "health";
        !is_of_others && values.iter().all(|(known, _)| known != key)
    };
    let new: Vec<Value> = balanced::values(door).into_iter().filter(is_new).collect();
    values.extend(new);
}

/// What is switched off has no values.
fn health_values(service: &Command, values: &mut Vec<Value>) {
    let Some(health) = &service.health else { return };
    let (http, tcp, exec) = match &health.probe {
        Probe::Http(path) => (Some(path.clone()), false, None),
        Probe::Tcp => (None, true, None),
        Probe::Exec(words) => (None, false, Some(words.join(" "))),
    };
    let all = [
        ("http", http),
        ("tcp", Some(tcp.to_string())),
        ("exec", exec),
        ("interval", Some(print_duration(health.interval))),
        ("timeout", Some(print_duration(health.timeout))),
        ("fall", Some(health.fall.to_string())),
        ("rise", Some(health.rise.to_string())),
        ("grace", Some(print_duration(health.grace))),
    ];
    values.extend(all.map(|(key, value)| (format!("health.{key}"), value)));
}
