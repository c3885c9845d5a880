//! Talks to PostgreSQL's programs that make or replace a whole data directory.
//! In: where from. Out: a data directory that is complete, or a sentinel that says it is not.
//! Keeps: H19 the sentinel is durable before the first byte changes, and goes after the last one;
//! H20 and H25 slots that came along with a copy are removed.
//! Tested by: `tests/postgres_adapter.rs`.

pub mod basebackup;
pub(super) mod child;
pub mod found;
mod kept;
mod leftovers;
pub mod rewind;

use super::config::OWN_SETTINGS;
use super::{Error, Postgres, Sentinel, files};
use std::path::Path;
use tandem_core::facts::Data;
use tandem_core::ids::NodeId;

impl Postgres {
    /// What is in the data directory. Whether a copy is running now, only its caller knows.
    ///
    /// # Errors
    /// `File`, and those of the state file.
    pub async fn data(&self) -> Result<Data, Error> {
        let state = match self.load_state().await {
            Err(Error::StateMissing { .. }) if self.is_foreign().await? => {
                return Ok(Data::Foreign);
            }
            other => other?,
        };
        if let Some(reason) = state.quarantined {
            return Ok(Data::Quarantined { reason });
        }
        if let Some(reason) = state.suspect {
            return Ok(Data::Suspect { reason });
        }
        match state.sentinel {
            None => {}
            Some(Sentinel::Adopting) => return Ok(Data::Foreign),
            Some(Sentinel::Founding | Sentinel::Cloning | Sentinel::Rewinding) => {
                return Ok(Data::Mixed);
            }
        }
        let data = self.data_dir();
        files::blocking(move || match files::is_empty(&data)? {
            true => Ok(Data::Empty),
            false if data.join("PG_VERSION").is_file() => Ok(Data::Present),
            false => Err(Error::NotEmpty { path: data }),
        })
        .await
    }

    /// Whether there is a database cluster that never ran here, where the owner said that there may
    /// be one. Data that did run here and has lost its state is not: its promises are lost too.
    async fn is_foreign(&self) -> Result<bool, Error> {
        let (data, is_given) = (self.data_dir(), self.config().data_dir.is_some());
        files::blocking(move || {
            let is_there = files::read(&data.join("PG_VERSION"))?.is_some();
            let ran_here = files::read(&data.join(OWN_SETTINGS))?.is_some();
            Ok(is_given && is_there && !ran_here)
        })
        .await
    }

    /// Removes what a copy brought along and what belongs to the other node: slots would retain
    /// WAL for standbys that are fed elsewhere, and their xmin would hold back vacuum (H25).
    ///
    /// # Errors
    /// `File`.
    pub async fn clean_after_copy(&self) -> Result<(), Error> {
        let data = self.data_dir();
        files::blocking(move || {
            files::empty_dir(&data.join("pg_replslot"))?;
            for name in ["postmaster.pid", "postmaster.opts", "recovery.signal", "backup_label.old"]
            {
                files::remove(&data.join(name))?;
            }
            Ok(())
        })
        .await
    }

    /// Nobody else may write to the data directory: no postmaster, no program of an earlier copy
    /// that outlived its daemon.
    async fn alone(&self) -> Result<(), Error> {
        let data = self.data_dir();
        files::blocking(move || {
            leftovers::end_copies(&data)?;
            match leftovers::postmaster(&data)? {
                Some(pid) => Err(Error::StillRunning { pid, path: data }),
                None => Ok(()),
            }
        })
        .await
    }

    async fn wipe(&self) -> Result<(), Error> {
        let (data, owner) = (self.data_dir(), self.config().run_as);
        files::blocking(move || {
            files::empty_dir(&data)?;
            files::private_dir(&data, owner)?;
            files::sync_parent(&data)
        })
        .await
    }

    /// All of a copy is there: from here on it may be started as a standby of its source.
    async fn end_copy(&self, source: &NodeId) -> Result<(), Error> {
        self.clean_after_copy().await?;
        self.put_back_own_files().await?;
        self.write_files(Some(source)).await?;
        self.sync_data().await?;
        self.set_sentinel(None).await?;
        self.forget_own_files().await
    }

    /// What the sentinel guards must be on disk before it goes (H19).
    async fn sync_data(&self) -> Result<(), Error> {
        let data = self.data_dir();
        files::blocking(move || files::sync_data(&data)).await
    }

    async fn write_passfile(&self) -> Result<(), Error> {
        let (path, text, owner) = (self.passfile(), self.passfile_text(), self.config().run_as);
        files::blocking(move || files::replace(&path, &text, owner)).await
    }
}

/// Whether a program's output says that the other side could not be reached, or refuses for now.
fn is_unreachable(output: &str) -> bool {
    [
        "connection to server",
        "could not connect",
        "could not translate host name",
        "server closed the connection",
        "is being shut down",
        "is starting up",
        "terminating connection",
        "could not receive data",
        "could not send data",
        "no data was returned",
    ]
    .iter()
    .any(|words| output.contains(words))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
