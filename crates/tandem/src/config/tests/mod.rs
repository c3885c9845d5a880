//! What a file may say, and what it is told when it says something else.

mod bad_files;
mod balanced;
mod change;
mod command;
mod copies;
mod http;
mod keys;
mod mutation;
mod pairings;
mod positions;
mod rates;
mod reference;
mod values;

use super::{Config, Problem};

/// A file without any problem or warning, with every kind of table.
pub(super) const GOOD: &str = r#"cluster = "shop"

[nodes.a]
address = "10.0.0.1:7400"
zone = "x"
[nodes.b]
address = "10.0.0.2:7400"
[nodes.c]
address = "10.0.0.3:7400"

[services.orders]
kind = "postgres"
clustering = "active-passive"
replication = "primary-replica"
listen = 5432
hba = ["hostssl all app 10.0.0.0/8 scram-sha-256"]

[services.orders.postgresql]
max_connections = 200

[services.orders.timing]
lease = "2s"
"#;

pub(super) fn good() -> Config {
    parse(GOOD)
}

pub(super) fn parse(text: &str) -> Config {
    match Config::parse(text, "t.toml") {
        Ok(config) => config,
        Err(problems) => panic!("{}", lines(&problems).join("\n")),
    }
}

/// The good file with one text replaced.
pub(super) fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old:?} is not in the good file");
    GOOD.replacen(old, new, 1)
}

/// Every problem or warning of a file.
pub(super) fn problems(text: &str) -> Vec<Problem> {
    match Config::parse(text, "t.toml") {
        Ok(config) => config.warnings,
        Err(problems) => problems,
    }
}

/// `TDM0203 error 3:1 "what is underlined": what`.
pub(super) fn lines(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|p| {
            let severity = format!("{:?}", p.severity).to_lowercase();
            format!("{} {severity} {}:{} +{}: {}", p.code, p.line, p.column, p.span.len(), p.what)
        })
        .collect()
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(lines(&problems(GOOD)), Vec::<String>::new());
}

#[test]
fn the_example_of_a_balanced_service_is_good() {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/load-balanced-none/tandem.toml"
    ));
    assert_eq!(lines(&problems(text)), Vec::<String>::new());
    let config = parse(text);
    assert_eq!((config.services.len(), config.balanced.len()), (0, 1));
}

#[test]
fn the_example_of_an_http_service_is_good() {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/load-balanced-http/tandem.toml"
    ));
    assert_eq!(lines(&problems(text)), Vec::<String>::new());
    assert!(parse(text).balanced.values().all(|it| it.http.is_some()));
}

#[test]
fn the_example_is_good() {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/active-passive-primary-replica/tandem.toml"
    ));
    assert_eq!(lines(&problems(text)), Vec::<String>::new());
    let config = parse(text);
    assert_eq!((config.nodes.len(), config.services.len()), (3, 1));
}
