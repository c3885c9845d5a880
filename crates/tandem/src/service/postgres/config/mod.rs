//! Talks to the configuration files in PGDATA.
//! In: `InstanceConfig`, whom to follow, the commit rule. Out: files, and the `StartCommand` that
//! the keeper runs.
//! The owner's postgresql.conf and pg_hba.conf are kept; ours come last and first in them.
//! Keeps: H5 `standby.signal` is there before any start, and again after a promotion; H7 whatever
//! is started waits with its commits for somebody who is not there, whoever promotes it; H19 no
//! start on a mixture; H20 everything is written again before every start, whatever a copy brought
//! along.
//! Tested by: below, and `tests/postgres_adapter.rs`.

mod conninfo;
mod hba;
pub(super) mod settings;
mod trial;

pub use trial::NotTaken;

use super::{Error, InstanceConfig, Postgres, RunAs, StateFile, files, names};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tandem_core::ids::NodeId;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;

/// `sun_path` on Linux, less its terminating zero.
const SOCKET_PATH_MAX: usize = 107;
const INCLUDE: &str = "include 'tandem.conf'";
/// In PGDATA: what Tandem sets. Where it is, Tandem has run the data.
pub(super) const OWN_SETTINGS: &str = "tandem.conf";

/// What the keeper runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartCommand {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working folder.
    pub cwd: PathBuf,
    /// User.
    pub run_as: Option<RunAs>,
    /// Where standard output and error go.
    pub log_file: PathBuf,
}

/// Refuses a configuration that cannot work.
pub(super) fn check(config: &InstanceConfig) -> Result<(), Error> {
    settings::check(&config.user_settings)?;
    if config.hba_extra.iter().any(|line| line.contains(['\n', '\r', '\0'])) {
        return Err(Error::Setting {
            name: "hba".into(),
            because: "each entry is one line",
            instead: "remove line ends",
        });
    }
    let path = config.dir.join("run").join(format!(".s.PGSQL.{}", config.port));
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        return Err(Error::SocketPath { path, length, max: SOCKET_PATH_MAX });
    }
    Ok(())
}

/// H5: whoever starts this next, it comes up as a standby.
fn start_in_recovery(data: &Path, owner: Option<RunAs>) -> Result<(), Error> {
    files::replace_durably(&data.join("standby.signal"), "", owner)
}

/// The files of one write, so that it can be done where a hanging disk hurts nobody.
struct Texts {
    settings: String,
    hba_extra: Vec<String>,
    passfile: (PathBuf, String),
    owner: Option<RunAs>,
}

impl Postgres {
    /// Writes every file that a start needs, as a standby of `upstream`, or of nobody.
    /// A postmaster.pid that was left behind is PostgreSQL's to judge.
    ///
    /// # Errors
    /// `MixedData`, `Quarantined`, `NoData`, `DataVersion`, `Owner`, `NoAddress`, `File`.
    pub async fn prepare_start(&self, upstream: Option<&NodeId>) -> Result<StartCommand, Error> {
        usable(&self.load_state().await?)?;
        self.check_data().await?;
        self.write_files(upstream).await?;
        Ok(self.start_command())
    }

    /// Writes every file again but whom to follow and who confirms. Takes effect with a reload.
    ///
    /// # Errors
    /// `File`.
    pub async fn write_settings(&self) -> Result<(), Error> {
        let (data, texts) = (self.data_dir(), self.texts());
        files::blocking(move || texts.write(&data)).await
    }

    pub(super) async fn write_files(&self, upstream: Option<&NodeId>) -> Result<(), Error> {
        let upstream = self.upstream_text(upstream)?;
        let sync = self.sync_text(&self.rule_of_nobody());
        let (data, run, texts) = (self.data_dir(), self.run_dir(), self.texts());
        files::blocking(move || {
            let owner = texts.owner;
            files::private_dir(&run, owner)?;
            texts.write(&data)?;
            files::replace(&data.join("tandem.sync.conf"), &sync, owner)?;
            files::replace(&data.join("tandem.upstream.conf"), &upstream, owner)?;
            files::remove(&data.join("recovery.signal"))?;
            start_in_recovery(&data, owner)
        })
        .await
    }

    /// Writes again what a promotion removed, before anything is acknowledged.
    ///
    /// # Errors
    /// `File`.
    pub(super) async fn next_start_in_recovery(&self) -> Result<(), Error> {
        let (data, owner) = (self.data_dir(), self.config().run_as);
        files::blocking(move || start_in_recovery(&data, owner)).await
    }

    /// Writes whom to follow. Takes effect with a reload.
    pub(super) async fn write_upstream(&self, upstream: Option<&NodeId>) -> Result<(), Error> {
        let text = self.upstream_text(upstream)?;
        self.write_one("tandem.upstream.conf", text).await
    }

    /// Writes who confirms commits. Takes effect with a reload.
    pub(super) async fn write_sync_names(&self, rule: &CommitRule) -> Result<(), Error> {
        self.write_one("tandem.sync.conf", self.sync_text(rule)).await
    }

