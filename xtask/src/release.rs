//! Writes a version: joins docs/changes/unreleased into CHANGELOG.md and sets the number.
//! Tagging and publishing are left to whoever releases.

use crate::say;
use crate::tidy::changes;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{collections::BTreeMap, fs};

/// New versions go below this line.
const MARK: &str = "<!-- versions -->";

pub fn run(root: &Path, version: &str) -> Result<()> {
    ensure!(is_version(version), "{version} is not of the form 1.2.3");
    let folder = root.join(changes::FOLDER);
    let mut notes = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            notes.insert(path.clone(), fs::read_to_string(&path)?);
        }
    }
    if notes.is_empty() {
        bail!("nothing to release: {} has no notes", changes::FOLDER);
    }
    let days = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400;
    let changelog = root.join("CHANGELOG.md");
    let text = fs::read_to_string(&changelog)?;
    let section = section(version, &date(days), notes.values().map(String::as_str));
    fs::write(&changelog, with_section(&text, &section)?)?;
    let manifest = root.join("Cargo.toml");
    fs::write(&manifest, with_version(&fs::read_to_string(&manifest)?, version)?)?;
    for path in notes.keys() {
        fs::remove_file(path)?;
    }
    say(&format!("wrote {version}: look at the difference, run make check, commit and tag"))
}

fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

/// The notes of a version, by kind in the order of `changes::KINDS`.
fn section<'a>(version: &str, date: &str, notes: impl Iterator<Item = &'a str>) -> String {
    let mut by_kind: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (kind, text) in notes.filter_map(changes::split) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        by_kind.entry(kind).or_default().push(format!("- {text}\n"));
    }
    let mut section = format!("## {version} ({date})\n");
    for (kind, lines) in by_kind {
        section += &format!("\n### {}\n\n{}", changes::KINDS[kind], lines.concat());
    }
    section
}

fn with_section(changelog: &str, section: &str) -> Result<String> {
    let (before, after) =
        changelog.split_once(MARK).with_context(|| format!("CHANGELOG.md lacks {MARK}"))?;
    Ok(format!("{before}{MARK}\n\n{section}{after}"))
}

/// The first `version =` of the manifest is the workspace's.
fn with_version(manifest: &str, version: &str) -> Result<String> {
    let mut lines: Vec<String> = manifest.lines().map(ToOwned::to_owned).collect();
    let line = lines
        .iter_mut()
        .find(|line| line.starts_with("version = "))
        .context("Cargo.toml has no version")?;
    *line = format!("version = \"{version}\"");
    Ok(lines.join("\n") + "\n")
}

/// Year, month and day of the days since 1970-01-01 (Hinnant's civil-from-days, years from March).
fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, text) in [(0, "1970-01-01"), (11_016, "2000-02-29"), (20_454, "2026-01-01")] {
            assert_eq!(date(days), text);
        }
    }

    #[test]
    fn notes_are_joined_by_kind() {
        let notes = ["Fixed: a\nb.\n", "Added: c.\n", "Fixed: d.\n"];
        let section = section("0.2.0", "2026-01-01", notes.into_iter());
        let expected = "## 0.2.0 (2026-01-01)\n\n### Added\n\n- c.\n\n### Fixed\n\n- a b.\n- d.\n";
        assert_eq!(section, expected);
        let changelog = with_section("# Changes\n\n<!-- versions -->\n\n## old\n", &section);
        assert!(changelog.is_ok_and(|text| text.contains("versions -->\n\n## 0.2.0")));
        assert!(with_section("# Changes\n", &section).is_err());
    }

    #[test]
    fn only_the_workspace_gets_the_version() {
        let manifest =
            "[workspace.package]\nversion = \"0.1.0\"\n[x]\nserde = { version = \"1\" }\n";
        let changed = with_version(manifest, "0.2.0").unwrap_or_default();
        assert_eq!(changed, manifest.replace("0.1.0", "0.2.0"));
        assert!(is_version("0.2.0") && !is_version("0.2") && !is_version("v1.2.3"));
    }
}
