mod everywhere;

use super::*;
use crate::config::{Fallback, Origin, entries, reference_markdown, show};
use std::collections::BTreeSet;

/// A file in which each table of the reference stands, with nothing in it that need not be.
const LEAST: &str = r#"
cluster = "shop"
[nodes.a]
address = "10.0.0.1:7400"
[nodes.b]
address = "10.0.0.2:7400"
[nodes.c]
address = "10.0.0.3:7400"
[services.orders]
kind = "postgres"
clustering = "load-balanced"
replication = "primary-replica"
[services.orders.timing]
[services.orders.postgresql]
[services.cache]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6379
upstreams = [{ address = "10.0.0.11:6379" }]
health = {}
ejection = {}
rate_limit = { per_client = "100/s" }
certificates = [{ certificate = "/c", key = "/k" }]
upstream_tls = { ca = "/c" }
[services.mail]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6381
upstreams = ["10.0.0.13:993"]
health = { tls = { ca = "/c" } }
[services.pg]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6380
upstreams = ["10.0.0.12:5432"]
health = { postgres = { role = "any", user = "m" } }
[services.jobs]
kind = "command"
clustering = "active-passive"
replication = "none"
command = ["/srv/app"]
port = 9000
limits = {}
health = { exec = ["/srv/check"] }
[services.work]
kind = "command"
clustering = "active-active"
replication = "none"
command = ["/srv/worker"]
partitions = 12
listen = 8092
door = "http"
partition_key = { header = "X-Shop" }
[services.app]
kind = "command"
clustering = "load-balanced"
replication = "none"
command = ["/srv/app"]
listen = 8090
ejection = {}
[services.site]
kind = "command"
clustering = "load-balanced"
replication = "none"
command = ["/srv/site"]
listen = 8091
door = "http"
certificates = [{ certificate = "/c", key = "/k" }]
ejection = {}
retry = {}
balance = "hash"
hash_key = { header = "X-Shop" }
rate_limit = { per_client = "100/s", key = { header = "X-Shop" } }
upstream_tls = { ca = "/ca" }
[services.web]
kind = "http"
clustering = "load-balanced"
replication = "none"
listen = 8080
upstreams = [{ address = "10.0.0.11:80" }]
certificates = [{ certificate = "/c", key = "/k" }]
upstream_tls = { ca = "/c" }
health = {}
ejection = {}
retry = {}
balance = "hash"
hash_key = { header = "X-Shop" }
rate_limit = { per_client = "100/s", key = { header = "X-Shop" } }
"#;

/// Only copies that run side by side have these.
const OF_COPIES: [&str; 5] = [
    "services.NAME.connections_max",
    "services.NAME.replicas",
    "services.NAME.drain_max",
    "services.NAME.door",
    "services.NAME.idle_timeout",
];

/// Only work that is divided has these.
const OF_DIVIDED: [&str; 7] = [
    "services.NAME.partitions",
    "services.NAME.release_max",
    "services.NAME.on_partitions",
    "services.NAME.partition_key",
    "services.NAME.partition_key.header",
    "services.NAME.partition_key.cookie",
    "services.NAME.partition_key.path_segment",
];

/// Of a key of the reference, in the file above.
fn in_the_file(entry: &crate::config::Entry) -> String {
    let service = match entry.kinds.first().map(|kind| kind.word()) {
        Some("tcp") if entry.key.contains("health.postgres") => "services.pg",
        Some("tcp") if entry.key.contains("health.tls") => "services.mail",
        Some("tcp") => "services.cache",
        Some("http") => "services.web",
        Some("command") if OF_DIVIDED.contains(&entry.key) => "services.work",
        Some("command") if OF_COPIES.contains(&entry.key) => "services.app",
        Some("command") => "services.jobs",
        _ => "services.orders",
    };
    let key = entry.key.replace("nodes.NAME", "nodes.a").replace("services.NAME", service);
    key.replace("INDEX", "1")
}

