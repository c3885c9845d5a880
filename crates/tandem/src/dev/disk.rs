//! Talks to the kernel's mounts: gives a node a small disk of its own, and fills it.
//! In: a folder. Out: a mount that is gone when the cluster is. Handles the stage for H27.
//! Tested by: below, where mounting is allowed.

use super::Error;
use super::folders;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that fills a disk.
const FILLER: &str = "filler";

/// A small disk in memory.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, Error> {
        let failed = |because: String| Error::Mount { path: path.into(), because };
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={bytes},mode=0755"))
            .arg("tandem-dev")
            .arg(path)
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_string()));
        }
        let disk = Self { path: path.into() };
        folders::own_by_postgres(path)?;
        Ok(disk)
    }

    /// Whether this process may mount at all.
    pub fn allowed() -> Result<(), Error> {
        let root = folders::root(None)?;
        let result = Self::mount(&root.path, 65536).map(drop);
        let _ = fs::remove_dir(&root.path);
        result
    }
}

impl Drop for Disk {
    /// Lazily: what still holds a file keeps it until its end, and nothing else sees the disk.
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}

/// Writes until nothing fits any more; bytes written.
pub fn fill(folder: &Path) -> Result<u64, Error> {
    let path = folder.join(FILLER);
    let io = |source| Error::Folder { path: path.clone(), source };
    let mut file = fs::File::create(&path).map_err(io)?;
    let mut written = 0;
    for size in [1 << 20, 4096, 1] {
        let block = vec![0_u8; size];
        loop {
            match file.write(&block) {
                Ok(0) => break,
                Ok(count) => written += count as u64,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(io(error)),
            }
        }
    }
    Ok(written)
}

/// Makes room again.
pub fn free(folder: &Path) -> Result<(), Error> {
    let path = folder.join(FILLER);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Folder { path, source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_fills_up_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(disk) = Disk::mount(folder.path(), 1 << 20) else {
            return; // No right to mount here: the drill reports `skipped` then.
        };
        assert!(fill(folder.path()).unwrap() <= 1 << 20);
        assert!(fs::write(folder.path().join("x"), "more").is_err(), "full");
        free(folder.path()).unwrap();
        free(folder.path()).unwrap();
        fs::write(folder.path().join("x"), "more").unwrap();
        drop(disk);
        assert!(!folder.path().join("x").exists(), "unmounted");
    }
}
