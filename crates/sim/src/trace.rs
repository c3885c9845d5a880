//! Keeps the last lines of what happened, for the report of a failure.

use crate::event::Micros;
use std::collections::VecDeque;

/// A ring of lines; empty while off, since a failing seed is run again to get them.
#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<String>,
    lines_max: usize,
}

impl Trace {
    /// Keeps the last `lines_max` lines; 0 is off.
    pub fn new(lines_max: usize) -> Self {
        Self { lines: VecDeque::new(), lines_max }
    }

    /// Notes a line, made only if it is kept.
    pub fn note(&mut self, at: Micros, line: impl FnOnce() -> String) {
        if self.lines_max == 0 {
            return;
        }
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>10.3} ms  {}", at as f64 / 1000.0, line()));
    }

    /// The lines, oldest first.
    pub fn lines(self) -> Vec<String> {
        self.lines.into()
    }
}
