//! Tells why something was decided: in words, and with the numbers that the words rest on.
//! The words are for people, the numbers for programs: each number of a text stands beside it under
//! a name that says what it counts.
//! Not here: what is decided (`clustering/`), how it is shown (the shell).
//! Tested by: the scenarios, which show both.

use crate::ids::NodeId;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Why, in words and in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    text: String,
    numbers: Vec<(&'static str, u64)>,
}

impl Reason {
    /// A reason in words.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), numbers: Vec::new() }
    }

    /// With one of its numbers; the unit, then the bound, come last in its name.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: impl TryInto<u64>) -> Self {
        // Too great for the type is as great as it gets.
        self.numbers.push((name, value.try_into().unwrap_or(u64::MAX)));
        self
    }

    /// The same numbers in a longer sentence, made of the words so far.
    #[must_use]
    pub fn within(self, sentence: impl FnOnce(&str) -> String) -> Self {
        Self { text: sentence(&self.text), numbers: self.numbers }
    }

    /// This one, and another one after it.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.text = format!("{}; {}", self.text, other.text);
        for (name, value) in &other.numbers {
            if !self.numbers.iter().any(|(known, _)| known == name) {
                self.numbers.push((name, *value));
            }
        }
        self
    }

    /// The words.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The numbers by name, in the order in which the words have them.
    pub fn numbers(&self) -> &[(&'static str, u64)] {
        &self.numbers
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// Nodes as a person would list them.
pub fn list<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    let names: Vec<String> = nodes.into_iter().map(ToString::to_string).collect();
    if names.is_empty() { "nobody".into() } else { names.join(", ") }
}
