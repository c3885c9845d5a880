//! Talks to the file system: reads a configuration file, and never more of it than its limit.
//! In: a path. Out: its text.

use super::FILE_BYTES_MAX;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system would not.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// More than the limit.
    #[error("{} has more than {bytes_max} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit.
        bytes_max: usize,
    },
    /// Not text.
    #[error("{} is not UTF-8: line {line}, byte {column} of that line", path.display())]
    NotUtf8 {
        /// Which file.
        path: PathBuf,
        /// The line of the first bad byte, from 1.
        line: usize,
        /// That byte in its line, from 1.
        column: usize,
    },
}

/// Reads a configuration file.
///
/// # Errors
/// When it cannot be read, is larger than `FILE_BYTES_MAX`, or is not UTF-8.
pub fn read_file(path: &Path) -> Result<String, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a full file from one that is too large.
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Error::TooLarge { path: path.to_owned(), bytes_max: FILE_BYTES_MAX });
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = good.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        Error::NotUtf8 { path: path.to_owned(), line, column }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_readable_and_names_what_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tandem.toml");
        assert!(matches!(read_file(&path), Err(Error::Io { .. })));
        std::fs::write(&path, "cluster = \"shop\"\n").expect("written");
        assert_eq!(read_file(&path).expect("read"), "cluster = \"shop\"\n");
        std::fs::write(&path, b"a\nbc\xff").expect("written");
        assert!(matches!(read_file(&path), Err(Error::NotUtf8 { line: 2, column: 3, .. })));
        std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX]).expect("written");
        assert!(read_file(&path).is_ok());
        std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX + 1]).expect("written");
        assert!(matches!(read_file(&path), Err(Error::TooLarge { .. })));
    }
}
