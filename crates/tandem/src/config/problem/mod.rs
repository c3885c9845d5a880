//! Talks to the writer of the file: what is wrong, where, why, and what to write instead.
//! In: a byte range of the file and three sentences. Out: `Problem`, printed as compilers do.
//! Columns count characters from 1; a tab is one character, a byte order mark and the `\r` of a
//! line end are none.
//! Tested by: `config/tests/positions.rs`.

mod code;
mod nearest;

pub use code::Code;
pub(crate) use nearest::nearest;

use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Of a longer line only the part around the problem is shown.
const EXCERPT_CHARS_MAX: usize = 160;

/// A sentence that quotes a longer text of the file is cut.
const SENTENCE_CHARS_MAX: usize = 400;
const QUOTE_CHARS_MAX: usize = 60;

/// How a tab is shown: the underline below it stays in place whatever the terminal's stops.
const TAB: &str = "    ";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing runs with this file.
    Error,
    /// It runs; the owner should know.
    Warning,
    /// What a change brings with it.
    Note,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its page in the documentation.
    pub code: Code,
    /// Whether the file can be used.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Where, in bytes from the start of the file.
    pub span: Range<usize>,
    /// The line, from 1.
    pub line: usize,
    /// The character in that line, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// Why that is wrong.
    pub because: String,
    /// What to do.
    #[serde(rename = "try")]
    pub try_: String,
    #[serde(skip)]
    excerpt: Excerpt,
}

/// The part of a line to show, and what of it to underline, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    marked: Range<usize>,
}

/// The three sentences of a problem.
#[derive(Debug)]
pub(in crate::config) struct Say {
    what: String,
    because: String,
    try_: String,
}

impl Say {
    pub(in crate::config) fn new(
        what: impl Into<String>,
        because: impl Into<String>,
        try_: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), because: because.into(), try_: try_.into() }
    }
}

/// A sentence without what could move the cursor of a terminal, and of bounded length.
fn sentence(text: String) -> String {
    if text.len() <= SENTENCE_CHARS_MAX && !text.contains(char::is_control) {
        return text;
    }
    cut(&text, SENTENCE_CHARS_MAX)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text of the file in a sentence.
pub(in crate::config) fn quoted(text: &str) -> String {
    format!("{:?}", cut(text, QUOTE_CHARS_MAX))
}

/// A file's text, by line.
#[derive(Clone, Debug)]
pub(in crate::config) struct Source<'a> {
    file: Arc<str>,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(in crate::config) fn new(text: &'a str, file_name: &str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(i, _)| i + 1))
            .collect();
        Self { file: file_name.into(), text, line_starts }
    }

    /// The line of a byte, from 1.
    pub(in crate::config) fn line(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= byte)
    }

    fn line_text(&self, line: usize) -> (usize, &'a str) {
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("");
        let text = rest.split('\n').next().unwrap_or("");
        let text = text.strip_suffix('\r').unwrap_or(text);
        match text.strip_prefix('\u{feff}') {
            Some(marked) if start == 0 => ('\u{feff}'.len_utf8(), marked),
            Some(_) | None => (start, text),
        }
    }

    /// A span that is inside the text and does not cut a character.
    fn clamp(&self, span: &Range<usize>) -> Range<usize> {
        let floor = |byte: usize| {
            let mut byte = byte.min(self.text.len());
            while !self.text.is_char_boundary(byte) {
                byte -= 1;
            }
            byte
        };
        let start = floor(span.start);
        start..floor(span.end).max(start)
    }

    pub(in crate::config) fn problem(
        &self,
        severity: Severity,
        code: Code,
        span: &Range<usize>,
        say: Say,
    ) -> Problem {
        let span = self.clamp(span);
        let line = self.line(span.start);
        let (line_start, text) = self.line_text(line);
        let chars_to = |byte: usize| {
            let byte = byte.saturating_sub(line_start).min(text.len());
            text.get(..byte).map_or(0, |before| before.chars().count())
        };
        let marked = chars_to(span.start)..chars_to(span.end);
        Problem {
            code,
            severity,
            file: Arc::clone(&self.file),
            line,
            column: marked.start + 1,
            excerpt: Excerpt::of(text, marked),
            span,
            what: sentence(say.what),
            because: sentence(say.because),
            try_: sentence(say.try_),
        }
    }
}

