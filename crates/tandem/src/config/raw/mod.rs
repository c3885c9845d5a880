//! Talks to the TOML parser: what was written, with its place, and no judgement of its values.
//! In: the text. Out: `File`, and problems of syntax, type and unknown keys.
//! Not here: what may be run (`valid`).
//! Tested by: `config/tests`.

mod balanced;
mod command;
mod http;
mod key;
mod postgres;
mod rate;
mod role;
mod section;
mod upstream_tls;
mod written;

use super::problem::{Code, Problems, Say};
pub(super) use balanced::{Balanced, Ejection, Health, Upstream};
pub(super) use command::{Command, CommandHealth};
pub(super) use http::{Http, Retry};
pub(super) use key::{Key, Parts};
pub(super) use postgres::{Postgres, Timing};
pub(super) use section::Reading;
use section::Section;
use std::collections::BTreeSet;
use std::ops::Range;
use tandem_core::pairing::Kind;
use toml::Spanned;
use toml::de::DeTable;
pub(super) use upstream_tls::UpstreamTls;
pub(super) use written::{Flag, Number, Scalar, Switch, Text};

#[derive(Debug)]
pub(super) struct File {
    pub cluster: Text,
    pub nodes: Vec<Node>,
    pub services: Vec<Service>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub name: Spanned<String>,
    pub address: Text,
    pub bind: Text,
    pub api: Text,
    pub zone: Text,
    pub role: Text,
    pub priority: Number,
    pub capacity: Number,
}

#[derive(Debug)]
pub(super) struct Service {
    pub name: Spanned<String>,
    pub kind: Text,
    pub clustering: Text,
    pub replication: Text,
    pub keys: Keys,
}

/// What is written besides the words, by the kind of service.
#[derive(Debug)]
pub(super) enum Keys {
    Postgres(Box<Postgres>),
    Balanced(Box<Balanced>),
    Command(Box<Command>),
}

/// Reads a file. Nothing on a syntax error: what follows from a half-read file would be guesses.
pub(super) fn read(text: &str, reading: &mut Reading<'_>) -> Option<File> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut lines = BTreeSet::new();
    for error in &errors {
        if lines.len() == super::PROBLEMS_MAX {
            break;
        }
        let span = error.span().unwrap_or(0..0);
        // The parser goes on after an error; what it then finds on the same line follows from it.
        if lines.insert(reading.problems.source().line(span.start)) {
            syntax(&mut reading.problems, &span, error.message());
        }
    }
    if !errors.is_empty() {
        return None;
    }
    let mut top = Section::new(table.get_ref(), "", String::new());
    let cluster = top.text(reading, "cluster");
    let nodes = top.named(reading, "nodes");
    let services = top.named(reading, "services");
    top.finish(reading);
    Some(File {
        cluster,
        nodes: nodes.into_iter().map(|(name, table)| node(reading, name, table)).collect(),
        services: services.into_iter().map(|(name, table)| service(reading, name, table)).collect(),
    })
}

fn syntax(problems: &mut Problems<'_>, span: &Range<usize>, message: &str) {
    let what = format!("not TOML: {message}");
    let because = "the file cannot be read past this place";
    let instead = "mend the syntax first: text stands in \"quotes\", tables start with [name]";
    problems.error(Code::Syntax, span, Say::new(what, because, instead));
}

fn node(reading: &mut Reading<'_>, name: Spanned<String>, table: &DeTable<'_>) -> Node {
    let path = format!("nodes.{}", name.get_ref());
    let mut section = Section::new(table, "nodes.NAME", path);
    let node = Node {
        name,
        address: section.text(reading, "address"),
        bind: section.text(reading, "bind"),
        api: section.text(reading, "api"),
        zone: section.text(reading, "zone"),
        role: section.text(reading, "role"),
        priority: section.number(reading, "priority"),
        capacity: section.number(reading, "capacity"),
    };
    section.finish(reading);
    node
}

fn service(reading: &mut Reading<'_>, name: Spanned<String>, table: &DeTable<'_>) -> Service {
    let path = format!("services.{}", name.get_ref());
    let mut section = Section::new(table, "services.NAME", path);
    let kind = section.text(reading, "kind");
    let clustering = section.text(reading, "clustering");
    let replication = section.text(reading, "replication");
    let keys = match kind_of(kind.as_ref(), table) {
        kind @ Kind::Postgres => {
            Keys::Postgres(Box::new(postgres::read(reading, &name, section.of(kind))))
        }
        kind @ (Kind::Tcp | Kind::Http) => {
            Keys::Balanced(Box::new(balanced::read(reading, &name, section.of(kind), kind)))
        }
        kind @ Kind::Command => {
            Keys::Command(Box::new(command::read(reading, &name, section.of(kind))))
        }
    };
    Service { name, kind, clustering, replication, keys }
}

/// The kind that its keys are read for. Where it cannot be read, which is told elsewhere, the keys
/// show what was meant.
fn kind_of(written: Option<&Spanned<String>>, table: &DeTable<'_>) -> Kind {
    let known = written.and_then(|kind| Kind::from_word(kind.get_ref()));
    let guess = |key: &str, kind| table.contains_key(key).then_some(kind);
    let guessed = guess("upstreams", Kind::Tcp).or_else(|| guess("command", Kind::Command));
    known.or(guessed).unwrap_or(Kind::Postgres)
}
