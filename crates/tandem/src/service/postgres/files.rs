//! Talks to the file system: replaced files are whole or absent, also after a crash.
//! Not here: what is in them (`config`, `state_file`).

use super::{Error, RunAs};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// Runs file work where a disk that hangs blocks no task of the node (H28).
pub(super) async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    F: FnOnce() -> Result<T, Error> + Send + 'static,
    T: Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Interrupted))
}

/// Replaces a file of mode 0600 in one step. Without fsync: for what is written again before every
/// start.
pub(super) fn replace(path: &Path, text: &str, owner: Option<RunAs>) -> Result<(), Error> {
    let (temporary, _file) = write_beside(path, text, owner)?;
    fs::rename(&temporary, path).map_err(Error::file("replace", path))
}

/// As `replace`, and it survives a power cut.
pub(super) fn replace_durably(path: &Path, text: &str, owner: Option<RunAs>) -> Result<(), Error> {
    let (temporary, file) = write_beside(path, text, owner)?;
    file.sync_all().map_err(Error::file("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::file("replace", path))?;
    sync_parent(path)
}

fn write_beside(path: &Path, text: &str, owner: Option<RunAs>) -> Result<(PathBuf, File), Error> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(Error::file("create", &temporary))?;
    file.write_all(text.as_bytes()).map_err(Error::file("write", &temporary))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(Error::file("protect", &temporary))?;
    own(&temporary, owner)?;
    Ok((temporary, file))
}

/// Makes the last change of names in a file's folder durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(Error::file("sync", parent))
}

/// Makes all of PGDATA durable, in one go for each file system: a copy is thousands of files, and
/// an fsync of each took most of its time.
pub(super) fn sync_data(data: &Path) -> Result<(), Error> {
    let spaces = data.join("pg_tblspc");
    let mut places = vec![data.to_owned(), data.join("pg_wal")];
    for entry in fs::read_dir(&spaces).map_err(Error::file("list", &spaces))? {
        places.push(entry.map_err(Error::file("list", &spaces))?.path());
    }
    for path in places {
        let dir = File::open(&path).map_err(Error::file("open", &path))?;
        rustix::fs::syncfs(&dir).map_err(|errno| Error::file("sync", &path)(errno.into()))?;
    }
    Ok(())
}

/// Hands a file over to the user that PostgreSQL runs as.
pub(super) fn own(path: &Path, owner: Option<RunAs>) -> Result<(), Error> {
    match owner {
        Some(RunAs { uid, gid }) => {
            chown(path, Some(uid), Some(gid)).map_err(Error::file("change the owner of", path))
        }
        None => Ok(()),
    }
}

/// A folder of mode 0700 that belongs to the user that PostgreSQL runs as.
pub(super) fn private_dir(path: &Path, owner: Option<RunAs>) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::file("create", path))?;
    own(path, owner)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(Error::file("protect", path))
}

/// A file's text; none where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        // A stray byte in a user's comment must not keep the instance from starting.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Empties a folder and keeps it: it may be a mount point. Links are removed, not followed.
pub(super) fn empty_dir(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("list", path)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::file("list", path))?;
        let (kind, path) = (entry.file_type(), entry.path());
        let removed = match kind.map_err(Error::file("inspect", &path))?.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.map_err(Error::file("remove", &path))?;
    }
    Ok(())
}

/// Whether a folder has no entries but those of a mount point.
pub(super) fn is_empty(path: &Path) -> Result<bool, Error> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(entries.flatten().all(|entry| entry.file_name() == "lost+found")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::file("list", path)(error)),
    }
}
