//! Talks to /proc: who else works on a data directory.
//! A copy that outlived its daemon would write into the next one; a postmaster would lose its files
//! under its feet. Both are found by their command line, so nothing has to be remembered.

use super::super::{Error, files};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const COPIES: &[&str] = &["initdb", "pg_basebackup", "pg_rewind"];
const END_WITHIN: Duration = Duration::from_secs(2);

/// Ends every program of an earlier copy into `data`, and waits for it.
pub(super) fn end_copies(data: &Path) -> Result<(), Error> {
    let until = Instant::now() + END_WITHIN;
    loop {
        let copies = copies(data)?;
        let Some(first) = copies.first().copied() else { return Ok(()) };
        if Instant::now() > until {
            return Err(Error::StillRunning { pid: first, path: data.to_owned() });
        }
        for pid in copies {
            tracing::warn!(pid, data = %data.display(), "ending a copy that outlived its daemon");
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The postmaster that runs on `data`, if any.
pub(super) fn postmaster(data: &Path) -> Result<Option<i32>, Error> {
    let text = files::read(&data.join("postmaster.pid"))?.unwrap_or_default();
    let pid: Option<i32> = text.lines().next().and_then(|line| line.trim().parse().ok());
    // The file outlives a crash, and its number may be somebody else's by now.
    Ok(pid.filter(|pid| arguments(*pid).is_some_and(|words| names(&words, data))))
}

fn copies(data: &Path) -> Result<Vec<i32>, Error> {
    let proc = Path::new("/proc");
    let entries = std::fs::read_dir(proc).map_err(Error::file("list", proc))?;
    let is_copy = |pid: &i32| {
        arguments(*pid).is_some_and(|words| {
            let program = words.first().map(|word| Path::new(OsStr::from_bytes(word)));
            let name = program.and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or("");
            let copies = COPIES.contains(&name)
                || (name == "postgres" && words.iter().any(|word| word == b"--single"));
            copies && names(&words, data)
        })
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_copy)
        .collect())
}

/// The command line, none once the process is gone or a zombie.
fn arguments(pid: i32) -> Option<Vec<Vec<u8>>> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<Vec<u8>> = line.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    (!line.is_empty()).then_some(words)
}

fn names(words: &[Vec<u8>], data: &Path) -> bool {
    let wanted = data.as_os_str().as_bytes();
    words
        .iter()
        .any(|word| word == wanted || word.strip_prefix(b"--target-pgdata=") == Some(wanted))
}
