//! Talks to the file system and to `postgres --version`: finds PostgreSQL's programs.
//! In: a configured folder, or none. Out: `Binaries`.
//! Tested by: below.

use super::Error;
use std::path::{Path, PathBuf};
use tokio::process::Command;

const VERSIONS: std::ops::RangeInclusive<u32> = 15..=18;

/// PostgreSQL's programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// Looks in `configured`, or else on PATH and where packages put them, newest first.
    ///
    /// # Errors
    /// `NoBinaries`, or `Version` for one that is not supported.
    pub async fn find(configured: Option<&Path>) -> Result<Self, Error> {
        if let Some(dir) = configured {
            return Self::open(dir).await;
        }
        for dir in Self::folders() {
            if let Ok(found) = Self::open(&dir).await {
                return Ok(found);
            }
        }
        let looked =
            candidates().iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        Err(Error::NoBinaries { looked })
    }

    /// Folders with a server's programs, in the order in which `find` tries them.
    pub fn folders() -> impl Iterator<Item = PathBuf> {
        let has = |dir: &PathBuf, tool| dir.join(tool).is_file();
        candidates().into_iter().filter(move |dir| has(dir, "postgres") && has(dir, "pg_rewind"))
    }

    /// The programs in `dir`.
    ///
    /// # Errors
    /// As `find`.
    pub async fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("postgres");
        let no_binaries = || Error::NoBinaries { looked: dir.display().to_string() };
        if ["initdb", "pg_controldata", "pg_basebackup", "pg_rewind", "pg_waldump"]
            .iter()
            .any(|tool| !dir.join(tool).is_file())
        {
            return Err(no_binaries());
        }
        let output = Command::new(&path)
            .arg("--version")
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|_| no_binaries())?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match major(&said) {
            Some(major) if VERSIONS.contains(&major) => Ok(Self { dir: dir.to_owned(), major }),
            _ => Err(Error::Version { path, said }),
        }
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        Self { dir: "/nowhere".into(), major: 15 }
    }

    /// The major version.
    pub const fn major(&self) -> u32 {
        self.major
    }

    /// The path of a program.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        std::env::var_os("TANDEM_BIN_DIR").map(Into::into).into_iter().collect();
    if let Some(path) = std::env::var_os("PATH") {
        places.extend(std::env::split_paths(&path));
    }
    for version in VERSIONS.rev() {
        places.push(format!("/usr/lib/postgresql/{version}/bin").into());
        places.push(format!("/usr/pgsql-{version}/bin").into());
        places.push(format!("/usr/local/pgsql-{version}/bin").into());
    }
    places.push("/usr/local/pgsql/bin".into());
    places
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, or `18beta1`, to its first number.
fn major(said: &str) -> Option<u32> {
    let version = said.strip_prefix("postgres (PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("mysqld 8"), None);
    }

    #[tokio::test]
    async fn a_folder_without_programs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Binaries::open(dir.path()).await, Err(Error::NoBinaries { .. })));
    }
}
