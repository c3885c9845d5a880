//! Talks to the server's log after its end: whether it ended because its disk lost a write.
//! In: `postgres.log`, from where it was last judged. Out: the line that says so, kept durably.
//! Keeps: H26 PostgreSQL ends where an fsync fails, since the kernel may have thrown away what was
//! to be written; recovery from those files would find less than was acknowledged, so nothing is
//! started from them before a human looked. H27 a full disk is none of that.
//! Not here: what the mark keeps from being done (`config`, `copy`), who lifts it
//! (`driver/instance/wishes.rs`).
//! Tested by: below; `tests/postgres_daemon/suspect.rs`, with a server whose fsync fails.

use super::{Error, Postgres, StateFile, files};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// So much of the end is read: after a panic each session says that it was ended, too.
const TAIL: u64 = 1 << 20;

/// How PostgreSQL 15 to 18 begin what they say of a write that may be lost, always as a panic
/// (`data_sync_elevel`, `XLogWrite`, `issue_xlog_fsync`, `XLogWalRcvWrite`).
const LOST: &[&str] = &[
    "could not fsync ",
    "could not fdatasync ",
    "could not flush dirty data",
    "could not synchronize file system",
    "could not write to log file",
    "could not write to WAL segment",
    "could not write file ",
];

/// What the kernel calls a full disk: nothing that was written is lost by it.
const FULL: &[&str] = &["No space left on device", "Disk quota exceeded"];

/// The line of a log that says that a write may be lost. The messages are in English: `lc_messages`
/// is ours. What clients choose (statements, names) comes behind another level, on a line that
/// begins with a tab, or, where the owner's `log_line_prefix` shows it, before a second level.
pub(super) fn lost_write(log: &str) -> Option<&str> {
    let mut panics = false;
    for line in log.lines().filter(|line| !line.starts_with('\t')) {
        let level = level(line);
        let counts = match level {
            Some(("PANIC", _)) => true,
            // Of a panic about a transaction's status, the detail names the file.
            Some(("DETAIL", _)) => panics,
            Some(_) | None => false,
        };
        let message = level.map_or("", |(_, message)| message);
        let is_lost = LOST.iter().any(|lost| begins(message, lost));
        if counts && is_lost && !FULL.iter().any(|full| message.contains(full)) {
            return Some(message.trim_end());
        }
        panics = matches!(level, Some(("PANIC", _)));
    }
    None
}

/// Before each message, with two blanks behind it (`error_severity`, `send_message_to_server_log`).
const LEVELS: [&str; 14] = [
    "DEBUG",
    "LOG",
    "INFO",
    "NOTICE",
    "WARNING",
    "ERROR",
    "FATAL",
    "PANIC",
    "DETAIL",
    "HINT",
    "QUERY",
    "CONTEXT",
    "STATEMENT",
    "BACKTRACE",
];

/// The level of a line and its message; none where it has several, or none at all.
fn level(line: &str) -> Option<(&'static str, &str)> {
    let mut found = None;
    for (at, _) in line.match_indices(":  ") {
        let Some(level) = LEVELS.into_iter().find(|level| line[..at].ends_with(level)) else {
            continue;
        };
        if found.is_some() {
            return None;
        }
        found = Some((level, &line[at + 3..]));
    }
    found
}

/// A detail begins with a capital.
fn begins(message: &str, with: &str) -> bool {
    message.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with))
}

impl Postgres {
    /// What the server said last, if that makes its disk suspect; durable before it is returned.
    ///
    /// # Errors
    /// Those of the state file, `File`.
    pub async fn judge_end(&self) -> Result<Option<String>, Error> {
        let state = self.load_state().await?;
        if state.suspect.is_some() {
            return Ok(state.suspect);
        }
        let path = self.log_file();
        let found = files::blocking(move || {
            let Some((text, end)) = tail(&path, state.log_judged)? else { return Ok(None) };
            Ok(lost_write(&text).map(|line| (line.to_owned(), end)))
        })
        .await?;
        let Some((line, end)) = found else { return Ok(None) };
        let reason = line.clone();
        let mark = move |state: &mut StateFile| {
            state.suspect = Some(line);
            state.log_judged = end;
        };
        if let Err(error) = self.change_state(mark).await {
            // The log still says it, to the next daemon as well.
            tracing::error!(%error, "a suspect disk does not keep that it is suspect");
        }
        Ok(Some(reason))
    }

