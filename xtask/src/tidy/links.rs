//! Reports links between documents that lead nowhere.

use super::{Finding, tree::Tree};
use std::collections::BTreeSet;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut known: BTreeSet<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
    for file in &tree.files {
        let mut folder = file.folder();
        while !folder.is_empty() && known.insert(folder) {
            folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, text) in file.lines() {
            for link in links(text) {
                if !known.contains(resolved(file.folder(), link).as_str()) {
                    findings.push(Finding::new(&file.path, line, format!("there is no {link}")));
                }
            }
        }
    }
    findings
}

/// The targets of `[text](target)` that are files of the project, without their anchor.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link.split('#').next().unwrap_or(link))
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:"))
        .collect()
}

fn resolved(folder: &str, link: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::told;

    #[test]
    fn links_lead_to_files_and_folders() {
        let text =
            "[a](../README.md) [b](adr/) [c](adr/1.md#x) [d](https://x.y) [e](gone.md) [f](#y)";
        let files = [("README.md", ""), ("docs/a.md", text), ("docs/adr/1.md", "")];
        assert_eq!(told(check, &files), ["docs/a.md:1: there is no gone.md"]);
    }
}
