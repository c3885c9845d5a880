//! Reports dependencies that a crate must not have: the core stays pure, the simulator unused.

use super::{Finding, tree::Tree};

/// A manifest, and all that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("crates/core/Cargo.toml", &["serde", "thiserror"]),
    ("crates/sim/Cargo.toml", &["tandem-core"]),
    ("xtask/Cargo.toml", &["anyhow", "rustix"]),
];
/// What nothing may depend on.
const NEVER: &[&str] = &["tandem-sim", "tandem", "xtask"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.name() == "Cargo.toml") {
        let allowed = ALLOWED.iter().find(|(path, _)| *path == file.path).map(|(_, names)| *names);
        let mut section = "";
        for (line, text) in file.lines() {
            if text.starts_with('[') {
                section = text.trim_matches(['[', ']']);
                continue;
            }
            let (true, Some((key, _))) = (section.ends_with("dependencies"), text.split_once('='))
            else {
                continue;
            };
            let name = key.split('.').next().unwrap_or(key).trim();
            let is_allowed = allowed.is_none_or(|allowed| allowed.contains(&name));
            if !is_allowed || NEVER.contains(&name) {
                let what = format!("must not depend on {name}");
                findings.push(Finding::new(&file.path, line, what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn the_core_depends_on_two() {
        let files = [
            (
                "crates/core/Cargo.toml",
                "[package]\nname = \"x\"\n[dependencies]\nserde.workspace = true\nrand = \"1\"\n",
            ),
            (
                "crates/tandem/Cargo.toml",
                "[dependencies]\ntokio = \"1\"\n[dev-dependencies]\n\
                 tandem-sim = { path = \"x\" }\n",
            ),
        ];
        assert_eq!(
            told(check, &files),
            [
                "crates/core/Cargo.toml:5: must not depend on rand",
                "crates/tandem/Cargo.toml:4: must not depend on tandem-sim",
            ]
        );
    }
}
