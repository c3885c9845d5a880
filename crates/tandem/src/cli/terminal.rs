//! Talks to stdout: lines, tables and JSON, in place on a terminal and plainly elsewhere.
//! In: text. Out: bytes; colours only on a terminal, and none where `NO_COLOR` is set.
//! Not here: errors (`report.rs`).
//! Tested by: below, and by every command's test.

use comfy_table::{Cell, Color, Table, presets};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

/// Where a command writes its answer.
pub struct Terminal {
    out: Box<dyn Write + Send>,
    json: bool,
    interactive: bool,
    colours: bool,
    drawn: bool,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Terminal {
    /// The process's own.
    pub fn stdout(json: bool) -> Self {
        let interactive = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            out: Box::new(io::stdout()),
            json,
            interactive: interactive && !dumb,
            colours: interactive && !dumb && !no_color,
            drawn: false,
        }
    }

    /// Something that is not a terminal.
    pub fn plain(out: Box<dyn Write + Send>, json: bool) -> Self {
        Self { out, json, interactive: false, colours: false, drawn: false }
    }

    /// Where the text goes.
    pub fn writer(&mut self) -> &mut (dyn Write + Send) {
        &mut *self.out
    }

    /// `--json` was given.
    pub const fn wants_json(&self) -> bool {
        self.json
    }

    /// A person sees what is written as it is written.
    pub const fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Writes a line, or several.
    ///
    /// # Errors
    /// Nobody reads any more, or there is no room.
    pub fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Writes a value as one line of JSON.
    ///
    /// # Errors
    /// Nobody reads any more, or there is no room.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value).map_err(io::Error::other)?;
        self.line(text)
    }

    /// Writes a page over the one before; below it where that cannot be done.
    ///
    /// # Errors
    /// Nobody reads any more, or there is no room.
    pub fn redraw(&mut self, page: &str) -> io::Result<()> {
        if !self.interactive {
            return self.line(page);
        }
        // Home and overwrite instead of clearing: the page does not flicker.
        let start = if self.drawn { "\x1b[H" } else { "\x1b[2J\x1b[H" };
        self.drawn = true;
        let page = page.trim_end().replace('\n', "\x1b[K\n");
        write!(self.out, "{start}{page}\x1b[K\n\x1b[J")?;
        self.out.flush()
    }

    /// A table without lines, as wide as its content: it survives `grep` and `awk`.
    pub fn table(&self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        if self.colours {
            table.enforce_styling();
        }
        table.set_header(header.iter().map(Cell::new));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }

    /// A cell in a colour.
    pub fn cell(text: impl Display, mood: Mood) -> Cell {
        let cell = Cell::new(text);
        match mood {
            Mood::Good => cell.fg(Color::Green),
            Mood::Plain => cell,
            Mood::Odd => cell.fg(Color::Yellow),
            Mood::Bad => cell.fg(Color::Red),
        }
    }
}

/// How something is; its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should be, and worth seeing.
    Good,
    /// As it should be.
    Plain,
    /// In passing, or not as it should be.
    Odd,
    /// Broken.
    Bad,
}

/// A table as text, without the spaces that only fill its last column.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Remembers what was written.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        pub(crate) fn terminal(&self, json: bool) -> Terminal {
            Terminal::plain(Box::new(self.clone()), json)
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn without_a_terminal_there_are_no_escapes() {
        let paper = Paper::default();
        let mut terminal = paper.terminal(false);
        let mut table = terminal.table(&["NODE", "STATE"]);
        table.add_row([Cell::new("a"), Terminal::cell("down", Mood::Bad)]);
        terminal.redraw(&lines(&table)).unwrap();
        terminal.redraw("again").unwrap();
        assert_eq!(paper.text(), "NODE  STATE\na     down\n\nagain\n");
    }

    #[test]
    fn on_a_terminal_a_page_replaces_the_one_before() {
        let paper = Paper::default();
        let mut terminal = Terminal { interactive: true, ..paper.terminal(false) };
        terminal.redraw("one\ntwo").unwrap();
        terminal.redraw("three\n").unwrap();
        assert_eq!(
            paper.text(),
            "\x1b[2J\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J\x1b[Hthree\x1b[K\n\x1b[J"
        );
    }

    #[test]
    fn colours_are_wanted_explicitly() {
        let mut terminal = Paper::default().terminal(false);
        terminal.colours = true;
        let mut table = terminal.table(&["STATE"]);
        table.add_row([Terminal::cell("down", Mood::Bad)]);
        assert!(lines(&table).contains("\x1b[38;5;9mdown"), "{:?}", lines(&table));
    }
}
