//! Talks to initdb and to `postgres --single`: the first copy of the data, new or adopted.
//! In: an empty folder, or one with a database cluster. Out: data that `prepare_start` accepts.
//! Keeps: H19 an interrupted initdb or adoption is begun again; an adoption removes nothing.
//! Not here: roles and tables (`sql/roles.rs`), which need a running primary.
//! Tested by: `tests/postgres_adapter.rs`.

use super::super::{ControlState, Error, Postgres, SUPERUSER, Sentinel, Stopped, files};
use super::display;
use postgres_protocol::password::scram_sha_256;
use std::fmt;
use tandem_core::facts::Data;

/// What an adopted database cluster lacks, or what about it surprises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptionWarning {
    /// Damage on disk would go unnoticed.
    NoChecksums,
    /// Debian, for one, keeps it elsewhere.
    NoConfiguration,
    /// It was not shut down.
    Recovered,
    /// A copy on another node puts them at the same paths.
    Tablespaces,
}

impl fmt::Display for AdoptionWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoChecksums => {
                "it has no checksums, so damage on disk goes unnoticed; stop it once and run \
                 pg_checksums --enable on every node"
            }
            Self::NoConfiguration => {
                "it has no postgresql.conf of its own; write its settings into the service's"
            }
            Self::Recovered => "it was not shut down cleanly; it was recovered from its own log",
            Self::Tablespaces => "it has tablespaces; the same empty folders must be on every node",
        })
    }
}

impl Postgres {
    /// Makes a new database cluster, with checksums and the daemon's role. Start it, promote it,
    /// then `ensure_roles`.
    ///
    /// # Errors
    /// `NotEmpty`, `StillRunning`, `Tool`, `File`.
    pub async fn found(&self) -> Result<(), Error> {
        self.alone().await?;
        let data = self.data_dir();
        let interrupted = self.load_state().await?.sentinel == Some(Sentinel::Founding);
        let probe = data.clone();
        if !interrupted && !files::blocking(move || files::is_empty(&probe)).await? {
            return Err(Error::NotEmpty { path: data });
        }
        self.set_sentinel(Some(Sentinel::Founding)).await?;
        self.wipe().await?;
        let passwords = self.config().dir.join("initdb.password");
        let (path, text) = (passwords.clone(), format!("{}\n", self.config().passwords.superuser));
        let owner = self.config().run_as;
        files::blocking(move || files::replace(&path, &text, owner)).await?;
        let made = self.initdb(&display(&data), &display(&passwords)).await;
        files::blocking(move || files::remove(&passwords)).await?;
        made?;
        self.write_files(None).await?;
        self.set_sentinel(None).await
    }

    async fn initdb(&self, data: &str, passwords: &str) -> Result<(), Error> {
        let locale = format!("--locale={}", self.config().locale);
        let pwfile = format!("--pwfile={passwords}");
        let arguments = [
            "-D",
            data,
            "-U",
            SUPERUSER,
            &pwfile,
            "--auth=scram-sha-256",
            "--data-checksums",
            "--encoding=UTF8",
            &locale,
            "--no-instructions",
        ];
        self.run("initdb", arguments).await?.ok("initdb").map(|_| ())
    }

    /// Takes over a database cluster that somebody else made. Its configuration is kept; ours is
    /// included last. The daemon's role is made in single-user mode, which needs no password, and
    /// which first recovers what was not shut down, as a primary does. An interrupted adoption is
    /// begun again.
    ///
    /// # Errors
    /// `NotAPrimary` for a standby; `Adopted` for data that has a state already; `DataVersion`,
    /// `Owner`, `StillRunning`, `Tool`.
    pub async fn adopt(&self) -> Result<Vec<AdoptionWarning>, Error> {
        self.alone().await?;
        self.check_data().await?;
        if self.data().await? != Data::Foreign {
            return Err(Error::Adopted { path: self.data_dir() });
        }
        let stopped = self.inspect_stopped().await?;
        let is_begun = self.state_path().exists();
        if !stopped.state.was_primary() || !is_begun && self.follows_somebody().await? {
            return Err(Error::NotAPrimary { state: format!("{:?}", stopped.state) });
        }
        let warnings = self.surprises(&stopped).await?;
        self.set_sentinel(Some(Sentinel::Adopting)).await?;
        self.make_superuser().await?;
        let state = self.inspect_stopped().await?.state;
        if state != ControlState::ShutDown {
            return Err(Error::NotAPrimary { state: format!("{state:?}") });
        }
        self.write_files(None).await?;
        self.set_sentinel(None).await?;
        Ok(warnings)
    }

    async fn surprises(&self, stopped: &Stopped) -> Result<Vec<AdoptionWarning>, Error> {
        let data = self.data_dir();
        let (has_configuration, has_tablespaces) = files::blocking(move || {
            let configuration = files::read(&data.join("postgresql.conf"))?.is_some();
            Ok((configuration, !files::is_empty(&data.join("pg_tblspc"))?))
        })
        .await?;
        let all = [
            (AdoptionWarning::NoChecksums, !stopped.checksums),
            (AdoptionWarning::NoConfiguration, !has_configuration),
            (AdoptionWarning::Recovered, !stopped.state.is_clean()),
            (AdoptionWarning::Tablespaces, has_tablespaces),
        ];
        Ok(all.into_iter().filter(|(_, is_so)| *is_so).map(|(warning, _)| warning).collect())
    }

    async fn follows_somebody(&self) -> Result<bool, Error> {
        let data = self.data_dir();
        files::blocking(move || {
            let standby = files::read(&data.join("standby.signal"))?;
            Ok(standby.is_some() || files::read(&data.join("recovery.signal"))?.is_some())
        })
        .await
    }

    async fn make_superuser(&self) -> Result<(), Error> {
        let data = self.data_dir();
        // Single-user mode refuses to run as a standby, and it reads our settings.
        self.write_files(None).await?;
        self.without_signal().await?;
        let verifier = scram_sha_256(self.config().passwords.superuser.as_bytes());
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {SUPERUSER}; EXCEPTION WHEN duplicate_object THEN END $$\n\
             ALTER ROLE {SUPERUSER} SUPERUSER LOGIN REPLICATION PASSWORD '{verifier}'\n"
        );
        let data = display(&data);
        // Nobody is there to confirm what it commits, and our settings would have it wait.
        let alone = "synchronous_commit=local";
        let arguments = ["--single", "-D", data.as_str(), "-c", alone, "postgres"];
        let output =
            self.run_watched("postgres", arguments, &sql, |_| {}).await?.ok("postgres --single")?;
        if let Some(line) = output.lines().find(|line| line.contains("ERROR:")) {
            return Err(Error::Tool { tool: "postgres --single", output: line.to_owned() });
        }
        Ok(())
    }

    pub(super) async fn without_signal(&self) -> Result<(), Error> {
        let path = self.data_dir().join("standby.signal");
        files::blocking(move || files::remove(&path)).await
    }
}
