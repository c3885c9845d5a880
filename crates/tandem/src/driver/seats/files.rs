//! Talks to the files of a seat: what its copy owns, for the copy; the floor, for the next daemon.
//! In / Out: `OwnPartitions`, `Floor`. Each is replaced whole.
//! Keeps: INV-13 the floor is durable before the call returns; H36.
//! A file for the copy is named after the boot and the sitting that the copy was started in, which
//! stays the same while it goes on in later terms. What a copy of a later sitting reads is never
//! what one of an earlier sitting was told; and after the machine lost its power nobody reads what
//! a disk without it went back to.
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

/// Where a copy that is started in a sitting, `{sitting}`, finds what it owns.
///
/// # Errors
/// The kernel does not tell which boot this is.
pub fn path_in(dir: &Path) -> Result<PathBuf, Error> {
    Ok(folder(dir).join(format!("{}.{{sitting}}.json", boot()?)))
}

/// Writes it for the copies of that sitting; whatever is there of others goes.
pub(super) fn write(dir: &Path, own: &OwnPartitions, sitting: Term) -> Result<(), Error> {
    let folder = folder(dir);
    let text = serde_json::to_string(own).map_err(std::io::Error::from).map_err(at(&folder))?;
    let path = folder.join(format!("{}.{sitting}.json", boot()?));
    for other in told(&folder)?.into_iter().filter(|other| *other != path) {
        fs::remove_file(&other).map_err(at(&other))?;
    }
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(at(&temporary))?;
    writeln!(file, "{text}").map_err(at(&temporary))?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)).map_err(at(&temporary))?;
    fs::rename(&temporary, &path).map_err(at(&path))
}

fn told(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let found = fs::read_dir(folder).map_err(at(folder))?;
    let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "json"));
    Ok(paths)
}

/// The greatest version that a copy may have read: one that it is told later must be greater,
/// whatever became of the clock meanwhile. One that cannot be read is one that no copy goes by.
pub(super) fn newest(dir: &Path) -> Result<u64, Error> {
    let version = |path: PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        serde_json::from_str::<OwnPartitions>(&text).ok().map(|told| told.version)
    };
    Ok(told(&folder(dir))?.into_iter().filter_map(version).max().unwrap_or(0))
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

    fn own(term: u64, version: u64) -> OwnPartitions {
        let it = OwnPartition {
            id: PartitionId(4),
            epoch: Epoch(2),
            state: Holds::Owned,
            deadline_ms: None,
        };
        let (service, node, partitions) = ("work".into(), "a".into(), vec![it]);
        let (term, before) = (Term(term), Epoch(1));
        OwnPartitions { service, node, term, version, lease_ms: None, before, partitions }
    }

    #[test]
    fn inv_13_files_of_other_sittings_and_boots_go() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        let another = folder(dir.path()).join("another-boot.5.json");
        fs::write(another, "{}").unwrap();
        let put = |term, since| write(dir.path(), &own(term, 9), Term(since)).unwrap();
        let name = |term: u64| format!("{}.{term}.json", boot().unwrap());
        put(5, 5);
        assert_eq!(names(dir.path()), [name(5)]);
        // It goes on in term 6, and may never have been told anything in the one it began with.
        put(6, 5);
        assert_eq!(names(dir.path()), [name(5)], "where the copy looks");
        let told = path_in(dir.path()).unwrap().display().to_string().replace("{sitting}", "5");
        let text = fs::read_to_string(told).unwrap();
        assert!(text.contains(r#""term":6"#), "{text}");
        assert!(text.contains(r#"{"id":4,"epoch":2,"state":"owned"}"#), "{text}");
        put(8, 8);
        assert_eq!(names(dir.path()), [name(8)]);
    }

    #[test]
    fn what_is_told_later_has_a_greater_version_than_any_file() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        assert_eq!(newest(dir.path()).unwrap(), 0);
        write(dir.path(), &own(5, 70), Term(5)).unwrap();
        fs::write(folder(dir.path()).join("damaged.json"), "{").unwrap();
        assert_eq!(newest(dir.path()).unwrap(), 70);
        // An older release says less, and a newer one may say more.
        for (version, more) in [(80, ""), (90, r#""before":4,"more":[],"#)] {
            let known = r#""service":"work","node":"a","term":5,"partitions":[]"#;
            let text = format!(r#"{{"version":{version},{more}{known}}}"#);
            fs::write(folder(dir.path()).join("another.json"), text).unwrap();
            assert_eq!(newest(dir.path()).unwrap(), version);
        }
    }
}
