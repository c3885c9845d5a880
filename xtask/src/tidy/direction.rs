//! Reports imports against the direction of dependency: the tables below are the whole rule.

use super::{Finding, tree::File, tree::Tree};

const CORE: &str = "crates/core/src/";
const SHELL: &str = "crates/tandem/src/";

/// A module of the core imports modules of a smaller rank only: who may serve depends on who has
/// the data, never the reverse.
const CORE_RANKS: &[(&str, u8)] = &[
    ("attempts", 0),
    ("ids", 0),
    ("lsn", 0),
    ("time", 0),
    ("pairing", 0),
    ("spec", 1),
    ("reason", 1),
    ("replication", 2),
    ("cluster", 3),
    ("facts", 4),
    ("clustering", 5),
];
/// Patterns of one axis do not import each other.
const AXES: &[&str] = &["clustering", "replication"];
/// But this one: the copy of a command whose work is divided is a singleton that never moves.
const BUILDS_ON: (&str, &str) = ("active_active", "active_passive");

/// Open to all of the shell.
const SHELL_OPEN: &[&str] = &["runtime", "telemetry"];
/// A link between nodes is as good as the proof of who is at its ends.
const SHELL_PAIRS: &[(&str, &str)] = &[("peers", "identity")];
/// Build and hold the others, so they may import them.
const SHELL_HUBS: &[&str] = &["cli", "node", "driver", "dev", "drill"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_without_tests() {
        let judge = if file.path.starts_with(CORE) {
            core
        } else if file.path.starts_with(SHELL) {
            shell
        } else {
            continue;
        };
        for (line, text) in file.lines_without_tests() {
            for path in paths(text) {
                if let Some(what) = judge(file, &path) {
                    findings.push(Finding::new(&file.path, line, what));
                }
            }
        }
    }
    findings
}

fn core(file: &File, path: &str) -> Option<String> {
    let own = module(file, CORE, 0)?;
    let imported = path.split("::").next()?;
    let rank = |name| CORE_RANKS.iter().find(|(module, _)| *module == name).map(|(_, rank)| *rank);
    if imported == own {
        let (pattern, other) = (module(file, CORE, 1)?, path.split("::").nth(1)?);
        let crosses = AXES.contains(&own) && pattern != "mod" && pattern != other;
        let crosses = crosses && (pattern, other) != BUILDS_ON;
        return crosses.then(|| format!("{own}/{pattern} imports {own}/{other}"));
    }
    let Some(own_rank) = rank(own) else {
        return Some(format!("{own} has no rank in direction.rs"));
    };
    let allowed = rank(imported).is_some_and(|rank| rank < own_rank);
    (!allowed).then(|| format!("{own} imports {imported}"))
}

fn shell(file: &File, path: &str) -> Option<String> {
    let own = module(file, SHELL, 0)?;
    let imported = path.split("::").next()?;
    let allowed = imported == own
        || SHELL_OPEN.contains(&imported) && !SHELL_OPEN.contains(&own)
        || own == "telemetry" && imported == "runtime"
        || SHELL_PAIRS.contains(&(own, imported))
        || SHELL_HUBS.contains(&own);
    (!allowed).then(|| format!("{own} imports {imported}: they meet in a hub"))
}

/// The `depth`th part of the path below `root`, without its ending.
fn module<'a>(file: &'a File, root: &str, depth: usize) -> Option<&'a str> {
    let part = file.path.strip_prefix(root)?.split('/').nth(depth)?;
    let name = part.strip_suffix(".rs").unwrap_or(part);
    (!["lib", "main"].contains(&name)).then_some(name)
}

/// What follows each `crate::` of a line; a list in braces counts as several.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in text.match_indices("crate::") {
        let begins = !text[..at].ends_with(|c: char| c.is_alphanumeric() || "_$/".contains(c));
        let rest = &text[at + word.len()..];
        let is_comment = text.trim_start().starts_with("//");
        if !begins || is_comment {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                for item in list.split_inclusive([',', '{', '}']) {
                    let name = item.trim_end_matches([',', '{', '}']).trim();
                    if depth == 0 && !name.is_empty() {
                        found.push(name.trim_end_matches("::").to_owned());
                    }
                    depth += match item.chars().last() {
                        Some('{') => 1,
                        Some('}') => -1,
                        _ => 0,
                    };
                    if depth < 0 {
                        break;
                    }
                }
            }
            None => {
                let end = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
                found.push(rest.split(end).next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn imports_are_found() {
        assert_eq!(paths("use crate::ids::{NodeId, Term};"), ["ids::"]);
        assert_eq!(paths("use crate::{a::{x, y}, b};"), ["a", "b"]);
        assert_eq!(
            paths("x: crate::lsn::Lsn::ZERO, y: $crate::b, tandem_crate::c"),
            ["lsn::Lsn::ZERO"]
        );
        assert!(paths("//! see `crate::api`").is_empty());
    }

    #[test]
    fn the_core_goes_one_way() {
        let files = [
            ("crates/core/src/clustering/active_passive/a.rs", "use crate::replication::b;\n"),
            (
                "crates/core/src/clustering/active_passive/b.rs",
                "use crate::clustering::load_balanced;\n",
            ),
            (
                "crates/core/src/clustering/active_passive/c.rs",
                "use crate::clustering::active_passive::b;\n",
            ),
            ("crates/core/src/replication/b.rs", "use crate::clustering::a;\n"),
            ("crates/core/src/lib.rs", "use crate::clustering::a;\n"),
            ("crates/core/src/strange.rs", "use crate::ids::NodeId;\n"),
        ];
        assert_eq!(
            told(check, &files),
            [
                "crates/core/src/clustering/active_passive/b.rs:1: clustering/active_passive \
                 imports clustering/load_balanced",
                "crates/core/src/replication/b.rs:1: replication imports clustering",
                "crates/core/src/strange.rs:1: strange has no rank in direction.rs",
            ]
        );
    }

    #[test]
    fn the_shell_meets_in_its_hubs() {
        let files = [
            ("crates/tandem/src/proxy/a.rs", "use crate::{runtime::clock, consensus::Agreed};\n"),
            ("crates/tandem/src/node/a.rs", "use crate::consensus::Agreed;\n"),
            ("crates/tandem/src/runtime/a.rs", "use crate::telemetry::events;\n"),
            ("crates/tandem/src/main.rs", "use crate::cli;\n"),
            ("crates/tandem/src/proxy/tests/a.rs", "use crate::identity::Identity;\n"),
        ];
        assert_eq!(
            told(check, &files),
            [
                "crates/tandem/src/proxy/a.rs:1: proxy imports consensus: they meet in a hub",
                "crates/tandem/src/runtime/a.rs:1: runtime imports telemetry: they meet in a hub",
            ]
        );
    }
}
