//! Talks to the checks of this folder: what all need, values within limits and words of a list.
//! In: a written value. Out: the checked one, or a problem and something harmless in its place:
//! after an error no configuration is made, but the other checks still run.

use crate::config::problem::{Code, Problems, Say, nearest, quoted};
use crate::config::raw;
use crate::config::value::{self, Unreadable};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::Spanned;

/// How many nodes there are of each role, counted before anything else so that one bad node does
/// not change what is said about the services.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub data: usize,
    pub witnesses: usize,
}

impl Shape {
    pub(super) fn of(file: &raw::File) -> Self {
        let is_witness =
            |node: &&raw::Node| node.role.as_ref().is_some_and(|role| role.get_ref() == "witness");
        let witnesses = file.nodes.iter().filter(is_witness).count();
        Self { data: file.nodes.len() - witnesses, witnesses }
    }

    pub(super) const fn voters(self) -> usize {
        self.data + self.witnesses
    }
}

/// A whole number's limits and what it falls back to.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub range: RangeInclusive<i64>,
    pub default: i64,
    /// What to propose; none: the limit that was passed.
    pub example: Option<i64>,
    pub because: &'static str,
}

/// A duration's limits and what it falls back to.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub range: RangeInclusive<Duration>,
    pub default: Duration,
    pub because: &'static str,
}

#[derive(Debug)]
pub(super) struct Checker<'o, 'a> {
    pub problems: Problems<'a>,
    origins: &'o BTreeMap<String, Range<usize>>,
}

impl<'o, 'a> Checker<'o, 'a> {
    pub(super) const fn new(
        problems: Problems<'a>,
        origins: &'o BTreeMap<String, Range<usize>>,
    ) -> Self {
        Self { problems, origins }
    }

    /// Where to point for a key that may not be written.
    pub(super) fn place_of(&self, key: &str) -> Range<usize> {
        super::place_of(self.origins, key)
    }

    /// Whether a key was written.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// The line of a key or of the table around it.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.problems.source().line(self.place_of(key).start)
    }

    pub(super) fn bad(&mut self, key: &str, written: &Spanned<String>, why: Unreadable) {
        let what = format!("{key} = {} cannot be used", quoted(written.get_ref()));
        let say = Say::new(what, why.because, why.try_);
        self.problems.error(Code::BadValue, &written.span(), say);
    }

    /// A value by its reader.
    pub(super) fn read<T>(
        &mut self,
        key: &str,
        written: Option<&Spanned<String>>,
        reader: impl Fn(&str) -> Result<T, Unreadable>,
    ) -> Option<T> {
        let written = written?;
        match reader(written.get_ref()) {
            Ok(value) => Some(value),
            Err(why) => {
                self.bad(key, written, why);
                None
            }
        }
    }

    /// One word of a list.
    pub(super) fn word<T>(
        &mut self,
        key: &str,
        written: &Spanned<String>,
        (words, read): (&[&'static str], impl Fn(&str) -> Option<T>),
    ) -> Option<T> {
        let found = read(written.get_ref());
        if found.is_none() {
            let short = key.rsplit('.').next().unwrap_or(key);
            let instead = nearest(written.get_ref(), words).map_or_else(
                || format!("write one of: {}", words.join(", ")),
                |word| format!("did you mean \"{word}\"?"),
            );
            let because = format!("`{short}` is one of: {}", words.join(", "));
            self.bad(key, written, Unreadable { because, try_: instead });
        }
        found
    }

    /// A key that must be written; nothing if it was, and could only not be read.
    pub(super) fn missing(&mut self, key: &str, because: &str, example: &str) {
        if self.is_written(key) {
            return;
        }
        let place = self.place_of(key);
        let short = key.rsplit('.').next().unwrap_or(key);
        let say =
            Say::new(format!("{key} is missing"), because, format!("add: {short} = {example}"));
        self.problems.error(Code::MissingKey, &place, say);
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        written: Option<&Spanned<i64>>,
        limits: &Limits,
    ) -> i64 {
        let Some(written) = written else { return limits.default };
        let number = *written.get_ref();
        if limits.range.contains(&number) {
            return number;
        }
        let (least, most) = (limits.range.start(), limits.range.end());
        let bound = if number < *least { least } else { most };
        let say = Say::new(
            format!("{key} = {number} is out of range"),
            format!("it may be {least} to {most}: {}", limits.because),
            format!("write {}", limits.example.as_ref().unwrap_or(bound)),
        );
        self.problems.error(Code::OutOfRange, &written.span(), say);
        limits.default
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        written: Option<&Spanned<String>>,
        span: &Span,
    ) -> Duration {
        let Some(duration) = self.read(key, written, value::duration) else { return span.default };
        if span.range.contains(&duration) {
            return duration;
        }
        let print = value::print_duration;
        let (least, most) = (span.range.start(), span.range.end());
        let say = Say::new(
            format!("{key} = \"{}\" is out of range", print(duration)),
            format!("it may be {} to {}: {}", print(*least), print(*most), span.because),
            format!("write \"{}\"", print(if duration < *least { *least } else { *most })),
        );
        let place = written.map_or(0..0, Spanned::span);
        self.problems.error(Code::OutOfRange, &place, say);
        span.default
    }
}
