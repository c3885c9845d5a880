//! Talks to the owner's editor about the agreed configuration, so that reading it, changing it and
//! applying it are one.
//! In: what is running, and its version. Out: the changed text, in a file that stays until it was
//! taken: nothing that somebody wrote is lost.
//! Not here: applying it (`cli/run/config.rs`).
//! Tested by: `cli/tests/config.rs`.

use crate::api::operations::RunningConfig;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is opened where nobody says what to use.
const EDITOR: &str = "vi";
/// So many names are tried for the file.
const PATHS_MAX: u32 = 100;

/// A text that was edited, and the file in which it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The text.
    pub text: String,
    /// The file.
    pub path: PathBuf,
}

/// Has it changed by an editor; none where nothing was changed.
///
/// # Errors
/// There is no room for a file, or the editor does not end well.
pub async fn edit(
    running: RunningConfig,
    editor: Option<String>,
) -> Result<Option<Edited>, Problem> {
    let editing = tokio::task::spawn_blocking(move || edit_here(&running, editor));
    editing.await.unwrap_or_else(|error| {
        Err(Problem::caused_by(codes::UNEXPECTED, "cannot edit", &error, "repeat it"))
    })
}

fn edit_here(running: &RunningConfig, editor: Option<String>) -> Result<Option<Edited>, Problem> {
    let path = write(running)?;
    if let Err(because) = open(&editor.unwrap_or_else(editor_of_environment), &path) {
        return Err(not_ended_well(running, &path, because));
    }
    let text = crate::config::read_file(&path).map_err(|error| {
        let instead = format!("correct it and: {}", as_read(running, &path));
        Problem::caused_by(codes::CANNOT_READ_FILE, "cannot read what was edited", &error, instead)
    })?;
    if text == running.text {
        discard(&path);
        return Ok(None);
    }
    Ok(Some(Edited { text, path }))
}

/// It is taken, or of no use.
pub fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(%error, path = %path.display(), "a file of an editor stays");
    }
}

fn editor_of_environment() -> String {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| std::env::var(name).ok());
    let mut named = named.filter(|it| !it.trim().is_empty());
    named.next().unwrap_or_else(|| EDITOR.to_owned())
}

/// Beside those of earlier edits that were not taken. Nobody else may read it: it may name places
/// of secrets.
fn write(running: &RunningConfig) -> Result<PathBuf, Problem> {
    let (folder, me) = (std::env::temp_dir(), std::process::id());
    let mut paths = (0..PATHS_MAX)
        .map(|n| folder.join(format!("tandem-config-{}-{me}-{n}.toml", running.version)));
    let open = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    loop {
        let Some(path) = paths.next() else {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(not_edited(&folder, &error));
        };
        let written = open(&path).and_then(|mut file| file.write_all(running.text.as_bytes()));
        match written {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(not_edited(&path, &error)),
        }
    }
}

/// With the arguments that are written behind its name.
fn open(editor: &str, path: &Path) -> Result<(), String> {
    let mut words = editor.split_whitespace();
    let status = Command::new(words.next().unwrap_or(EDITOR)).args(words).arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{editor} ended with {status}")),
        Err(error) => Err(format!("{editor} cannot be run: {error}")),
    }
}

/// What was written is kept.
fn not_ended_well(running: &RunningConfig, path: &Path, because: String) -> Problem {
    let is_as_it_was = fs::read_to_string(path).is_ok_and(|text| text == running.text);
    let instead = if is_as_it_was {
        discard(path);
        "name an editor: --editor, or the variable EDITOR; nothing was applied".to_owned()
    } else {
        format!("nothing was applied; if you mean what you wrote: {}", as_read(running, path))
    };
    Problem::new(codes::ARGUMENT, "cannot edit the configuration", because, instead)
}

/// What applies a file, if nobody else has applied anything since.
pub fn as_read(running: &RunningConfig, path: &Path) -> String {
    format!("tandem config apply {} --expect {}", path.display(), running.version)
}

fn not_edited(path: &Path, error: &io::Error) -> Problem {
    let what = format!("cannot write {}", path.display());
    let instead = "make room, or name a folder with the variable TMPDIR";
    Problem::caused_by(codes::CANNOT_READ_FILE, what, error, instead)
}
