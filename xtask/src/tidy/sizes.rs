//! Reports files, lines and folders that grew too large, as a ratchet: a file over 400 lines is
//! listed with its size, and may only shrink.

use super::{Finding, tree::File, tree::Tree};
use std::collections::BTreeMap;

pub const RATCHET: &str = "xtask/ratchet.txt";

const HEAD: &str = "\
# Files over 400 lines without their tests, with their size: it may only shrink (cargo xtask gen).
# A new line needs a reason in its review; over 800 lines there is none.
";
const FILE_LINES_EXPLAIN: usize = 400;
const FILE_LINES_MAX: usize = 800;
const LINE_CHARS_MAX: usize = 100;
const FOLDER_FILES_MAX: usize = 14;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let allowed = ratchet(tree);
    for file in tree.rust() {
        let lines = size(file);
        let listed = allowed.get(&file.path);
        if lines > FILE_LINES_MAX {
            findings.push(Finding::new(&file.path, 0, format!("{lines} lines: split it")));
        } else if lines > FILE_LINES_EXPLAIN && listed.is_none_or(|allowed| lines > *allowed) {
            let what = format!("{lines} lines: split it, or list it in {RATCHET}");
            findings.push(Finding::new(&file.path, 0, what));
        }
        for (line, text) in file.lines() {
            let chars = text.chars().count();
            if chars > LINE_CHARS_MAX && !text.contains("://") {
                let what = format!("{chars} characters in a line");
                findings.push(Finding::new(&file.path, line, what));
            }
        }
    }
    for (path, allowed) in &allowed {
        let lines = tree.get(path).map_or(0, size);
        if lines < *allowed {
            let what = format!("{path} has {lines} lines, not {allowed}: run cargo xtask gen");
            findings.push(Finding::new(RATCHET, 0, what));
        }
    }
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for file in tree.rust() {
        *folders.entry(file.folder()).or_default() += 1;
    }
    for (folder, files) in folders.into_iter().filter(|(_, files)| *files > FOLDER_FILES_MAX) {
        findings.push(Finding::new(folder, 0, format!("{files} files: make a folder of some")));
    }
    findings
}

/// The ratchet with every number lowered to what is there; what is not listed stays unlisted.
pub fn shrunk(tree: &Tree) -> String {
    let mut text = HEAD.to_owned();
    for (path, allowed) in ratchet(tree) {
        let lines = tree.get(&path).map_or(0, size).min(allowed);
        if lines > FILE_LINES_EXPLAIN {
            text += &format!("{lines} {path}\n");
        }
    }
    text
}

fn size(file: &File) -> usize {
    file.lines_without_tests().count()
}

fn ratchet(tree: &Tree) -> BTreeMap<String, usize> {
    let text = tree.get(RATCHET).map_or("", |file| file.text.as_str());
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(lines, path)| Some((path.to_owned(), lines.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn a_file_may_only_shrink() {
        let text = |lines| "x\n".repeat(lines);
        let files = [
            ("a.rs", text(400)),
            ("b.rs", text(401)),
            ("c.rs", text(500)),
            ("d.rs", text(500)),
            ("e.rs", text(801)),
            ("f.rs", text(450)),
            (RATCHET, "# why\n499 c.rs\n500 d.rs\n500 f.rs\n500 gone.rs\n".to_owned()),
        ];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        assert_eq!(
            told(check, &files),
            [
                "b.rs: 401 lines: split it, or list it in xtask/ratchet.txt",
                "c.rs: 500 lines: split it, or list it in xtask/ratchet.txt",
                "e.rs: 801 lines: split it",
                "xtask/ratchet.txt: f.rs has 450 lines, not 500: run cargo xtask gen",
                "xtask/ratchet.txt: gone.rs has 0 lines, not 500: run cargo xtask gen",
            ]
        );
        assert_eq!(shrunk(&Tree::of(&files)), format!("{HEAD}499 c.rs\n500 d.rs\n450 f.rs\n"));
    }

    #[test]
    fn lines_and_folders_are_counted() {
        let long = format!("// {}\n// see https://{}\n", "é".repeat(98), "x".repeat(98));
        let files: Vec<String> = (0..15).map(|n| format!("src/f{n}.rs")).collect();
        let mut tree: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "")).collect();
        tree[0].1 = &long;
        assert_eq!(
            told(check, &tree),
            ["src: 15 files: make a folder of some", "src/f0.rs:1: 101 characters in a line"]
        );
    }
}
