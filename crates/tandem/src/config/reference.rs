//! Talks to the documentation: every key, its type, its default, and why that default.
//! In: nothing. Out: `entries`, and the reference page made of them.
//! Not here: reading and checking (`raw`, `valid`).
//! Tested by: `config/tests/reference.rs`: a key or a default that drifted fails.

mod balanced;
mod command;
mod door;
mod general;
mod http;
mod postgres;
mod requests;
mod tcp;

use std::collections::BTreeSet;
use std::fmt::Write;
use tandem_core::pairing::Kind;

/// What a key is when it is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It must be written.
    Required,
    /// This value, as it would be written.
    Value(&'static str),
    /// A value that depends on others.
    Computed(&'static str),
    /// Nothing, and what that means.
    Unset(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path; `NAME` and `SETTING` stand for a name of the owner's choice, `INDEX` for a place
    /// in a list.
    pub key: &'static str,
    /// The kinds of service that have it; none: all of them, or it is no service's.
    pub kinds: &'static [Kind],
    /// What it takes.
    pub takes: &'static str,
    /// What it is when it is not written.
    pub default: Fallback,
    /// What it does.
    pub what: &'static str,
    /// Why the default is what it is, or why there is none.
    pub reason: &'static str,
    /// The version that brought it.
    pub since: &'static str,
}

/// Makes the table of a file: the kinds of service, then the keys in the order of the page.
macro_rules! rows {
    ($kinds:expr; $(
        $key:literal: $takes:literal = $default:expr;
        $what:literal because $reason:literal
    ),+ $(,)?) => {
        pub(super) const ENTRIES: &[super::Entry] = &[$(super::Entry {
            key: $key,
            kinds: $kinds,
            takes: $takes,
            default: $default,
            what: $what,
            reason: $reason,
            since: "0.1.0",
        }),+];
    };
}

use Fallback::{Computed, Required, Unset, Value};
use rows;

/// Every key of the file, in the order of the page.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    [
        general::ENTRIES,
        postgres::ENTRIES,
        command::ENTRIES,
        balanced::ENTRIES,
        tcp::ENTRIES,
        requests::ENTRIES,
        door::ENTRIES,
        http::ENTRIES,
    ]
    .into_iter()
    .flatten()
}

/// The keys of a service that say something about a door to several endpoints, whatever they are.
pub(super) fn door_keys() -> impl Iterator<Item = &'static str> {
    let keys = door::ENTRIES.iter().filter_map(|entry| entry.key.strip_prefix("services.NAME."));
    // Doors for connections have these as well; those for requests have some under the same names.
    keys.filter(|key| !key.contains('.')).chain(["connections_max", "idle_timeout"])
}

/// The kinds of service that have a key or a table, by its pattern; none where all have it.
pub(super) fn kinds_of(pattern: &str) -> BTreeSet<&'static str> {
    let is_it = |entry: &&Entry| {
        let rest = entry.key.strip_prefix(pattern);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    entries().filter(is_it).flat_map(|entry| entry.kinds).map(|kind| kind.word()).collect()
}

/// The entry of a key as it is in a file: `services.orders.listen` of a service of some kind.
pub(super) fn entry_of(key: &str, kind: Option<Kind>) -> Option<&'static Entry> {
    let matches = |pattern: &str| {
        let mut parts = key.split('.');
        let fits = pattern.split('.').all(|expected| match (expected, parts.next()) {
            ("NAME" | "SETTING" | "INDEX", found) => found.is_some(),
            (expected, found) => found == Some(expected),
        });
        // A setting may have a dot of its own.
        fits && (parts.next().is_none() || pattern.ends_with("SETTING"))
    };
    let has = |entry: &Entry| {
        entry.kinds.is_empty() || kind.is_some_and(|kind| entry.kinds.contains(&kind))
    };
    entries().find(|entry| has(entry) && matches(entry.key))
}

const PAGE_START: &str = "\
# Configuration reference

One TOML file, `tandem.toml`, the same on every node. A key that is not listed here is an error.
`tandem config check` finds every problem of a file; `tandem config show` prints every value that is
in effect, and whether it comes from the file or from the table below. A key of one kind of service
in a service of another is an error too.

- *name*: `a` to `z`, digits and `-`, starting with a letter, at most 31 characters.
- *duration*: a whole number and `ms`, `s`, `min`, `h` or `d`, in quotes.
- *size*: a whole number and `B`, `kB`, `MB`, `GB` or `TB`, in quotes;
  1 MB is 1024 kB, as in PostgreSQL.
- The file holds no secret: passwords are derived from the cluster's secret in each node's
  identity folder.
- `master-slave` and `multi-master` are read as `primary-replica` and `multi-primary`,
  with a warning.
";

fn title(table: &str, kinds: &[Kind]) -> String {
    let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
    let of = if kinds.is_empty() { String::new() } else { format!(" of {}", kinds.join(", ")) };
    match table.strip_suffix(".INDEX") {
        _ if table.is_empty() => "Top level".to_owned(),
        Some(list) => format!("`[[{list}]]`{of}"),
        None => format!("`[{table}]`{of}"),
    }
}

/// The reference page, in Markdown.
pub fn reference_markdown() -> String {
    let mut page = String::from(PAGE_START);
    let mut section = None;
    for entry in entries() {
        let (table, key) = entry.key.rsplit_once('.').unwrap_or(("", entry.key));
        if section != Some((table, entry.kinds)) {
            section = Some((table, entry.kinds));
            let title = title(table, entry.kinds);
            page.push_str(&format!("\n## {title}\n\n"));
            page.push_str("| Key | Takes | Default | What it does | Why this default | Since |\n");
            page.push_str("|---|---|---|---|---|---|\n");
        }
        let default = match entry.default {
            Required => "must be written".to_owned(),
            Value(value) => format!("`{value}`"),
            Computed(rule) => rule.to_owned(),
            Unset(meaning) => format!("not set: {meaning}"),
        };
        let Entry { takes, what, reason, since, .. } = entry;
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{key}` | {takes} | {default} | {what} | {reason} | {since} |");
    }
    page
}
