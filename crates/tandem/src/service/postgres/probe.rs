//! Talks to the disk and to the postmaster, to tell a sick instance from a dead one.
//! In: a deadline. Out: nothing, or what is wrong: each told apart.
//! Keeps: H27 a full disk is its own case; H28 a disk that hangs holds up one thread of its own,
//! never two, and no task; H29 a new connection tells a hung postmaster from a busy one.
//! Tested by: `tests/postgres_adapter.rs`.

use super::sql::within;
use super::{Error, Postgres, files};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
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

    async fn run(self: &Arc<Self>, data: PathBuf, deadline: Duration) -> Result<(), Error> {
        let path = data.clone();
        let stuck = |since| Error::DiskStuck { path, since };
        if let Err(since) = self.begin() {
            return Err(stuck(since));
        }
        let disk = Arc::clone(self);
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
        self.disk.run(self.data_dir(), deadline).await
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
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::fs::{self, File};
    use std::os::unix::fs::OpenOptionsExt as _;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A probe file that whoever opens it to write waits for, as for a disk that hangs.
    struct Hanging(PathBuf);

    impl Hanging {
        fn new(data: &Path) -> Self {
            let path = data.join(PROBE_FILE);
            fs::create_dir(data.join("base")).unwrap();
            mkfifo(&path, Mode::S_IRWXU).unwrap();
            Self(path)
        }

        /// Nobody waits any more, as long as this is kept.
        fn wake(&self) -> std::io::Result<File> {
            let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
            let reader = OpenOptions::new().read(true).custom_flags(no_wait).open(&self.0)?;
            fs::remove_file(&self.0)?;
            Ok(reader)
        }
    }

    impl Drop for Hanging {
        /// A test that fails must not wait for its own thread.
        fn drop(&mut self) {
            let _ = self.wake();
        }
    }

    fn age(told: Result<(), Error>) -> Duration {
        match told {
            Err(Error::DiskStuck { since, .. }) => since,
            other => panic!("not stuck: {other:?}"),
        }
    }

    /// H28: it is told at the deadline, later ones tell since when without a thread of their own,
    /// and once it goes on, so do they.
    #[tokio::test]
    async fn h28_a_disk_that_hangs_is_told_with_its_age_and_holds_one_thread() {
        let dir = tempfile::tempdir().unwrap();
        let hanging = Hanging::new(dir.path());
        let disk = Arc::new(DiskProbe::default());
        let deadline = Duration::from_millis(30);
        let probe = async || {
            let told = disk.run(dir.path().to_owned(), deadline);
            tokio::time::timeout(LIMIT, told).await.unwrap()
        };
        assert_eq!(age(probe().await), deadline);
        // One that waited as well would tell its own deadline.
        let second = age(probe().await);
        assert!(second > deadline, "{second:?}");
        assert!(age(probe().await) > second);
        let _reader = hanging.wake().unwrap();
        let until = Instant::now() + LIMIT;
        loop {
            match probe().await {
                Ok(()) => break,
                Err(Error::DiskStuck { .. }) if Instant::now() < until => {
                    tokio::task::yield_now().await;
                }
                other => panic!("not good again: {other:?}"),
            }
        }
        assert!(!dir.path().join(PROBE_FILE).exists());
    }
}