    /// A human looked at the disk: what was said before counts no more.
    ///
    /// # Errors
    /// Those of the state file.
    pub async fn trust_disk(&self) -> Result<(), Error> {
        // Also where the mark itself could not be kept, and only the log says it.
        let said = length(&self.log_file());
        let trust = move |state: &mut StateFile| {
            state.suspect = None;
            state.log_judged = said;
        };
        self.change_state(trust).await.map(|_| ())
    }
}

/// How much there is of a log; nothing where there is none.
pub(super) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

/// What a log says from `from` on, the end of it at most, and where it ends.
fn tail(path: &Path, from: u64) -> Result<Option<(String, u64)>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let end = file.metadata().map_err(Error::file("read", path))?.len();
    // A log that was cut off since is judged from its beginning.
    let from = if from > end { 0 } else { from }.max(end.saturating_sub(TAIL));
    file.seek(SeekFrom::Start(from)).map_err(Error::file("read", path))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-01-02 03:04:05.678 UTC [42]";

    #[test]
    fn h26_every_way_to_lose_a_write_is_recognised() {
        for message in [
            "could not fsync file \"pg_wal/000000010000000000000001\": Input/output error",
            "could not fdatasync file \"000000010000000000000001\": Input/output error",
            "could not fsync write-through file \"000000010000000000000001\": Input/output error",
            "could not fsync file \"base/5/1259\": Input/output error",
            "could not flush dirty data: Input/output error",
            "could not write to log file \"000000010000000000000001\" at offset 8192, length 8192: \
             Input/output error",
            "could not write to WAL segment 000000010000000000000001 at offset 0, length 8192: \
             Read-only file system",
            "could not write file \"global/pg_control\": Input/output error",
        ] {
            let log = format!(
                "{AT} LOG:  starting PostgreSQL 15.1\n{AT} app@app PANIC:  {message}\n\
                 {AT} LOG:  server process (PID 9) was terminated by signal 6: Aborted\n"
            );
            assert_eq!(lost_write(&log), Some(message));
        }
        let log = format!(
            "{AT} PANIC:  could not access status of transaction 7\n\
             {AT} DETAIL:  Could not fsync file \"pg_xact/0000\": Input/output error.\n"
        );
        let found = lost_write(&log);
        assert_eq!(found, Some("Could not fsync file \"pg_xact/0000\": Input/output error."));
    }

    #[test]
    fn h26_other_ends_make_no_disk_suspect() {
        for line in [
            "PANIC:  could not write to log file \"000000010000000000000001\" at offset 0, length \
             8192: No space left on device",
            "PANIC:  could not locate a valid checkpoint record",
            "ERROR:  could not fsync file \"base/5/1259\": Input/output error",
            "LOG:  could not fsync file \"base/5/1259\": Input/output error",
            "DETAIL:  Could not fsync file \"pg_xact/0000\": Input/output error.",
            "ERROR:  relation \"PANIC:  could not fsync \" does not exist",
            "STATEMENT:  SELECT 'PANIC:  could not fsync x' FROM nosuch",
            "STATEMENT:  SELECT\n\t'[9] PANIC:  could not fsync x' FROM nosuch",
            "PANIC:  could not fsync x@app FATAL:  role does not exist",
            "PANIC:  could not locate a valid checkpoint record\n\tDETAIL:  could not fsync x",
            "LOG:  received fast shutdown request",
        ] {
            assert_eq!(lost_write(&format!("{AT} {line}\n")), None, "{line}");
        }
    }

    #[test]
    fn what_was_judged_is_not_read_again_and_a_shorter_log_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("postgres.log");
        assert_eq!(tail(&path, 5).unwrap(), None);
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(tail(&path, 4).unwrap(), Some(("two\n".to_owned(), 8)));
        assert_eq!(tail(&path, 8).unwrap(), Some((String::new(), 8)));
        assert_eq!(tail(&path, 9).unwrap(), Some(("one\ntwo\n".to_owned(), 8)));
        let long = "x".repeat(TAIL as usize + 3);
        std::fs::write(&path, &long).unwrap();
        let (text, end) = tail(&path, 0).unwrap().unwrap();
        assert_eq!((text.len() as u64, end), (TAIL, TAIL + 3));
    }
}