impl Excerpt {
    fn of(line: &str, marked: Range<usize>) -> Self {
        let total = line.chars().count();
        let first = if total <= EXCERPT_CHARS_MAX {
            0
        } else {
            marked.start.saturating_sub(EXCERPT_CHARS_MAX / 4)
        };
        let end = total.min(first + EXCERPT_CHARS_MAX);
        let text = line.chars().skip(first).take(end - first).collect();
        let start = marked.start.min(end) - first;
        Self { text, marked: start..marked.end.clamp(first + start, end) - first }
    }

    /// The line as shown and its underline.
    fn render(&self) -> (String, String) {
        let mut shown = String::new();
        let mut under = String::new();
        for (index, character) in self.text.chars().enumerate() {
            let mark = if self.marked.contains(&index) { '^' } else { ' ' };
            if character == '\t' {
                shown.push_str(TAB);
                under.extend(TAB.chars().map(|_| mark));
            } else {
                // A control character could move the cursor of the terminal that shows it.
                shown.push(if character.is_control() { '\u{fffd}' } else { character });
                under.push(mark);
            }
        }
        if self.marked.is_empty() {
            let at = self.text.chars().take(self.marked.start);
            let width: usize = at.map(|c| if c == '\t' { TAB.len() } else { 1 }).sum();
            under = format!("{}^", " ".repeat(width));
        }
        (shown, under.trim_end().to_owned())
    }
}

impl Problem {
    /// Whether nothing runs with this file.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The problem as a person reads it, several lines, ending in a newline.
    pub fn render(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gutter = self.line.to_string().len();
        let (shown, under) = self.excerpt.render();
        writeln!(f, "{}[{}]: {}", self.severity.word(), self.code, self.what)?;
        writeln!(f, "{:gutter$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{} | {shown}", self.line)?;
        writeln!(f, "{:gutter$} | {under}", "")?;
        if !self.because.is_empty() {
            writeln!(f, "{:gutter$} = because: {}", "", self.because)?;
        }
        if !self.try_.is_empty() {
            writeln!(f, "{:gutter$} = try: {}", "", self.try_)?;
        }
        Ok(())
    }
}

/// Collects every problem of one file.
#[derive(Debug)]
pub(in crate::config) struct Problems<'a> {
    source: Source<'a>,
    found: Vec<Problem>,
    errors: usize,
}

impl<'a> Problems<'a> {
    pub(in crate::config) const fn new(source: Source<'a>) -> Self {
        Self { source, found: Vec::new(), errors: 0 }
    }

    pub(in crate::config) fn error(&mut self, code: Code, span: &Range<usize>, say: Say) {
        self.errors += 1;
        self.keep(Severity::Error, code, span, say);
    }

    pub(in crate::config) fn warning(&mut self, code: Code, span: &Range<usize>, say: Say) {
        self.keep(Severity::Warning, code, span, say);
    }

    pub(in crate::config) fn note(&mut self, code: Code, span: &Range<usize>, say: Say) {
        self.keep(Severity::Note, code, span, say);
    }

    /// Full: the rest is of no use to a person who has this many to mend, so it is dropped.
    fn keep(&mut self, severity: Severity, code: Code, span: &Range<usize>, say: Say) {
        if self.found.len() < crate::config::PROBLEMS_MAX {
            self.found.push(self.source.problem(severity, code, span, say));
        }
    }

    pub(in crate::config) const fn errors(&self) -> usize {
        self.errors
    }

    pub(in crate::config) const fn source(&self) -> &Source<'a> {
        &self.source
    }

    /// Everything found, in the order of the file.
    pub(in crate::config) fn into_sorted(self) -> Vec<Problem> {
        let mut found = self.found;
        found.sort_by_key(|problem| (problem.span.start, problem.severity, problem.code));
        found
    }
}
