//! Every key of a service in every pattern that its kind can have: it changes what is run and is
//! shown, or it is refused by its name. A key that is ignored would be a setting that its owner
//! believes in and does not have.

use crate::config::reference::{Entry, entries};
use crate::config::{Code, Config, Origin, Problem, show};
use std::collections::{BTreeMap, BTreeSet};
use tandem_core::pairing::Kind;

/// What is written of a service, by key.
type Keys = BTreeMap<&'static str, &'static str>;
type Written = &'static [(&'static str, &'static str)];
/// A value that is no default, and what has to be there beside it.
type Example = (&'static str, Written);

const COMMAND: Written = &[("kind", "'command'"), ("command", "['job']")];
const ALONE: Written = &[("clustering", "'active-passive'"), ("replication", "'none'")];
const SPREAD: Written = &[("clustering", "'load-balanced'"), ("replication", "'none'")];
const EACH: Written = &[("clustering", "'active-active'"), ("replication", "'none'")];
const DOOR: Written = &[("listen", "5000"), ("port", "6000")];
const REQUESTS: Written = &[("door", "'http'")];
const DIVIDED: Written = &[("partitions", "12")];
const AWAY: Written = &[("listen", "5000"), ("upstreams", "['10.0.0.9:80', 'x:80']")];
const PG: Written = &[("kind", "'postgres'"), ("replication", "'primary-replica'")];

/// Each way to run a service of a kind.
const PATTERNS: &[(Kind, &[Written])] = &[
    (Kind::Postgres, &[PG, &[("clustering", "'active-passive'")]]),
    (Kind::Postgres, &[PG, &[("clustering", "'load-balanced'")]]),
    (Kind::Command, &[COMMAND, ALONE]),
    (Kind::Command, &[COMMAND, ALONE, DOOR]),
    (Kind::Command, &[COMMAND, SPREAD]),
    (Kind::Command, &[COMMAND, SPREAD, DOOR]),
    (Kind::Command, &[COMMAND, SPREAD, DOOR, REQUESTS]),
    (Kind::Command, &[COMMAND, EACH]),
    (Kind::Command, &[COMMAND, EACH, DOOR]),
    (Kind::Command, &[COMMAND, EACH, DOOR, REQUESTS]),
    (Kind::Command, &[COMMAND, EACH, DIVIDED]),
    (Kind::Command, &[COMMAND, EACH, DIVIDED, DOOR]),
    (Kind::Command, &[COMMAND, EACH, DIVIDED, DOOR, REQUESTS, KEY]),
    (Kind::Tcp, &[&[("kind", "'tcp'")], SPREAD, AWAY]),
    (Kind::Http, &[&[("kind", "'http'")], SPREAD, AWAY]),
];

const TLS: Written = &[("health.tls.ca", "'/ca'")];
const CA: Written = &[("upstream_tls.ca", "'/ca'")];
const PAIR: Written = &[("upstream_tls.ca", "'/ca'"), ("upstream_tls.key", "'/k'")];
const ROLE: Written = &[("health.postgres.role", "'any'"), ("health.postgres.user", "'app'")];
const CHECK: Written = &[("health.path", "'/ok'")];
const RATE: Written = &[("rate_limit.per_client", "'10/s'")];
const ASYNC: Written = &[("durability", "'async'")];
const KEY: Written = &[("partition_key", "{ header = 'x' }")];
const PAIRS: Written = &[("certificates", "[{ certificate = '/c', key = '/k' }]")];
const PROXIED: Written = &[("accept_proxy", "true")];
const HASH: Written = &[("balance", "'hash'")];

fn example(kind: Kind, key: &str) -> Option<Example> {
    match key.split_once('.') {
        None => example_of_key(kind, key),
        Some(("timing" | "limits" | "ejection" | "retry", _)) => example_of_number(key),
        Some(("health", _)) => example_of_health(kind, key),
        Some(("certificates" | "upstreams", _)) => example_of_entry(key),
        Some(_) => example_of_part(key),
    }
}

fn example_of_key(kind: Kind, key: &str) -> Option<Example> {
    let of_command = kind == Kind::Command;
    Some(match key {
        "listen" | "read_listen" => ("5999", &[]),
        "port" => ("6999", &[]),
        "hold_max" | "slow_start" | "drain_max" | "release_max" => ("'7s'", &[]),
        "head_timeout" | "keep_alive" | "answer_timeout" | "total_timeout" => ("'7s'", &[]),
        "idle_timeout" | "upstream_idle_timeout" | "stop_max" | "hook_max" => ("'7s'", &[]),
        "connect_timeout" => ("'700ms'", &[]),
        "lease" => ("'2s'", &[]),
        "sessions_max" | "held_max" | "connections_max" | "in_flight_max" => ("77", &[]),
        "upstream_idle_max" | "fields_max" => ("77", &[]),
        "head_max" => ("'16kB'", &[]),
        "body_max" | "log_max" | "ballast" => ("'7MB'", &[]),
        "read_lag_max" => ("'7s'", &[]),
        "read_balance" | "balance" => ("'round-robin'", &[]),
        "durability" => ("'preferred'", &[]),
        "acks" => ("2", &[]),
        "replicas" => ("2", &[]),
        "partitions" => ("7", &[]),
        "partition_key" => ("{ cookie = 'y' }", &[]),
        "door" => ("'http'", &[]),
        "accept_proxy" => ("true", &[]),
        "http2" => ("false", &[]),
        "send_proxy" => ("'v1'", &[]),
        "sticky" => ("'place'", &[]),
        "trusted" => ("['10.0.0.1']", &[]),
        "accept_proxy_from" => ("['10.0.0.1']", PROXIED),
        "hash_key" => ("{ header = 'x' }", HASH),
        "upstream_protocol" => ("'http2'", &[]),
        "upstream_tls" => ("{ ca = '/ca' }", &[]),
        "certificates" => ("[{ certificate = '/c', key = '/k' }]", &[]),
        "retry" => ("false", &[]),
        "rate_limit" => ("{ total = '7/s' }", &[]),
        "ejection" => ("false", &[]),
        "upstreams" => ("['10.0.0.8:80']", &[]),
        "health" if of_command => ("{ exec = ['true'] }", &[]),
        "health" => ("{ interval = '7s' }", &[]),
        "command" => ("['other']", &[]),
        "run_as" => ("'nobody'", &[]),
        "cwd" | "bin_dir" | "data_dir" => ("'/srv'", &[]),
        "env" => ("{ MODE = 'x' }", &[]),
        "stop" | "on_start" | "on_stop" | "on_partitions" => ("['word']", &[]),
        "limits" => ("{ nofile = 77 }", &[]),
        "hba" => ("['host all all 10.0.0.0/8 scram-sha-256']", &[]),
        "async_delay_max" => ("'7s'", ASYNC),
        "async_lag_max" => ("'7MB'", ASYNC),
        _ => return None,
    })
}

fn example_of_number(key: &str) -> Option<Example> {
    Some(match key {
        "retry.percent" | "retry.per_second" => ("7", &[]),
        "ejection.latency" => ("7", &[]),
        "ejection.errors" => ("false", &[]),
        "ejection.failures" | "ejection.success_min" | "ejection.share_max" => ("7", &[]),
        "ejection.window" | "ejection.time" | "ejection.time_max" => ("'1min'", &[]),
        _ if key.starts_with("limits.") => ("77", &[]),
        "timing.heartbeat" => ("'70ms'", &[]),
        "timing.suspicion" => ("'900ms'", &[]),
        "timing.lease" => ("'1400ms'", &[]),
        "timing.drift_margin" => ("'70ms'", &[]),
        "timing.stable_after" | "timing.rejoin_patience" => ("'7s'", &[]),
        _ => return None,
    })
}

fn example_of_health(kind: Kind, key: &str) -> Option<Example> {
    let of_command = kind == Kind::Command;
    let asked: Written = if of_command { &[("health.exec", "['true']")] } else { CHECK };
    Some(match key {
        "health.interval" => ("'7s'", asked),
        "health.timeout" => ("'70ms'", asked),
        "health.grace" => ("'7s'", asked),
        "health.fall" | "health.rise" => ("7", asked),
        "health.http" => ("'/ok'", &[]),
        "health.tcp" => ("true", &[]),
        "health.exec" => ("['true']", &[]),
        "health.path" => ("'/other'", &[]),
        "health.host" => ("'shop'", CHECK),
        "health.expect" => ("'200'", CHECK),
        "health.tls" => ("{ ca = '/ca' }", &[]),
        "health.tls.ca" => ("'/other'", &[]),
        "health.tls.server_name" => ("'name'", TLS),
        "health.tls.certificate" => {
            ("'/c'", &[("health.tls.ca", "'/ca'"), ("health.tls.key", "'/k'")])
        }
        "health.tls.key" => {
            ("'/k'", &[("health.tls.ca", "'/ca'"), ("health.tls.certificate", "'/c'")])
        }
        "health.postgres" => ("{ role = 'any', user = 'app' }", &[]),
        "health.postgres.role" => ("'primary'", &[("health.postgres.user", "'app'")]),
        "health.postgres.user" => ("'app'", &[("health.postgres.role", "'any'")]),
        "health.postgres.database" => ("'app'", ROLE),
        "health.postgres.password_file" => ("'/p'", ROLE),
        _ => return None,
    })
}

/// One entry of a list, written with the list.
fn example_of_entry(key: &str) -> Option<Example> {
    Some(match key {
        "certificates.INDEX.certificate" => ("[{ certificate = '/other', key = '/k' }]", PAIRS),
        "certificates.INDEX.key" => ("[{ certificate = '/c', key = '/other' }]", PAIRS),
        "upstreams.INDEX.address" => ("['10.0.0.8:80', 'x:80']", &[]),
        "upstreams.INDEX.service" => ("[{ service = 'own' }]", &[]),
        "upstreams.INDEX.weight" => ("[{ address = '10.0.0.9:80', weight = 7 }, 'x:80']", &[]),
        "upstreams.INDEX.zone" => ("[{ address = '10.0.0.9:80', zone = 'here' }, 'x:80']", &[]),
        "upstreams.INDEX.drain" => ("[{ address = '10.0.0.9:80', drain = true }, 'x:80']", &[]),
        _ => return None,
    })
}

fn example_of_part(key: &str) -> Option<Example> {
    Some(match key {
        "hash_key.header" | "hash_key.cookie" => ("'x'", HASH),
        "hash_key.path_segment" => ("2", HASH),
        "partition_key.header" | "partition_key.cookie" => ("'y'", &[]),
        "partition_key.path_segment" => ("2", &[]),
        "upstream_tls.ca" => ("'/ca'", &[]),
        "upstream_tls.server_name" => ("'name'", CA),
        "upstream_tls.certificate" => ("'/c'", PAIR),
        "upstream_tls.key" => {
            ("'/k'", &[("upstream_tls.ca", "'/ca'"), ("upstream_tls.certificate", "'/c'")])
        }
        "rate_limit.per_client" | "rate_limit.total" => ("'7/s'", &[]),
        "rate_limit.burst" => ("77", RATE),
        "rate_limit.total_burst" => ("77", &[("rate_limit.total", "'10/s'")]),
        "rate_limit.key" => ("{ header = 'x' }", RATE),
        "rate_limit.key.header" | "rate_limit.key.cookie" => ("'x'", RATE),
        "rate_limit.key.path_segment" => ("2", RATE),
        _ => return None,
    })
}

/// Keys whose value is what the pattern is; names that are the owner's choice.
const LEFT_OUT: &[&str] = &["kind", "clustering", "replication", "postgresql.SETTING"];

fn text(keys: &Keys) -> String {
    let mut text = "cluster = 'shop'\n".to_owned();
    for (node, last) in [("a", 1), ("b", 2), ("c", 3)] {
        text += &format!("[nodes.{node}]\naddress = '10.0.0.{last}:7400'\nzone = 'here'\n");
    }
    // What another service may lead to.
    text += "[services.own]\nkind = 'command'\nclustering = 'load-balanced'\n\
             replication = 'none'\ncommand = ['job']\nport = 6500\n";
    text += "[services.s]\n";
    // A table that is written whole has no part of it beside it.
    let is_whole = |key: &str| {
        keys.keys().any(|other| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    };
    for (key, value) in keys.iter().filter(|(key, _)| !is_whole(key)) {
        text += &format!("{key} = {value}\n");
    }
    text
}

fn read(keys: &Keys) -> Result<Config, Vec<Problem>> {
    Config::parse(&text(keys), "t.toml")
}

/// What is run, without where it was written.
fn run(config: &Config) -> String {
    let Config { services, commands, balanced, .. } = config;
    format!("{services:?} {commands:?} {balanced:?}")
}

/// What a key does in a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Something,
    /// It is refused by its name.
    Refused,
}

/// What one key does in one pattern, or what is wrong with it there.
fn tried(kind: Kind, pattern: &[Written], key: &'static str) -> Result<Does, String> {
    let (value, beside) = example(kind, key).ok_or("no example: write one for a new key")?;
    let mut keys: Keys = pattern.iter().copied().flatten().copied().collect();
    if keys.get(key) == Some(&value) {
        // It is what makes the pattern another one.
        return Ok(Does::Something);
    }
    keys.extend(beside.iter().copied().filter(|(other, _)| *other != key));
    // Requests that belong to partitions say by a key to which.
    let of_requests = keys.get("door") == Some(&"'http'");
    if key == "partitions" && of_requests || key == "door" && keys.contains_key("partitions") {
        keys.extend(KEY.iter().copied());
    }
    let before = read(&keys);
    // One entry of a list is written with the whole list.
    let (list, _) = key.split_once(".INDEX").unwrap_or((key, ""));
    keys.insert(list, value);
    let word = key.split('.').next().unwrap_or(key);
    match (before, read(&keys)) {
        (_, Err(problems)) if problems.iter().any(|it| it.what.contains(word)) => Ok(Does::Refused),
        (_, Err(problems)) => Err(format!("refused, not by its name: {problems:?}")),
        // What is beside it needs it; alone that is refused, so it has an effect.
        (Err(problems), Ok(_)) => {
            let says = |it: &Problem| it.what.contains(word) || it.because.contains(word);
            match problems.iter().any(says) {
                true => Ok(Does::Something),
                false => Err(format!("what is beside it is refused: {problems:?}")),
            }
        }
        (Ok(before), Ok(after)) if run(&before) == run(&after) => Err("has no effect".to_owned()),
        (Ok(_), Ok(after)) => is_told(key, &after),
    }
}

/// That it is shown as written, and no warning says that it has no effect.
fn is_told(key: &str, config: &Config) -> Result<Does, String> {
    let word = key.split('.').next().unwrap_or(key);
    let is_idle = |it: &Problem| it.code == Code::NoEffect && it.what.contains(word);
    if let Some(warning) = config.warnings.iter().find(|it| is_idle(it)) {
        return Err(format!("has no effect, and is not refused: {warning:?}"));
    }
    let path = format!("services.s.{}", key.replace("INDEX", "1"));
    let is_of = |shown: &str| {
        let inside = shown.strip_prefix(&path);
        inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            || path.starts_with(&format!("{shown}."))
    };
    let is_written = |origin: &Origin| matches!(origin, Origin::File(_));
    match show(config).iter().any(|it| is_of(&it.key) && is_written(&it.origin)) {
        true => Ok(Does::Something),
        false => Err("is not shown as written".to_owned()),
    }
}

#[test]
fn every_key_has_an_effect_in_every_pattern_or_is_refused_by_its_name() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    let mut all = BTreeSet::new();
    for (kind, pattern) in PATTERNS {
        if let Err(problems) = read(&pattern.iter().copied().flatten().copied().collect()) {
            panic!("{pattern:?}: {problems:?}");
        }
        let is_of = |entry: &&Entry| entry.kinds.contains(kind) || entry.kinds.is_empty();
        for entry in entries().filter(is_of) {
            let Some(key) = entry.key.strip_prefix("services.NAME.") else { continue };
            if LEFT_OUT.contains(&key) {
                continue;
            }
            all.insert((kind.word(), key));
            match tried(*kind, pattern, key) {
                Ok(Does::Something) => {
                    used.insert((kind.word(), key));
                }
                Ok(Does::Refused) => {}
                Err(fault) => wrong.push(format!("{key} {fault}, in {pattern:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    let never: Vec<_> = all.difference(&used).collect();
    assert!(never.is_empty(), "refused in every pattern: {never:?}");
}
