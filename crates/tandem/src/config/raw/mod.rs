//! Talks to the TOML parser: what was written, with its place, and no judgement of its values.
//! In: the text. Out: `File`, and problems of syntax, type and unknown keys.
//! Not here: what may be run (`valid`).
//! Tested by: `config/tests`.

mod section;

use super::problem::{Code, Problems, Say};
use section::Section;
pub(super) use section::{Number, Reading, Scalar, Text};
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::DeTable;

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
}

#[derive(Debug)]
pub(super) struct Service {
    pub name: Spanned<String>,
    pub kind: Text,
    pub clustering: Text,
    pub replication: Text,
    pub durability: Text,
    pub acks: Number,
    pub async_lag_max: Text,
    pub async_delay_max: Text,
    pub listen: Option<Spanned<Scalar>>,
    pub read_listen: Option<Spanned<Scalar>>,
    pub read_lag_max: Text,
    pub port: Number,
    pub hold_max: Text,
    pub held_max: Number,
    pub sessions_max: Number,
    pub bin_dir: Text,
    pub data_dir: Text,
    pub ballast: Text,
    pub run_as: Text,
    pub hba: Vec<Spanned<String>>,
    pub settings: Vec<(Spanned<String>, Spanned<Scalar>)>,
    pub timing: Timing,
}

#[derive(Debug, Default)]
pub(super) struct Timing {
    pub heartbeat: Text,
    pub suspicion: Text,
    pub lease: Text,
    pub drift_margin: Text,
    pub stable_after: Text,
    pub rejoin_patience: Text,
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
    };
    section.finish(reading);
    node
}

fn service(reading: &mut Reading<'_>, name: Spanned<String>, table: &DeTable<'_>) -> Service {
    let path = format!("services.{}", name.get_ref());
    let mut section = Section::new(table, "services.NAME", path);
    let service = Service {
        name,
        kind: section.text(reading, "kind"),
        clustering: section.text(reading, "clustering"),
        replication: section.text(reading, "replication"),
        durability: section.text(reading, "durability"),
        acks: section.number(reading, "acks"),
        async_lag_max: section.text(reading, "async_lag_max"),
        async_delay_max: section.text(reading, "async_delay_max"),
        listen: section.listen(reading, "listen"),
        read_listen: section.listen(reading, "read_listen"),
        read_lag_max: section.text(reading, "read_lag_max"),
        port: section.number(reading, "port"),
        hold_max: section.text(reading, "hold_max"),
        held_max: section.number(reading, "held_max"),
        sessions_max: section.number(reading, "sessions_max"),
        bin_dir: section.text(reading, "bin_dir"),
        data_dir: section.text(reading, "data_dir"),
        ballast: section.text(reading, "ballast"),
        run_as: section.text(reading, "run_as"),
        hba: section.texts(reading, "hba"),
        settings: section.settings(reading, "postgresql"),
        timing: section.table(reading, "timing").map_or_else(Timing::default, |table| {
            let path = section.path("timing");
            timing(reading, Section::new(table, "services.NAME.timing", path))
        }),
    };
    // The keys of the other kinds come with them: until then they are no mistakes of the writer.
    let kind = service.kind.as_ref().map(|kind| kind.get_ref().as_str());
    if !matches!(kind, Some("command" | "http" | "tcp")) {
        section.finish(reading);
    }
    service
}

fn timing(reading: &mut Reading<'_>, mut section: Section<'_, '_>) -> Timing {
    let timing = Timing {
        heartbeat: section.text(reading, "heartbeat"),
        suspicion: section.text(reading, "suspicion"),
        lease: section.text(reading, "lease"),
        drift_margin: section.text(reading, "drift_margin"),
        stable_after: section.text(reading, "stable_after"),
        rejoin_patience: section.text(reading, "rejoin_patience"),
    };
    section.finish(reading);
    timing
}
