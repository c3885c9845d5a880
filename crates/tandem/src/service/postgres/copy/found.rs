//! Talks to initdb and to `postgres --single`: the first copy of the data, new or adopted.
//! In: an empty folder, or one with a database cluster. Out: data that `prepare_start` accepts.
//! Keeps: H19 an interrupted initdb is begun again.
//! Not here: roles and tables (`sql/roles.rs`), which need a running primary.
//! Tested by: `tests/postgres_adapter.rs`.

use super::super::{ControlState, Error, Postgres, SUPERUSER, Sentinel, files};
use super::display;
use postgres_protocol::password::scram_sha_256;

/// What an adopted database cluster lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptionWarning {
    /// Damage on disk would go unnoticed; `pg_checksums --enable` while it is stopped.
    NoChecksums,
    /// It has no postgresql.conf of its own (Debian keeps it elsewhere): its settings must be
    /// written into the service's settings.
    NoConfiguration,
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
        self.write_files(None, None).await?;
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

    /// Takes over a database cluster that somebody else made and stopped. Its configuration is
    /// kept; ours is included last. The daemon's role is made in single-user mode, which needs no
    /// password.
    ///
    /// # Errors
    /// `NotCleanPrimary` unless it was shut down cleanly; `DataVersion`, `Owner`, `StillRunning`.
    pub async fn adopt(&self) -> Result<Vec<AdoptionWarning>, Error> {
        self.alone().await?;
        self.check_data().await?;
        let stopped = self.inspect_stopped().await?;
        if stopped.state != ControlState::ShutDown {
            return Err(Error::NotCleanPrimary { state: format!("{:?}", stopped.state) });
        }
        let data = self.data_dir();
        let mut warnings = Vec::new();
        if !stopped.checksums {
            warnings.push(AdoptionWarning::NoChecksums);
        }
        if !data.join("postgresql.conf").is_file() {
            warnings.push(AdoptionWarning::NoConfiguration);
        }
        // Single-user mode refuses to run as a standby, and it reads our settings.
        self.write_files(None, None).await?;
        self.without_signal().await?;
        let verifier = scram_sha_256(self.config().passwords.superuser.as_bytes());
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {SUPERUSER}; EXCEPTION WHEN duplicate_object THEN END $$\n\
             ALTER ROLE {SUPERUSER} SUPERUSER LOGIN REPLICATION PASSWORD '{verifier}'\n"
        );
        let data = display(&data);
        let arguments = ["--single", "-D", data.as_str(), "postgres"];
        let output =
            self.run_watched("postgres", arguments, &sql, |_| {}).await?.ok("postgres --single")?;
        if let Some(line) = output.lines().find(|line| line.contains("ERROR:")) {
            return Err(Error::Tool { tool: "postgres --single", output: line.to_owned() });
        }
        self.change_state(|_| {}).await?;
        self.write_files(None, None).await?;
        Ok(warnings)
    }

    pub(super) async fn without_signal(&self) -> Result<(), Error> {
        let path = self.data_dir().join("standby.signal");
        files::blocking(move || files::remove(&path)).await
    }
}
