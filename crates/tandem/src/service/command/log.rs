//! Talks to the file that a command prints to: keeps it within bounds, and reads what is new in it.
//! The command has it open, so it is copied and emptied rather than moved: a line that is printed
//! in between is lost.
//! Keeps: what a command prints is bounded, here and in the node's log.
//! Tested by: `tests.rs`.

use super::CommandConfig;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

/// So much of what is new is read: of a flood, the end.
const READ_BYTES_MAX: u64 = 16 << 10;
/// So many lines of it are shown, and so much of each.
const LINES_MAX: usize = 20;
const LINE_CHARS_MAX: usize = 400;

/// What is new in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// The last whole lines, without what could steer a terminal.
    pub lines: Vec<String>,
    /// So much is new besides.
    pub left_out_bytes: u64,
    /// Up to where that was.
    pub place: u64,
}

impl CommandConfig {
    /// What was printed after a place; nothing where none is known yet.
    ///
    /// # Errors
    /// The disk's.
    pub fn printed_since(&self, place: Option<u64>) -> io::Result<Printed> {
        let length = self.log_length()?.unwrap_or(0);
        // Shorter than before: it was emptied since.
        let from = place.map_or(length, |place| if place > length { 0 } else { place });
        if from == length {
            return Ok(Printed { place: length, ..Printed::default() });
        }
        let read_from = from.max(length.saturating_sub(READ_BYTES_MAX));
        let mut file = self.open_log(OpenOptions::new().read(true))?;
        file.seek(SeekFrom::Start(read_from))?;
        let mut bytes = Vec::new();
        file.take(length - read_from).read_to_end(&mut bytes)?;
        // The rest of a line comes later, unless it is one without an end.
        let is_full = bytes.len() as u64 == READ_BYTES_MAX;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let end = end.unwrap_or(if is_full { bytes.len() } else { 0 });
        let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
        let all: Vec<&str> = text.lines().collect();
        let shown = all.get(all.len().saturating_sub(LINES_MAX)..).unwrap_or_default();
        let shown_bytes: u64 = shown.iter().map(|line| line.len() as u64 + 1).sum();
        let place = read_from + end as u64;
        Ok(Printed {
            lines: shown.iter().map(|line| harmless(line)).collect(),
            left_out_bytes: (place - from).saturating_sub(shown_bytes),
            place,
        })
    }

    /// None is where there is none, or something that is no file.
    fn log_length(&self) -> io::Result<Option<u64>> {
        match fs::symlink_metadata(self.log_file()) {
            Ok(found) => Ok(found.is_file().then_some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Not through a link that the command's user could have put in its place.
    fn open_log(&self, options: &mut OpenOptions) -> io::Result<File> {
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(self.log_file())
    }

    /// Moves the log aside if it has grown too long; whether it had.
    ///
    /// # Errors
    /// The disk's.
    pub fn bound_log(&self) -> io::Result<bool> {
        let Some(length) = self.log_length()? else { return Ok(false) };
        if length <= self.log_bytes_max {
            return Ok(false);
        }
        let (aside, new) = (self.dir.join("output.log.1"), self.dir.join("output.log.new"));
        let mut from = self.open_log(OpenOptions::new().read(true).write(true))?;
        // The same holds for what it is copied to.
        let _ = fs::remove_file(&new);
        let mut options = OpenOptions::new();
        let mut to = options.write(true).create_new(true).mode(0o640).open(&new)?;
        // No more than was there: a command that prints faster than this copies has no end. Of a
        // flood the end is kept.
        let kept = length.min(self.log_bytes_max.saturating_mul(2));
        from.seek(SeekFrom::Start(length - kept))?;
        io::copy(&mut (&mut from).take(kept), &mut to)?;
        from.set_len(0)?;
        fs::rename(&new, &aside)?;
        Ok(true)
    }
}

fn harmless(line: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut text: String = line.chars().take(LINE_CHARS_MAX).map(plain).collect();
    if line.chars().nth(LINE_CHARS_MAX).is_some() {
        text.push('…');
    }
    text
}
