//! Reports numbers that lead nowhere: invariants and hazards against docs/invariants.md both ways,
//! error codes against docs/errors.
//! In the list, a row begins with `| H12 |` or `| INV-3 |`. A row may name files in backticks,
//! tests as `path::name` and stories as `scenarios/name.txt`: each must exist, and a file or story
//! under crates must name the number, unless the row's state is "open". What the code names must
//! not be called open.

use super::{Finding, tree::File, tree::Tree};
use std::collections::{BTreeMap, BTreeSet};

pub const LIST: &str = "docs/invariants.md";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rows = rows(tree);
    let mut without_page = BTreeSet::new();
    for file in tree.rust().filter(|file| !file.path.starts_with("xtask/")) {
        for (line, text) in file.lines() {
            for number in numbers(text) {
                let what = match rows.get(&number) {
                    None => format!("{number} is not in {LIST}"),
                    Some(row) if row.is_open && !file.is_test() => {
                        format!("{number} is named here, and open in {LIST}")
                    }
                    Some(_) => continue,
                };
                findings.push(Finding::new(&file.path, line, what));
            }
            for code in codes(text) {
                let has_page = tree.get(&format!("docs/errors/{code}.md")).is_some();
                if !has_page && without_page.insert(code) {
                    let what = format!("{code} has no page docs/errors/{code}.md");
                    findings.push(Finding::new(&file.path, line, what));
                }
            }
        }
    }
    for (number, row) in &rows {
        for place in &row.places {
            if let Some(what) = wrong(tree, number, place, row.is_open) {
                findings.push(Finding::new(LIST, row.line, what));
            }
        }
        if row.places.is_empty() && !row.is_open {
            let what = format!("{number} is not called open, and names no file");
            findings.push(Finding::new(LIST, row.line, what));
        }
    }
    findings
}

#[derive(Debug)]
struct Row {
    line: usize,
    is_open: bool,
    places: Vec<String>,
}

fn rows(tree: &Tree) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let Some(list) = tree.get(LIST) else { return rows };
    for (line, text) in list.lines().filter(|(_, text)| text.starts_with("| ")) {
        let mut cells = text.split('|').map(str::trim).skip(1);
        let Some(number) = cells.next().filter(|cell| numbers(cell) == [*cell]) else { continue };
        let is_open = cells.any(|cell| cell == "open");
        let in_backticks = text.split('`').skip(1).step_by(2);
        let places = in_backticks.filter(|text| text.contains(".rs") || text.contains('/'));
        let places = places.map(ToOwned::to_owned).collect();
        rows.insert(number.to_owned(), Row { line, is_open, places });
    }
    rows
}

/// What is wrong with a place that a row names, if anything.
fn wrong(tree: &Tree, number: &str, place: &str, is_open: bool) -> Option<String> {
    let (path, test) = match place.split_once("::") {
        Some((path, test)) => (path, Some(test)),
        None => (place, None),
    };
    let full = |file: &&File| {
        file.path == path
            || file.path == format!("crates/tandem/src/{path}")
            || file.path == format!("crates/tandem/{path}")
            || file.path == format!("crates/{path}")
            || file.path == format!("crates/core/{path}")
            || file.path == format!("crates/core/src/{path}")
    };
    let Some(file) = tree.files.iter().find(full) else {
        return Some(format!("{number}: there is no file {path}"));
    };
    if let Some(test) = test {
        let exists = file.text.contains(&format!("fn {test}("));
        return (!exists).then(|| format!("{number}: {path} has no test {test}"));
    }
    let names_it = file.text.lines().any(|line| numbers(line).iter().any(|n| n == number));
    let must = !is_open && !file.is_test() && file.path.starts_with("crates/");
    (must && !names_it).then(|| format!("{number}: {path} does not name it"))
}

/// `H12` and `INV-3`, as words of their own.
fn numbers(text: &str) -> Vec<String> {
    let word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.split(|c| !word(c))
        .filter(|word| {
            let digits = word.strip_prefix('H').or_else(|| word.strip_prefix("INV-"));
            digits.is_some_and(|d| {
                (1..=2).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit())
            })
        })
        .map(ToOwned::to_owned)
        .collect()
}

/// `TDM0104`; 9999 is for tests of codes that do not exist.
fn codes(text: &str) -> Vec<&str> {
    text.match_indices("TDM")
        .filter_map(|(at, _)| {
            let code = text.get(at..at + 7)?;
            let next = text.as_bytes().get(at + 7);
            let whole = code.bytes().skip(3).all(|b| b.is_ascii_digit())
                && !next.is_some_and(u8::is_ascii_digit);
            (whole && code != concat!("TDM", "9999")).then_some(code)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn numbers_are_words() {
        assert_eq!(numbers("H2 (H31, INV-3) H101 BH1 H1x: H4."), ["H2", "H31", "INV-3", "H4"]);
        assert_eq!(codes(concat!("TDM", "0104 and TDM", "9999 and TDMnnnn")), ["TDM0104"]);
    }

    #[test]
    fn both_ways_are_checked() {
        let list = "| number | where |\n|---|---|\n\
            | H1 | handled | `a.rs` `a.rs::works` |\n\
            | H2 | handled | `a.rs` `gone.rs` `a.rs::fails` |\n\
            | H3 | open | |\n\
            | H4 | handled | |\n\
            | H5 | handled | `scenarios/told.txt` `scenarios/other.txt` `scenarios/gone.txt` |\n";
        let code = "//! Decides. Keeps: H1, H3, H9.\nfn works() {}\n";
        let told_of = ("crates/core/scenarios/told.txt", "# A story (H5).\n");
        let other = ("crates/core/scenarios/other.txt", "# Another story.\n");
        let files = [(LIST, list), ("crates/tandem/src/a.rs", code), told_of, other];
        assert_eq!(
            told(check, &files),
            [
                "crates/tandem/src/a.rs:1: H3 is named here, and open in docs/invariants.md",
                "crates/tandem/src/a.rs:1: H9 is not in docs/invariants.md",
                "docs/invariants.md:4: H2: a.rs does not name it",
                "docs/invariants.md:4: H2: a.rs has no test fails",
                "docs/invariants.md:4: H2: there is no file gone.rs",
                "docs/invariants.md:6: H4 is not called open, and names no file",
                "docs/invariants.md:7: H5: scenarios/other.txt does not name it",
                "docs/invariants.md:7: H5: there is no file scenarios/gone.txt",
            ]
        );
    }
}
