//! Talks to the file system: makes the folders of a dev cluster so that PostgreSQL can use them.
//! PostgreSQL refuses to run as root, so where we are root it runs as user `postgres`, which must
//! be able to enter every folder on the way. Folders of others are never changed: an error says
//! how.
//! Tested by: below.

use super::Error;
use super::layout::{Layout, SERVICE};
use nix::unistd::{User, chown, geteuid};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The longest path of a Unix socket, without its final zero.
const SOCKET_BYTES_MAX: usize = 107;

/// The folder of a cluster.
#[derive(Debug)]
pub struct Root {
    /// Where.
    pub path: PathBuf,
    /// Made here, so it goes when the cluster goes.
    pub made: bool,
}

/// Makes the folder of a cluster, or checks the one that was given.
pub fn root(given: Option<&Path>) -> Result<Root, Error> {
    let path = given.map_or_else(temporary, Path::to_path_buf);
    let bytes_max = SOCKET_BYTES_MAX - format!("/a/services/{SERVICE}/run/.s.PGSQL.00000").len();
    if path.as_os_str().as_bytes().len() > bytes_max {
        return Err(Error::FolderTooLong { path, bytes_max });
    }
    let made = !path.exists();
    make(&path)?;
    let path = fs::canonicalize(&path).map_err(|source| Error::Folder { path, source })?;
    let root = Root { path, made };
    match usable(&root.path) {
        Ok(()) => Ok(root),
        Err(error) => {
            if root.made {
                let _ = fs::remove_dir(&root.path);
            }
            Err(error)
        }
    }
}

fn temporary() -> PathBuf {
    let name = format!("tandem-dev-{:08x}", rand::random::<u32>());
    std::env::temp_dir().join(name)
}

fn usable(root: &Path) -> Result<(), Error> {
    let mut items =
        fs::read_dir(root).map_err(|source| Error::Folder { path: root.into(), source })?;
    if items.next().is_some() {
        return Err(Error::FolderInUse { path: root.into() });
    }
    if geteuid().is_root() { enterable(root) } else { Ok(()) }
}

fn enterable(path: &Path) -> Result<(), Error> {
    for ancestor in path.ancestors() {
        let metadata = fs::metadata(ancestor)
            .map_err(|source| Error::Folder { path: ancestor.into(), source })?;
        if metadata.permissions().mode() & 0o001 == 0 {
            return Err(Error::FolderHidden { path: path.into(), ancestor: ancestor.into() });
        }
    }
    Ok(())
}

/// Makes a folder that everybody may enter, and those on the way to it.
pub fn make(path: &Path) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    // Set again after making: a strict umask would hide the folder from user postgres.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|source| Error::Folder { path: path.into(), source })
}

/// Makes the folders of every node.
pub fn nodes(layout: &Layout) -> Result<(), Error> {
    for place in &layout.nodes {
        make(&place.dir)?;
        let services = place.dir.join("services");
        make(&services)?;
        if layout.runs_postgres() {
            own_by_postgres(&services)?;
        }
    }
    Ok(())
}

/// Gives a folder to the user that PostgreSQL runs as.
pub fn own_by_postgres(path: &Path) -> Result<(), Error> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let user = User::from_name("postgres").ok().flatten().ok_or(Error::NoPostgresUser)?;
    chown(path, Some(user.uid), Some(user.gid))
        .map_err(|errno| Error::Folder { path: path.into(), source: errno.into() })
}

/// Writes a file.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Folder { path: path.into(), source })
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Error::Folder { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!root(Some(folder.path())).unwrap().made);
        fs::write(folder.path().join("mine"), "x").unwrap();
        assert!(matches!(root(Some(folder.path())), Err(Error::FolderInUse { .. })));
        assert!(folder.path().join("mine").exists());
    }

    #[test]
    fn a_folder_that_postgres_cannot_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let inner = folder.path().join("x");
        let result = root(Some(&inner));
        if geteuid().is_root() {
            assert!(matches!(result, Err(Error::FolderHidden { .. })));
            assert!(!inner.exists(), "what was made is removed again");
        } else {
            assert!(result.unwrap().made);
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let long = Path::new("/tmp").join("x".repeat(100));
        assert!(matches!(root(Some(&long)), Err(Error::FolderTooLong { .. })));
    }
}
