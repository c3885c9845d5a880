//! Talks to the kernel's table of mounts: what a file system does with an fsync, as far as it says.
//! In: a folder. Out: a `Finding` where an acknowledged write may not survive a power cut.
//! Keeps: H14 only what is known is said. A write-back cache that obeys a flush is usual and safe;
//! whether a disk or a hypervisor obeys, nobody can see from here (ADR 12).
//! Tested by: below.

use crate::api::explain::{Finding, Severity};
use std::path::Path;

/// What is wrong with where a folder is kept, if anything is known.
pub(super) fn check(subject: &str, folder: &Path) -> Option<Finding> {
    let table = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let (what, because, advice) = judge(&table, &folder.canonicalize().ok()?)?;
    Some(Finding::new(Severity::Warning, subject, what).advice(because, advice))
}

/// Options with which a file system sends no flush to the disk.
const NO_FLUSH: &[&str] = &["nobarrier", "barrier=0", "barrier=none"];

fn judge(table: &str, folder: &Path) -> Option<(String, &'static str, &'static str)> {
    let mounts = table.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
        let place = unescaped(place);
        folder.starts_with(&place).then_some((place.len(), place, kind, options))
    });
    // The longest that holds it; of several on one place the last one is on top.
    let (_, place, kind, options) = mounts.max_by_key(|(length, ..)| *length)?;
    if matches!(kind, "tmpfs" | "ramfs") {
        let what = format!("{place} is in memory ({kind})");
        return Some((what, "nothing of it survives a restart", "put it on a disk"));
    }
    let option = options.split(',').find(|option| NO_FLUSH.contains(option))?;
    let because = "an fsync then ends before the disk has flushed its cache: a power cut may lose \
                   commits that this node confirmed";
    let advice = "mount it without that option";
    Some((format!("{place} is mounted with {option}"), because, advice))
}

/// Blanks and the like are written in octal there.
fn unescaped(place: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(place.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "/dev/sda1 / ext4 rw,relatime,errors=remount-ro 0 0\n\
        tmpfs /run tmpfs rw,nosuid,size=1g 0 0\n\
        /dev/sdb1 /srv/a\\040b xfs rw,nobarrier 0 0\n\
        /dev/sdc1 /data ext4 rw,barrier=0,data=ordered 0 0\n\
        /dev/sdd1 /data/good ext4 rw,barrier=1,data=writeback 0 0\n";

    #[test]
    fn h14_what_sends_no_flush_is_found_and_nothing_is_made_up() {
        let found = |path: &str| judge(TABLE, Path::new(path)).map(|(what, ..)| what);
        assert_eq!(found("/var/lib/tandem"), None);
        assert_eq!(found("/data/good/pg"), None, "its data is flushed by an fsync all the same");
        assert_eq!(found("/data/pg").as_deref(), Some("/data is mounted with barrier=0"));
        assert_eq!(found("/database"), None, "another folder");
        assert_eq!(found("/srv/a b/pg").as_deref(), Some("/srv/a b is mounted with nobarrier"));
        assert_eq!(found("/run/x").as_deref(), Some("/run is in memory (tmpfs)"));
    }
}
