//! Reports words that the project does not use, in code, documents and file names: one word, one
//! meaning (GLOSSARY.md). Only words that are wrong wherever they stand are listed.

use super::{Finding, tree::Tree, tree::words};

/// A word, or two in a row; what to say; where it may stand all the same.
type Banned = (&'static str, &'static str, &'static [&'static str]);

/// Where the older names of the patterns are read, and where other products' names are answered.
const OLDER_NAMES: &[&str] = &[
    "GLOSSARY.md",
    "README.md",
    "docs/configuration.md",
    "docs/operating/api.md",
    "docs/errors/",
    "crates/core/src/pairing.rs",
    "crates/tandem/src/api/role.rs",
    "crates/tandem/src/api/tests/role.rs",
    "crates/tandem/src/config/",
    // A key of nginx.
    "scripts/bench-lib",
];

const BANNED: &[Banned] = &[
    ("master", "primary", OLDER_NAMES),
    ("masters", "primaries", OLDER_NAMES),
    ("slave", "standby or replica", OLDER_NAMES),
    ("slaves", "standbys or replicas", OLDER_NAMES),
    ("arbiter", "witness", &["GLOSSARY.md", "crates/tandem/src/config/tests/"]),
    ("hand over", "switchover", &["GLOSSARY.md"]),
    ("handover", "switchover", &["GLOSSARY.md"]),
    ("failback", "switchover", &["GLOSSARY.md"]),
    ("whitelist", "allowed", &[]),
    ("blacklist", "refused", &[]),
];

/// Endings of type names that say nothing.
const ENDINGS: &[&str] = &["Manager", "Helper", "Util", "Utils", "Info", "Handler"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let checked =
        |path: &str| !path.starts_with("xtask/") && path != "LICENSE" && !path.ends_with(".lock");
    for file in tree.files.iter().filter(|file| checked(&file.path)) {
        let is_rust = file.path.ends_with(".rs");
        for (line, text) in [(0, file.path.as_str())].into_iter().chain(file.lines()) {
            let found = words(text);
            for (banned, instead, allowed) in BANNED {
                let parts: Vec<&str> = banned.split(' ').collect();
                let is_there = found.windows(parts.len()).any(|some| some == parts);
                // Prose may hand something over; an identifier may not.
                let counts = parts.len() == 1 || is_rust && !text.trim_start().starts_with("//");
                let is_allowed = allowed.iter().any(|place| file.path.starts_with(place));
                if is_there && counts && !is_allowed {
                    let what = format!("say {instead}, not {banned}");
                    findings.push(Finding::new(&file.path, line, what));
                }
            }
            if is_rust && let Some(what) = name(text) {
                findings.push(Finding::new(&file.path, line, what));
            }
        }
    }
    findings
}

/// What is wrong with the name that a line of Rust declares.
fn name(text: &str) -> Option<String> {
    let code = text.trim_start();
    let declared = |keyword: &str| {
        let words = code.split_whitespace().collect::<Vec<_>>();
        let at = words.iter().position(|word| *word == keyword)?;
        let plain = words[..at].iter().all(|word| {
            word.starts_with("pub")
                || ["async", "const", "in"].contains(word)
                || word.ends_with(')')
        });
        let name = words.get(at + 1)?.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()?;
        plain.then(|| name.to_owned())
    };
    // Without `pub` it is a method of somebody else's trait, whose name is not ours.
    let is_ours = code.starts_with("pub");
    if let Some(name) = declared("fn").filter(|name| is_ours && name.starts_with("get_")) {
        return Some(format!("{name}: a question needs no get_"));
    }
    let name = ["struct", "enum", "trait"].into_iter().find_map(declared)?;
    let ending = ENDINGS.iter().find(|ending| name.ends_with(*ending))?;
    Some(format!("{name}: {ending} says nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn words_and_names_are_found() {
        let files = [
            (
                "crates/tandem/src/a.rs",
                "pub struct TaskManager;\npub fn get_x() {}\nfn get_y() {}\n",
            ),
            ("crates/tandem/src/b.rs", "HandOver { to },\n// Hands over.\n// To hand over.\n"),
            ("crates/tandem/src/config/c.rs", "\"master-slave\"\n"),
            ("docs/a.md", "The master writes; mastery does not.\n"),
            ("docs/slave.md", "\n"),
        ];
        assert_eq!(
            told(check, &files),
            [
                "crates/tandem/src/a.rs:1: TaskManager: Manager says nothing",
                "crates/tandem/src/a.rs:2: get_x: a question needs no get_",
                "crates/tandem/src/b.rs:1: say switchover, not hand over",
                "docs/a.md:1: say primary, not master",
                "docs/slave.md: say standby or replica, not slave",
            ]
        );
    }
}
