//! Reports modules whose doc comment does not begin by saying what they decide or touch.
//! A file that only lists its modules (`mod.rs`, `lib.rs`) may say what they have in common.

use super::{Finding, tree::Tree};

/// What a module may do. A new word is a new line here, and a reason in the review.
const VERBS: &[&str] = &[
    // The core.
    "Decides",
    "Folds",
    // The shell: talks to something outside, or arranges what does.
    "Talks",
    "Carries",
    "Keeps",
    "Builds",
    "Runs",
    "Spawns",
    "Drives",
    "Tells",
    "Answers",
    "Reads",
    "Writes",
    "Sets",
    // The drill, the simulator and chores.
    "Breaks",
    "Measures",
    "Checks",
    "Simulates",
    "Explores",
    "Reports",
    // Modules of data only, in the core.
    "What",
    "Names",
    "Moments",
    "Positions",
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust_without_tests() {
        let doc: Vec<&str> = file
            .text
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .take_while(|line| !line.trim().is_empty())
            .collect();
        let Some(first) = doc.first() else {
            findings.push(Finding::new(&file.path, 1, "begins without a `//!` doc"));
            continue;
        };
        let lists_modules = ["mod.rs", "lib.rs", "main.rs"].contains(&file.name());
        let verb = first.split_whitespace().next().unwrap_or_default();
        if !lists_modules && !VERBS.contains(&verb) {
            let what = format!("its doc begins with {verb:?}, which is no verb of first_lines.rs");
            findings.push(Finding::new(&file.path, 1, what));
        }
        let ends = doc.iter().any(|line| line.ends_with('.') || line.contains(". "));
        if !ends {
            findings.push(Finding::new(&file.path, 1, "the first sentence of its doc has no end"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn a_module_says_first_what_it_does() {
        let files = [
            ("crates/x/src/a.rs", "//! Decides who is next.\n"),
            ("crates/x/src/b.rs", "use std::fmt;\n"),
            ("crates/x/src/c.rs", "//! Module for things.\n"),
            ("crates/x/src/d.rs", "//! Talks to many,\n//! and to all.\n"),
            ("crates/x/src/e.rs", "//! Talks to nobody\n"),
            ("crates/x/src/mod.rs", "//! Everything about x.\n"),
            ("crates/x/tests/story.rs", "fn main() {}\n"),
        ];
        assert_eq!(
            told(check, &files),
            [
                "crates/x/src/b.rs:1: begins without a `//!` doc",
                "crates/x/src/c.rs:1: its doc begins with \"Module\", which is no verb of \
                 first_lines.rs",
                "crates/x/src/e.rs:1: the first sentence of its doc has no end",
            ]
        );
    }
}
