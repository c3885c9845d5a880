//! Reports traces of one machine: paths of somebody's home, and words about where text was written.

use super::{Finding, tree::Tree};

/// Pieces that no tracked file needs, written so that this one does not contain them.
const TRACES: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/works", "pace/"),
    concat!("work", "tree"),
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (line, text) in file.lines() {
            for trace in TRACES.iter().filter(|trace| is_there(text, trace)) {
                findings.push(Finding::new(&file.path, line, format!("names {trace}")));
            }
        }
    }
    findings
}

/// A path counts only from its beginning: `target/work/` and `https://x/home/` are no traces.
fn is_there(text: &str, trace: &str) -> bool {
    text.match_indices(trace).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !trace.starts_with('/')
            || before.is_none_or(|c| !(c.is_alphanumeric() || "./-_*}$)".contains(c)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn paths_of_a_machine_are_found() {
        let home = concat!("see /ho", "me/me/x\nhttps://x.org/ho", "me/y\n");
        let tree = concat!("made in a work", "tree\n");
        assert_eq!(
            told(check, &[("a.md", home), ("b.rs", tree)]),
            [concat!("a.md:1: names /ho", "me/"), concat!("b.rs:1: names work", "tree")]
        );
    }
}
