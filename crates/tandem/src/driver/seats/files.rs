//! Talks to the files of a seat: what its copy owns, for the copy; the floor, for the next daemon.
//! In / Out: `OwnPartitions`, `Floor`. Each is replaced whole.
//! Keeps: INV-13 the floor is durable before the call returns; H36.
//! A file for the copy is named after the boot and the term that the copy was started for. What a
//! copy of a later sitting reads is never what one of an earlier sitting was told; and after the
//! machine lost its power nobody reads what a disk without it went back to.
//! Tested by: below.

use crate::api::partitions::OwnPartitions;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tandem_core::clustering::active_active::holder::Floor;
use tandem_core::ids::{ConfigVersion, Revision, Term};

const FLOOR: &str = "released";

/// A file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub struct Error {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl Error {
    pub(super) fn task(error: tokio::task::JoinError) -> Self {
        Self { path: PathBuf::new(), source: std::io::Error::other(error) }
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error { path: path.to_owned(), source }
}

/// The folder, which the copy's user may read.
pub(super) fn prepare(dir: &Path) -> Result<(), Error> {
    let folder = folder(dir);
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(at(&folder))
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("partitions")
}

/// Which boot of the machine this is.
fn boot() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(at(path))
}

/// Where a copy that is started for a term, `{term}`, finds what it owns.
///
/// # Errors
/// The kernel does not tell which boot this is.
pub fn path_in(dir: &Path) -> Result<PathBuf, Error> {
    Ok(folder(dir).join(format!("{}.{{term}}.json", boot()?)))
}

/// Writes it for the term, and for the earlier ones that a copy which goes on may have been
/// started for: they are in the folder.
pub(super) fn write(dir: &Path, own: &OwnPartitions, since: Term) -> Result<(), Error> {
    let (folder, boot) = (folder(dir), boot()?);
    let text = serde_json::to_string(own).map_err(std::io::Error::from).map_err(at(&folder))?;
    let newest = folder.join(format!("{boot}.{}.json", own.term));
    let found = fs::read_dir(&folder).map_err(at(&folder))?;
    let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "json") && *path != newest);
    paths.push(newest);
    for path in paths {
        if term_of(&path, &boot).is_none_or(|term| term < since.0) {
            fs::remove_file(&path).map_err(at(&path))?;
            continue;
        }
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary).map_err(at(&temporary))?;
        writeln!(file, "{text}").map_err(at(&temporary))?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644))
            .map_err(at(&temporary))?;
        fs::rename(&temporary, &path).map_err(at(&path))?;
    }
    Ok(())
}

/// For which term a file of this boot is; none: it is of another one.
fn term_of(path: &Path, boot: &str) -> Option<u64> {
    path.file_stem()?.to_str()?.strip_prefix(boot)?.strip_prefix('.')?.parse().ok()
}

/// What was stored last.
pub(super) fn load_floor(dir: &Path) -> Result<Floor, Error> {
    let path = dir.join(FLOOR);
    let strange = || std::io::Error::other("not one of Tandem's");
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text).ok_or_else(strange).map_err(at(&path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Floor::default()),
        Err(error) => Err(at(&path)(error)),
    }
}

fn parse(text: &str) -> Option<Floor> {
    let (table, revision) = text.trim().split_once(' ')?;
    let (table, revision) = (table.parse().ok()?, revision.parse().ok()?);
    Some(Floor { table: ConfigVersion(table), revision: Revision(revision) })
}

/// Makes it durable.
pub(super) fn store_floor(dir: &Path, floor: Floor) -> Result<(), Error> {
    let (path, temporary) = (dir.join(FLOOR), dir.join("released.new"));
    let failed = at(&path);
    let mut file = File::create(&temporary).map_err(&failed)?;
    writeln!(file, "{} {}", floor.table, floor.revision).map_err(&failed)?;
    file.sync_all().map_err(&failed)?;
    fs::rename(&temporary, &path).map_err(&failed)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(&failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::partitions::{Holds, OwnPartition};
    use tandem_core::ids::{Epoch, PartitionId};

    #[test]
    fn inv_13_the_floor_is_found_again_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_floor(dir.path()).unwrap(), Floor::default());
        let floor = Floor { table: ConfigVersion(3), revision: Revision(70) };
        store_floor(dir.path(), floor).unwrap();
        assert_eq!(load_floor(dir.path()).unwrap(), floor);
        fs::write(dir.path().join(FLOOR), "much\n").unwrap();
        assert!(load_floor(dir.path()).is_err());
    }

    fn names(dir: &Path) -> Vec<String> {
        let found = fs::read_dir(folder(dir)).unwrap();
        let mut names: Vec<_> =
            found.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn inv_13_files_of_earlier_sittings_and_boots_go() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        let another = folder(dir.path()).join("another-boot.5.json");
        fs::write(another, "{}").unwrap();
        let it = OwnPartition {
            id: PartitionId(4),
            epoch: Epoch(2),
            state: Holds::Owned,
            deadline_ms: None,
        };
        let put = |term, since| {
            let (service, node) = ("work".into(), "a".into());
            let partitions = vec![it];
            let term = Term(term);
            let own = OwnPartitions { service, node, term, version: 9, lease_ms: None, partitions };
            write(dir.path(), &own, Term(since)).unwrap();
        };
        let name = |term: u64| format!("{}.{term}.json", boot().unwrap());
        put(5, 5);
        assert_eq!(names(dir.path()), [name(5)]);
        put(6, 5);
        assert_eq!(names(dir.path()), [name(5), name(6)], "a copy of term 5 goes on in term 6");
        let told = path_in(dir.path()).unwrap().display().to_string().replace("{term}", "5");
        let text = fs::read_to_string(told).unwrap();
        assert!(text.contains(r#"{"id":4,"epoch":2,"state":"owned"}"#), "{text}");
        put(8, 8);
        assert_eq!(names(dir.path()), [name(8)]);
    }
}
