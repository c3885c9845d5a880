//! Talks to the server's log: why it ended.
//! In: `postgres.log`. Out: its last complaint that ended a process.
//! Tested by: below.

use super::{Error, Postgres, files};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// The end of the log that is looked at.
const TAIL_BYTES: u64 = 16 * 1024;

impl Postgres {
    /// Where the postmaster's output goes.
    pub fn log_file(&self) -> PathBuf {
        self.config().dir.join("postgres.log")
    }

    /// The last FATAL or PANIC in the log, and what it adds to it.
    ///
    /// # Errors
    /// `File`.
    pub async fn last_words(&self) -> Result<Option<String>, Error> {
        let path = self.log_file();
        files::blocking(move || {
            let failed = |doing| Error::file(doing, &path);
            let mut file = File::open(&path).map_err(failed("open"))?;
            let length = file.metadata().map_err(failed("inspect"))?.len();
            let start = length.saturating_sub(TAIL_BYTES);
            file.seek(SeekFrom::Start(start)).map_err(failed("read"))?;
            let mut tail = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut tail).map_err(failed("read"))?;
            Ok(last_words(&String::from_utf8_lossy(&tail)))
        })
        .await
    }
}

fn last_words(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let after = |line: &str, marks: &[&str]| {
        marks.iter().find_map(|mark| Some(line.split_once(mark)?.1.to_owned()))
    };
    let at = lines.iter().rposition(|line| after(line, &["FATAL:  ", "PANIC:  "]).is_some())?;
    let mut words = after(lines[at], &["FATAL:  ", "PANIC:  "])?;
    // A bad file is named line by line before it ends the start.
    if words.contains("contains errors") {
        let marks = ["LOG:  unrecognized", "LOG:  invalid", "LOG:  parameter", "LOG:  syntax"];
        let named = lines[..at].iter().rev().take(8).rev();
        let named = named.filter(|line| marks.iter().any(|mark| line.contains(mark)));
        let named: Vec<String> = named.filter_map(|line| after(line, &["LOG:  "])).collect();
        if !named.is_empty() {
            words = format!("{}; {words}", named.join("; "));
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complaint_is_found_and_what_led_to_it() {
        assert_eq!(last_words("1 [7] LOG:  listening\n"), None);
        let log = "1 [7] FATAL:  old\n2 [8] LOG:  unrecognized configuration parameter \"x\"\n\
                   2 [8] FATAL:  configuration file \"/p\" contains errors\n3 [9] LOG:  later\n";
        assert_eq!(
            last_words(log).as_deref(),
            Some(
                "unrecognized configuration parameter \"x\"; configuration file \"/p\" contains \
                 errors"
            )
        );
    }
}