#[test]
fn the_reference_has_every_key_that_the_reader_asks_for_and_no_other() {
    let (config, mut accepted) = Config::read(LEAST, "t.toml");
    assert!(config.is_ok());
    // Settings have names of their own; the reader takes them all.
    accepted.insert((Some("postgres"), "services.NAME.postgresql.SETTING".to_owned()));
    let mut documented = BTreeSet::new();
    for entry in entries() {
        let kinds = entry.kinds.iter().map(|kind| Some(kind.word()));
        for kind in kinds.chain(entry.kinds.is_empty().then_some(None)) {
            let is_new = documented.insert((kind, entry.key.to_owned()));
            assert!(is_new, "{} is documented twice", entry.key);
        }
    }
    assert_eq!(documented, accepted);
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let shown = show(&parse(LEAST));
    let shown_as = |full: &str| {
        shown.iter().find(|shown| shown.key == full).unwrap_or_else(|| panic!("{full}"))
    };
    // Written above, because a table must stand for its keys, or a check for something to ask.
    let written = [
        "health",
        "partitions",
        "ejection",
        "retry",
        "certificates",
        "upstream_tls",
        "health.tls",
        "health.postgres",
        "limits",
        "port",
        "health.exec",
        "hash_key",
        "hash_key.header",
        "rate_limit",
        "rate_limit.per_client",
        "rate_limit.key",
        "rate_limit.key.header",
        "partition_key",
        "partition_key.header",
    ];
    for entry in entries() {
        let key = in_the_file(entry);
        if entry.key.ends_with("SETTING") || key == "services.jobs.health.exec" {
            continue;
        }
        let found = shown_as(&key);
        let short = entry.key.strip_prefix("services.NAME.").unwrap_or(entry.key);
        match entry.default {
            Fallback::Required => assert!(matches!(found.origin, Origin::File(_)), "{found:?}"),
            // Its default counts with durability = "async" only.
            Fallback::Value(_) if entry.key.starts_with("services.NAME.async_") => {}
            Fallback::Value(value) => assert_eq!(found.value.as_deref(), Some(value), "{found:?}"),
            // Each endpoint has its own name.
            Fallback::Computed(_) if entry.key.ends_with(".server_name") => {}
            Fallback::Computed(_) => assert!(found.value.is_some(), "{found:?}"),
            // It has to be there for its own keys to be shown.
            Fallback::Unset(_) if written.contains(&short) => {}
            Fallback::Unset(_) => assert_eq!(found.value, None, "{found:?}"),
        }
        let is_written = written.contains(&short) && key != "services.orders.port";
        if !matches!(entry.default, Fallback::Required) && !is_written {
            assert!(matches!(&found.origin, Origin::Default(why) if !why.is_empty()), "{found:?}");
        }
    }
    assert_eq!(shown_as("services.orders.read_listen").value.as_deref(), Some("5433"));
    assert_eq!(shown_as("services.orders.port").value.as_deref(), Some("6432"));
    let asynchronous = LEAST.replace("[services.orders.timing]", "durability = \"async\"");
    let shown = show(&parse(&asynchronous));
    for (key, default) in [("async_lag_max", "1MB"), ("async_delay_max", "10s")] {
        let bound = shown.iter().find(|shown| shown.key.ends_with(key)).expect("shown");
        assert_eq!(bound.value.as_deref(), Some(default));
    }
}

#[test]
fn the_page_has_a_row_for_every_key() {
    let page = reference_markdown();
    for entry in entries() {
        let key = entry.key.rsplit('.').next().expect("a key");
        assert!(page.contains(&format!("| `{key}` | {} |", entry.takes)), "{}", entry.key);
        assert!(!entry.reason.is_empty() && !entry.what.is_empty(), "{}", entry.key);
        for text in [entry.takes, entry.what, entry.reason] {
            assert!(!text.contains('|'), "{}: a bar would break the table", entry.key);
        }
    }
    assert_eq!(page.matches("\n## ").count(), 30);
}

/// `UPDATE=1` writes the page (`cargo xtask gen`).
#[test]
fn the_page_in_docs_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, reference_markdown()).expect("docs can be written");
    }
    let written = std::fs::read_to_string(path).expect("docs/configuration.md is there");
    assert!(written == reference_markdown(), "docs/configuration.md: run cargo xtask gen");
}

#[test]
fn every_value_is_shown_with_its_line_or_its_reason() {
    let config = good();
    let shown = show(&config);
    let origin = |key: &str| {
        let found = shown.iter().find(|shown| shown.key == key).unwrap_or_else(|| panic!("{key}"));
        (found.value.as_deref(), &found.origin)
    };
    assert_eq!(origin("cluster"), (Some("shop"), &Origin::File(1)));
    assert_eq!(origin("nodes.a.zone"), (Some("x"), &Origin::File(5)));
    assert_eq!(origin("services.orders.timing.lease"), (Some("2s"), &Origin::File(22)));
    let (value, from) = origin("services.orders.postgresql.max_connections");
    assert_eq!((value, from), (Some("200"), &Origin::File(19)));
    let (value, from) = origin("services.orders.durability");
    assert_eq!(value, Some("quorum"));
    assert!(matches!(from, Origin::Default(why) if why.contains("no acknowledged commit")));
    let two = with("\n[nodes.c]\naddress = \"10.0.0.3:7400\"\n", "\n");
    let two = parse(&format!("{two}[nodes.c]\nrole = \"witness\"\naddress = \"10.0.0.3:7400\"\n"));
    let shown = show(&two);
    let found = shown.iter().find(|s| s.key == "services.orders.durability").expect("shown");
    assert_eq!(found.value.as_deref(), Some("preferred"));
    assert!(matches!(&found.origin, Origin::Default(why) if why.contains("exactly two")));
    let json = serde_json::to_value(&shown[0]).expect("json");
    assert_eq!(json["origin"]["file"], 1);
}
