//! Reports notes of changes that a release could not join: each is one paragraph with its kind.

use super::{Finding, tree::Tree};

pub const FOLDER: &str = "docs/changes/unreleased";
/// In the order of the changelog.
pub const KINDS: &[&str] = &["Added", "Changed", "Fixed", "Removed", "Security"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.folder() == FOLDER) {
        let stem = file.name().strip_suffix(".md").unwrap_or_default();
        let is_kebab =
            stem.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if stem.is_empty() || !is_kebab {
            findings.push(Finding::new(&file.path, 0, "its name is not of the form short-name.md"));
        }
        if split(&file.text).is_none_or(|(_, text)| text.is_empty()) {
            let what =
                format!("does not begin with one of {}, a colon and the news", KINDS.join(", "));
            findings.push(Finding::new(&file.path, 1, what));
        }
    }
    findings
}

/// The index of the kind, and the text.
pub fn split(note: &str) -> Option<(usize, &str)> {
    let (kind, text) = note.split_once(':')?;
    Some((KINDS.iter().position(|known| *known == kind)?, text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn a_note_has_a_kind_and_a_text() {
        let files = [
            ("docs/changes/unreleased/good.md", "Added: a door.\n"),
            ("docs/changes/unreleased/Bad name.md", "Fixed: a door.\n"),
            ("docs/changes/unreleased/empty.md", "Added:\n"),
            ("docs/changes/unreleased/other.md", "New door.\n"),
        ];
        assert_eq!(told(check, &files).len(), 3);
    }
}
