//! Talks to the file in a node's folder that holds the configuration as it was last agreed and
//! applied there: what the node starts from, whatever the file on its command line says.
//! In and out: a version and a text. It appears complete and durable, or not at all (H36).
//! Not here: what was agreed since (`live.rs`), the first configuration (`founding.rs`).
//! Tested by: below.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tandem_core::ids::ConfigVersion;

const NAME: &str = "agreed.toml";
const BEFORE: &str = "# configuration ";
const AFTER: &str = ", as agreed. Written by Tandem; change it with: tandem config apply";

/// A configuration as it was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub version: ConfigVersion,
    pub text: String,
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// What the folder has; none before anything was agreed, or where the file is not ours.
pub(super) fn load(dir: &Path) -> io::Result<Option<Kept>> {
    let text = match fs::read_to_string(path(dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kept = text.split_once('\n').and_then(|(first, rest)| {
        let version = first.strip_prefix(BEFORE)?.strip_suffix(AFTER)?.parse().ok()?;
        Some(Kept { version: ConfigVersion(version), text: rest.to_owned() })
    });
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "not written by Tandem; remove it");
    kept.map(Some).ok_or_else(foreign)
}

/// Keeps another one.
pub(super) fn store(dir: &Path, kept: &Kept) -> io::Result<()> {
    let temporary = dir.join("agreed.toml.new");
    let mut file = File::create(&temporary)?;
    write!(file, "{BEFORE}{}{AFTER}\n{}", kept.version, kept.text)?;
    file.sync_all()?;
    fs::rename(&temporary, path(dir))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        for (version, text) in [(1, "cluster = \"shop\"\n"), (2, "# mine\n\ncluster = \"shop\"")] {
            let kept = Kept { version: ConfigVersion(version), text: text.into() };
            store(dir.path(), &kept).unwrap();
            assert_eq!(load(dir.path()).unwrap(), Some(kept));
        }
        fs::write(path(dir.path()), "cluster = \"shop\"\n").unwrap();
        assert!(load(dir.path()).is_err());
    }
}