    async fn write_one(&self, name: &'static str, text: String) -> Result<(), Error> {
        let (data, owner) = (self.data_dir(), self.config().run_as);
        files::blocking(move || {
            // ALTER SYSTEM would override what follows for as long as it is there.
            clean_auto_conf(&data, owner)?;
            files::replace(&data.join(name), &text, owner)
        })
        .await
    }

    fn upstream_text(&self, upstream: Option<&NodeId>) -> Result<String, Error> {
        let mut text = String::from("# Whom to follow. Written by Tandem.\n");
        let (conninfo, slot) = match upstream {
            Some(node) => (self.stream_conninfo(node)?, names::slot(&self.config().me)),
            None => (String::new(), String::new()),
        };
        settings::line(&mut text, "primary_conninfo", &conninfo);
        settings::line(&mut text, "primary_slot_name", &slot);
        Ok(text)
    }

    /// `synchronous_standby_names` for a rule, as the server shows it.
    pub fn sync_names(&self, rule: &CommitRule) -> String {
        names::sync_names(&self.config().cluster, rule)
    }

    /// What holds from every start until the barrier of a term (H7).
    pub fn rule_of_nobody(&self) -> CommitRule {
        CommitRule::of_nobody(self.config().me.clone())
    }

    fn sync_text(&self, rule: &CommitRule) -> String {
        let mut text = String::from("# Who confirms commits. Written by Tandem.\n");
        let names = self.sync_names(rule);
        settings::line(&mut text, "synchronous_standby_names", &names);
        text
    }

    fn texts(&self) -> Texts {
        Texts {
            settings: settings::text(self.config()),
            hba_extra: self.config().hba_extra.clone(),
            passfile: (self.passfile(), self.passfile_text()),
            owner: self.config().run_as,
        }
    }

    fn start_command(&self) -> StartCommand {
        let config = self.config();
        StartCommand {
            argv: vec![
                config.binaries.tool("postgres").into(),
                "-D".into(),
                self.data_dir().into_os_string(),
            ],
            env: super::copy::child::environment(),
            cwd: config.dir.clone(),
            run_as: config.run_as,
            log_file: self.log_file(),
        }
    }

    /// Whether there is data that these programs can run.
    ///
    /// # Errors
    /// `NoData`, `DataVersion`, `Owner`, `File`.
    pub async fn check_data(&self) -> Result<(), Error> {
        let (data, major) = (self.data_dir(), self.config().binaries.major());
        let expected =
            self.config().run_as.map_or_else(|| nix::unistd::geteuid().as_raw(), |user| user.uid);
        files::blocking(move || {
            let Some(version) = files::read(&data.join("PG_VERSION"))? else {
                return Err(Error::NoData { path: data });
            };
            if version.trim() != major.to_string() {
                return Err(Error::DataVersion { data: version.trim().into(), binaries: major });
            }
            let owner = std::fs::metadata(&data).map_err(Error::file("inspect", &data))?.uid();
            if owner != expected {
                return Err(Error::Owner { path: data, owner, expected });
            }
            Ok(())
        })
        .await
    }
}

impl Texts {
    fn write(&self, data: &Path) -> Result<(), Error> {
        let owner = self.owner;
        files::replace(&self.passfile.0, &self.passfile.1, owner)?;
        files::replace(&data.join(OWN_SETTINGS), &self.settings, owner)?;
        let main = data.join("postgresql.conf");
        let present = files::read(&main)?.unwrap_or_default();
        let wanted = include_last(&present);
        if wanted != present {
            files::replace(&main, &wanted, owner)?;
        }
        let hba = data.join("pg_hba.conf");
        let text = hba::text(&files::read(&hba)?.unwrap_or_default(), &self.hba_extra);
        files::replace(&hba, &text, owner)?;
        let ident = data.join("pg_ident.conf");
        if files::read(&ident)?.is_none() {
            files::replace(&ident, "", owner)?;
        }
        clean_auto_conf(data, owner)
    }
}

fn clean_auto_conf(data: &Path, owner: Option<RunAs>) -> Result<(), Error> {
    let path = data.join("postgresql.auto.conf");
    match files::read(&path)?.as_deref().and_then(settings::clean_auto_conf) {
        Some(clean) => files::replace(&path, &clean, owner),
        None => Ok(()),
    }
}

/// Refuses data that a copy left half-done (H19), or that a human must look at.
pub(super) fn usable(state: &StateFile) -> Result<(), Error> {
    if let Some(sentinel) = state.sentinel {
        return Err(Error::MixedData(sentinel));
    }
    match (&state.quarantined, &state.suspect) {
        (Some(reason), _) => Err(Error::Quarantined { reason: reason.clone() }),
        (None, Some(reason)) => Err(Error::DiskSuspect { reason: reason.clone() }),
        (None, None) => Ok(()),
    }
}

/// postgresql.conf with our include as its last line, once: what comes last wins.
fn include_last(present: &str) -> String {
    let mut lines: Vec<&str> =
        present.lines().filter(|line| !line.trim_start().starts_with(INCLUDE)).collect();
    lines.push(INCLUDE);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_include_is_last_and_once() {
        let text = include_last("a = 1\ninclude 'tandem.conf'\nport = 5\n");
        assert_eq!(text, "a = 1\nport = 5\ninclude 'tandem.conf'\n");
        assert_eq!(include_last(&text), text);
    }
}
