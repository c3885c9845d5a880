//! Talks to the file in which all copies of a drilled service write down what they do.
//! In: `Does`. Out: a line each; read back, `Line`s in the order in which they were written.
//! Each line is one write to a file opened for appending, so lines never mix, and their order is
//! the kernel's: no clock and no delay of a copy can change who wrote after whom.
//! Tested by: below.

use crate::runtime::clock;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tandem_core::time::Timestamp;

/// Longer than any line.
const TAIL_BYTES: usize = 4096;

/// What a copy does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// It begins.
    Start,
    /// It is at work.
    Beat,
    /// It was asked to end, and does.
    Stop,
    /// It worked on the request of that name.
    Request(String),
    /// It works on a partition.
    Work {
        /// Which.
        id: u32,
        /// Under which epoch it owns it.
        epoch: u64,
    },
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Who: a node or an endpoint.
    pub name: String,
    /// Which process: with the name it is a copy.
    pub pid: u32,
    /// In which term it was started.
    pub term: u64,
    /// When, on the machine's clock.
    pub at: Timestamp,
    /// What.
    pub does: Does,
}

/// The file, for one copy.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    name: String,
    term: u64,
}

impl Ledger {
    /// Opens or makes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path, name: &str, term: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o666).open(path)?;
        Ok(Self { file, name: name.to_owned(), term })
    }

    /// Who writes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a line for each, all at once.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, all: &[Does]) -> io::Result<()> {
        let (pid, at) = (std::process::id(), clock::now().0);
        let line = |does: &Does| {
            let what = match does {
                Does::Start => "start".to_owned(),
                Does::Beat => "beat".to_owned(),
                Does::Stop => "stop".to_owned(),
                Does::Request(id) => format!("request {id}"),
                Does::Work { id, epoch } => format!("work {id} {epoch}"),
            };
            format!("{} {pid} {} {at} {what}\n", self.name, self.term)
        };
        let lines: String = all.iter().map(line).collect();
        (&self.file).write_all(lines.as_bytes())
    }
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let name = words.next()?.to_owned();
        let (pid, term) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let at = Timestamp(words.next()?.parse().ok()?);
        let does = match words.collect::<Vec<&str>>()[..] {
            ["start"] => Does::Start,
            ["beat"] => Does::Beat,
            ["stop"] => Does::Stop,
            ["request", id] => Does::Request(id.to_owned()),
            ["work", id, epoch] => Does::Work { id: id.parse().ok()?, epoch: epoch.parse().ok()? },
            _ => return None,
        };
        Some(Self { name, pid, term, at, does })
    }
}

/// Everything that was written from a place on; the place after it. A line that is being written is
/// left for the next time.
///
/// # Errors
/// When the file cannot be read; none yet is no error.
pub fn read(path: &Path, from: u64) -> io::Result<(Vec<Line>, u64)> {
    use std::os::unix::fs::FileExt;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len().saturating_sub(from);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, from)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let lines = text.get(..whole).unwrap_or_default().lines().filter_map(Line::parse).collect();
    Ok((lines, from + whole as u64))
}

/// The place after the last whole line: where `read` would come to, without reading all of it.
///
/// # Errors
/// When the file cannot be read; none yet is no error.
pub fn end(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let (mut to, mut bytes) = (file.metadata()?.len(), vec![0; TAIL_BYTES]);
    while to > 0 {
        let from = to.saturating_sub(TAIL_BYTES as u64);
        let part = bytes.get_mut(..(to - from) as usize).unwrap_or_default();
        file.read_exact_at(part, from)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        to = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        assert_eq!(read(&path, 0).unwrap(), (Vec::new(), 0), "nothing yet");
        let ends = || assert_eq!(end(&path).unwrap(), read(&path, 0).unwrap().1);
        ends();
        let (a, b) = (Ledger::open(&path, "a", 3), Ledger::open(&path, "b", 4));
        let (a, b) = (a.unwrap(), b.unwrap());
        let work = Does::Work { id: 7, epoch: 12 };
        let all = [Does::Start, Does::Beat, Does::Request("r1-0-7".into()), work, Does::Stop];
        a.write(&all[..2]).unwrap();
        a.write(&all[2..]).unwrap();
        let (lines, end) = read(&path, 0).unwrap();
        assert_eq!(lines.iter().map(|line| line.does.clone()).collect::<Vec<_>>(), all);
        assert!(lines.iter().all(|line| line.name == "a" && line.term == 3 && line.at.0 > 0));
        b.write(&[Does::Beat]).unwrap();
        (&b.file).write_all(b"b 1 1 1 be").unwrap();
        let (lines, next) = read(&path, end).unwrap();
        assert_eq!((lines.len(), lines[0].name.as_str()), (1, "b"), "half a line is no line yet");
        ends();
        (&b.file).write_all(b"at\n").unwrap();
        assert_eq!(read(&path, next).unwrap().0[0].does, Does::Beat);
        ends();
        (&b.file).write_all(&[b'x'; TAIL_BYTES * 2 + 1]).unwrap();
        ends();
    }
}
