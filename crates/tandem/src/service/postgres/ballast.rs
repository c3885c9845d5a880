//! Talks to a file that only takes up room beside the data, to be given up when the disk is full.
//! In: its size. Out: what there is of it.
//! States: missing → (room for several) whole → (disk full) released → (room for several) whole.
//! Keeps: H27 a shutdown checkpoint, a promise or a recovery can be written on a disk that is full.
//! A released one stays as an empty file: whoever comes next knows that the disk was full. A half
//! made one has another name.
//! Not here: what a full disk means (core), who looks (`driver/observer.rs`, `driver/upkeep.rs`).
//! Tested by: below, on a disk that is full.

use super::{Error, Postgres, RunAs, files};
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// pg_basebackup and pg_checksums leave out what begins like this, pg_rewind only below a folder
/// (`check_file_excluded`); the server removes none of it at its start (`RemovePgTempFiles`).
const BALLAST: &str = "base/pgsql_tmp_tandem_ballast";
const HALF_MADE: &str = "base/pgsql_tmp_tandem_ballast.new";

/// It is made where so many times its size are free: it must not be what fills the disk.
const ROOM_TIMES: u64 = 4;

/// Recovery needs a segment of the log, and some more.
const START_BYTES: u64 = 24 << 20;

/// What there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ballast {
    /// None is wanted.
    Unwanted,
    /// It is there.
    Whole,
    /// It was given up, and there is no room for a new one yet.
    Released,
    /// There never was room for it, or this file system cannot hold one.
    Missing,
}

impl Postgres {
    /// Makes it where there is room, and removes one that is wanted no more.
    ///
    /// # Errors
    /// `File`, `DiskFull`.
    pub async fn keep_ballast(&self) -> Result<Ballast, Error> {
        let (data, size, owner) = (self.data_dir(), self.config.ballast_bytes, self.config.run_as);
        files::blocking(move || keep(&data, size, owner)).await
    }

    /// Gives it up; whether there was one.
    ///
    /// # Errors
    /// `File`.
    pub async fn release_ballast(&self) -> Result<bool, Error> {
        let data = self.data_dir();
        files::blocking(move || release(&data)).await
    }

    /// Whether it was given up and not made again.
    pub async fn is_ballast_released(&self) -> bool {
        let data = self.data_dir();
        files::blocking(move || Ok(size_of(&data) == Some(0))).await.unwrap_or(false)
    }

    /// Before a start: where recovery would find no room, the ballast makes it.
    ///
    /// # Errors
    /// `File`.
    pub async fn make_room_to_start(&self) -> Result<bool, Error> {
        if self.free_space().await?.free_bytes >= START_BYTES {
            return Ok(false);
        }
        self.release_ballast().await
    }
}

fn size_of(data: &Path) -> Option<u64> {
    std::fs::metadata(data.join(BALLAST)).ok().map(|found| found.len())
}

fn keep(data: &Path, size: u64, owner: Option<RunAs>) -> Result<Ballast, Error> {
    let path = data.join(BALLAST);
    let there = size_of(data);
    if size == 0 {
        files::remove(&path)?;
        return Ok(Ballast::Unwanted);
    }
    // Nothing is put into a folder that a copy is about to fill.
    if there == Some(size) || !data.join("PG_VERSION").is_file() {
        return Ok(if there == Some(size) { Ballast::Whole } else { Ballast::Missing });
    }
    let stat =
        rustix::fs::statvfs(data).map_err(|errno| Error::file("inspect", data)(errno.into()))?;
    let lacking = if there == Some(0) { Ballast::Released } else { Ballast::Missing };
    if stat.f_bavail.saturating_mul(stat.f_frsize) < size.saturating_mul(ROOM_TIMES) {
        return Ok(lacking);
    }
    let half = data.join(HALF_MADE);
    match make(&half, size, owner) {
        Ok(true) => {}
        Ok(false) => {
            files::remove(&half)?;
            // Nothing to give up here: what is full is told by the probe alone.
            files::remove(&path)?;
            return Ok(Ballast::Missing);
        }
        Err(error) => {
            files::remove(&half)?;
            return Err(error);
        }
    }
    std::fs::rename(&half, &path).map_err(Error::file("rename", &path))?;
    files::sync_parent(&path)?;
    Ok(Ballast::Whole)
}

/// Really allocated, not sparse; false where the file system cannot.
fn make(path: &Path, size: u64, owner: Option<RunAs>) -> Result<bool, Error> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("create", path))?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(false),
        Err(errno) => return Err(Error::file("allocate", path)(errno.into())),
    }
    files::own(path, owner)?;
    file.sync_all().map_err(Error::file("sync", path))?;
    Ok(true)
}

fn release(data: &Path) -> Result<bool, Error> {
    // One that was being made holds room as well.
    files::remove(&data.join(HALF_MADE))?;
    if size_of(data).unwrap_or(0) == 0 {
        return Ok(false);
    }
    let path = data.join(BALLAST);
    let file: File =
        OpenOptions::new().write(true).open(&path).map_err(Error::file("open", &path))?;
    file.set_len(0).map_err(Error::file("cut", &path))?;
    file.sync_all().map_err(Error::file("sync", &path))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::disk::{Disk, fill, free};
    use std::time::{Duration, Instant};

    const SIZE: u64 = 1 << 20;

    #[test]
    fn h27_it_is_given_up_on_a_full_disk_and_made_again_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(_disk) = Disk::mount(dir.path(), 8 << 20) else {
            println!("SKIPPED: a disk that can be filled needs the right to mount");
            return;
        };
        let data = dir.path();
        let kept = || keep(data, SIZE, None).unwrap();
        assert_eq!(kept(), Ballast::Missing, "nothing in a folder without data");
        std::fs::create_dir(data.join("base")).unwrap();
        std::fs::write(data.join("PG_VERSION"), "15").unwrap();
        // A crash left one half made.
        std::fs::write(data.join(HALF_MADE), "x").unwrap();
        assert_eq!((kept(), kept()), (Ballast::Whole, Ballast::Whole));
        let made = std::fs::metadata(data.join(BALLAST)).unwrap();
        assert!(std::os::unix::fs::MetadataExt::blocks(&made) * 512 >= SIZE, "not sparse");

        fill(data).unwrap();
        assert!(std::fs::write(data.join("checkpoint"), [1; 8192]).is_err(), "full");
        assert!(release(data).unwrap());
        std::fs::write(data.join("checkpoint"), [1; 8192]).unwrap();
        assert!(!release(data).unwrap(), "once");
        assert_eq!(kept(), Ballast::Released, "also known to whoever comes next");

        free(data).unwrap();
        // The kernel may take a moment to count what was removed.
        let until = Instant::now() + Duration::from_secs(10);
        while kept() != Ballast::Whole {
            assert!(Instant::now() < until, "there is room again");
            std::thread::yield_now();
        }
        assert_eq!(keep(data, SIZE / 2, None).unwrap(), Ballast::Whole);
        assert_eq!(size_of(data), Some(SIZE / 2), "another size is another file");
        assert_eq!(keep(data, 0, None).unwrap(), Ballast::Unwanted);
        assert_eq!(size_of(data), None);
    }

    #[test]
    fn it_is_not_what_fills_a_small_disk() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(_disk) = Disk::mount(dir.path(), 3 << 20) else { return };
        std::fs::create_dir(dir.path().join("base")).unwrap();
        std::fs::write(dir.path().join("PG_VERSION"), "15").unwrap();
        assert_eq!(keep(dir.path(), SIZE, None).unwrap(), Ballast::Missing);
        assert_eq!(size_of(dir.path()), None);
    }
}
