//! Reads every tracked file and reports what compilers and clippy do not: one check per file here.
//! Each check takes the whole tree and gives findings, so that a test is a tree of three lines.

pub mod changes;
mod direction;
mod first_lines;
mod links;
mod machine;
mod manifests;
mod numbers;
pub mod sizes;
pub mod tree;
mod words;

use crate::say;
use anyhow::{Result, bail};
use std::fmt;
use std::path::Path;
use tree::Tree;

/// Something to put right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

type Check = fn(&Tree) -> Vec<Finding>;

const CHECKS: &[(&str, Check)] = &[
    ("first lines", first_lines::check),
    ("numbers of invariants, hazards and errors", numbers::check),
    ("sizes", sizes::check),
    ("direction", direction::check),
    ("words", words::check),
    ("manifests", manifests::check),
    ("machines", machine::check),
    ("links", links::check),
    ("notes of changes", changes::check),
];

pub fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut count = 0;
    for (name, check) in CHECKS {
        let mut findings = check(&tree);
        findings.sort();
        for finding in &findings {
            say(&format!("{finding} [{name}]"))?;
        }
        count += findings.len();
    }
    if count > 0 {
        bail!("{count} findings");
    }
    Ok(())
}

#[cfg(test)]
fn told(check: Check, files: &[(&str, &str)]) -> Vec<String> {
    let mut findings = check(&Tree::of(files));
    findings.sort();
    findings.iter().map(ToString::to_string).collect()
}
