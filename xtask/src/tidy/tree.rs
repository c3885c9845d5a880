//! Reads the text files of the project, those that git tracks or would.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// One text file.
#[derive(Clone, Debug)]
pub struct File {
    /// Below the root, with slashes.
    pub path: String,
    pub text: String,
}

/// All text files, in the order of their paths.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub files: Vec<File>,
}

impl Tree {
    pub fn read(root: &Path) -> Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("cannot run git")?;
        ensure!(output.status.success(), "git ls-files failed: is this a clone?");
        let mut files = Vec::new();
        for path in String::from_utf8(output.stdout)?.split_terminator('\0') {
            // Deleted and not yet committed, or not a text: nothing to check.
            if let Ok(text) = fs::read_to_string(root.join(path)) {
                files.push(File { path: path.to_owned(), text });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok(Self { files })
    }

    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Self { files: files.iter().map(file).collect() }
    }

    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// Rust that ships or checks, tests in files of their own left out.
    pub fn rust_without_tests(&self) -> impl Iterator<Item = &File> {
        self.rust().filter(|file| !file.is_test())
    }
}

impl File {
    pub fn is_test(&self) -> bool {
        self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("/testing.rs")
    }

    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// Numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Without the tests at the end of the file.
    pub fn lines_without_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let text = self.text.get(..end).unwrap_or(&self.text);
        text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// The words of a line as identifiers, in lower case: `HandOver` and `hand_over` are `hand over`.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut previous = ' ';
    for letter in line.chars() {
        let begins = letter.is_uppercase() && previous.is_lowercase();
        if (begins || !letter.is_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if letter.is_alphanumeric() {
            word.extend(letter.to_lowercase());
        }
        previous = letter;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_fall_into_words() {
        assert_eq!(words("Action::HandOver { to_node }"), ["action", "hand", "over", "to", "node"]);
        assert_eq!(words("multi-master, IPv4"), ["multi", "master", "ipv4"]);
    }

    #[test]
    fn tests_at_the_end_are_left_out() {
        let tree =
            Tree::of(&[("a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n")]);
        assert_eq!(tree.files[0].lines_without_tests().count(), 1);
    }
}
