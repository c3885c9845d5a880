//! Talks to the disk and to the postmaster, to tell a sick instance from a dead one.
//! In: a deadline. Out: nothing, or what is wrong: each told apart.
//! Keeps: H27 a full disk is its own case; H28 a disk that hangs holds up one thread of its own,
//! never two, and no task; H29 a new connection tells a hung postmaster from a busy one.
//! Tested by: `tests/postgres_adapter.rs`.

use super::sql::within;
use super::{Error, Postgres, files};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Left out by PostgreSQL's copying programs, as the ballast is (`ballast.rs`).
const PROBE_FILE: &str = "base/pgsql_tmp_tandem_probe";

/// At most one probe of the disk is under way; since when.
#[derive(Debug, Default)]
pub(super) struct DiskProbe(Mutex<Option<Instant>>);

impl DiskProbe {
    fn begin(&self) -> Result<(), Duration> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *since {
            Some(since) => Err(since.elapsed()),
            None => {
                *since = Some(Instant::now());
                Ok(())
            }
        }
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that PostgreSQL may still use.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

impl Postgres {
    /// Writes and syncs a small file beside the data.
    ///
    /// # Errors
    /// `DiskStuck` with its age if this or an earlier probe did not end; `DiskFull`; `File`.
    pub async fn probe_disk(&self, deadline: Duration) -> Result<(), Error> {
        let data = self.data_dir();
        let stuck = |since| Error::DiskStuck { path: self.data_dir(), since };
        self.disk.begin().map_err(stuck)?;
        let disk = Arc::clone(&self.disk);
        let probe = files::blocking(move || {
            let outcome = write_and_sync(&data);
            disk.end();
            outcome
        });
        match tokio::time::timeout(deadline, probe).await {
            Ok(outcome) => outcome,
            Err(_) => Err(stuck(deadline)),
        }
    }

    /// Room on the data's file system.
    ///
    /// # Errors
    /// `File`.
    pub async fn free_space(&self) -> Result<Space, Error> {
        let data = self.data_dir();
        files::blocking(move || {
            let stat = rustix::fs::statvfs(&data)
                .map_err(|errno| Error::file("inspect", &data)(errno.into()))?;
            Ok(Space {
                free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            })
        })
        .await
    }

    /// Opens a connection on the slots reserved for it, and asks for nothing: an old connection
    /// goes on answering while the postmaster hangs (H29).
    ///
    /// # Errors
    /// `Timeout` is hung; `NotRunning` is down; `Starting`, `ConnectionsUsedUp` are neither.
    pub async fn probe_new_connection(&self, deadline: Duration) -> Result<(), Error> {
        within("opening a connection", deadline, async {
            self.connect().await?.run("asking for nothing", "").await
        })
        .await
    }
}

fn write_and_sync(data: &Path) -> Result<(), Error> {
    let path = data.join(PROBE_FILE);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(Error::file("create", data))?;
    // A whole block: an empty file has room on a full disk.
    file.write_all(&[0x54; 4096]).map_err(Error::file("write", data))?;
    file.sync_all().map_err(Error::file("sync", data))?;
    drop(file);
    files::remove(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H28: a second probe does not pile up behind a first that hangs.
    #[test]
    fn h28_one_probe_at_a_time() {
        let probe = DiskProbe::default();
        assert!(probe.begin().is_ok());
        assert!(probe.begin().is_err());
        probe.end();
        assert!(probe.begin().is_ok());
    }
}
