//! Talks to `postgres -C`: whether PostgreSQL takes settings, before any server has them in a file.
//! In: names and values. Out: those that it refuses, with its words.
//! The program itself is asked, and no list of ours: names and limits differ between versions. It
//! reads no data and starts no server. Settings with a dot belong to extensions, and are taken as
//! they are. What only shows at a start is not found: a library that is missing, too much memory.
//! Not here: what an owner may not set at all (`settings.rs`).
//! Tested by: `tests/postgres_settings`.

use super::super::copy::child::environment;
use super::super::{Binaries, Error};
use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// It answers in some 10 ms; a machine under load takes longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// A setting that PostgreSQL does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// Which.
    pub name: String,
    /// There is none of that name; else its value is to blame.
    pub unknown: bool,
    /// PostgreSQL's words.
    pub because: String,
}

impl NotTaken {
    fn new(name: &str, because: String) -> Self {
        let unknown = because.starts_with("unrecognized configuration parameter");
        Self { name: name.to_owned(), unknown, because }
    }
}

impl Binaries {
    /// Asks PostgreSQL about settings; what it does not take comes back.
    ///
    /// # Errors
    /// `File` if the program cannot be run, `Timeout`.
    pub async fn try_settings(
        &self,
        settings: &BTreeMap<String, String>,
    ) -> Result<Vec<NotTaken>, Error> {
        let all: Vec<_> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut refused = Vec::new();
        if all.is_empty() {
            return Ok(refused);
        }
        // It stops at the first that it refuses, so only then is it asked about each.
        let Some(of_all) = self.ask(&all).await? else { return Ok(refused) };
        for one in &all {
            if let Some(because) = self.ask(&[*one]).await? {
                refused.push(NotTaken::new(one.0, because));
            }
        }
        // Each may be good alone, and exclude another.
        if refused.is_empty()
            && let Some(name) = blamed(&all, &of_all)
        {
            refused.push(NotTaken::new(name, of_all));
        }
        Ok(refused)
    }

    /// The names of its settings, but those that are for its developers.
    ///
    /// # Errors
    /// As `try_settings`.
    pub async fn setting_names(&self) -> Result<Vec<String>, Error> {
        let output = self.postgres(&["--describe-config".to_owned()]).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.split('\t').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// None if it takes them all.
    async fn ask(&self, settings: &[(&str, &str)]) -> Result<Option<String>, Error> {
        // Root may ask too, if `-C` comes first. No file has a say.
        let fixed = ["-C", "data_directory", "-D", "/", "-c", "config_file=/dev/null"];
        let mut arguments: Vec<String> = fixed.map(str::to_owned).into();
        for (name, value) in settings {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        Ok(words(&self.postgres(&arguments).await?))
    }

    async fn postgres(&self, arguments: &[String]) -> Result<Output, Error> {
        let path = self.tool("postgres");
        let mut command = Command::new(&path);
        command.args(arguments).env_clear().envs(environment());
        let output = command.current_dir("/").kill_on_drop(true).stdin(Stdio::null()).output();
        let output = tokio::time::timeout(DEADLINE, output).await;
        let doing = "asking PostgreSQL about settings";
        let output = output.map_err(|_| Error::Timeout { doing, after: DEADLINE })?;
        output.map_err(Error::file("run", &path))
    }
}

/// The setting that PostgreSQL names first, or else the last it was given.
fn blamed<'a>(settings: &[(&'a str, &str)], because: &str) -> Option<&'a str> {
    let place = |name: &str| because.find(&format!("\"{name}\""));
    let named = settings.iter().filter_map(|(name, _)| Some((place(name)?, *name))).min();
    named.map(|(_, name)| name).or_else(|| settings.last().map(|(name, _)| *name))
}

/// What it complains about: its last error, and what it adds to it.
fn words(output: &Output) -> Option<String> {
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let mut words = String::new();
    for line in text.lines() {
        if let Some((_, error)) = line.split_once("FATAL:  ") {
            error.clone_into(&mut words);
        }
        let more = ["DETAIL:  ", "HINT:  "].iter().find_map(|mark| line.split_once(mark));
        if let Some((_, more)) = more.filter(|_| !words.is_empty()) {
            words.push_str("; ");
            words.push_str(more.trim_end_matches('.'));
        }
    }
    Some(if words.is_empty() { text.trim().to_owned() } else { words })
}
