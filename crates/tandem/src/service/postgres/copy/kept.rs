//! Talks to the owner's own files in PGDATA, while a copy replaces everything there.
//! In: what is there before the copy. Out: the same after it, whatever the source has in its files.
//! States: nothing kept → kept (the copy begins) → put back (it ended) → nothing kept. A copy that
//! was cut leaves them kept for the next one, which finds a mixture and keeps nothing new.
//! Keeps: H20 configuration is each node's own, and pg_rewind and pg_basebackup bring the source's.
//! Not here: Tandem's own files, written again before each start (`config`).
//! Tested by: `tests/postgres_adapter.rs`, with a rewind between two different files.

use super::super::{Error, Postgres, RunAs, files};
use std::path::{Path, PathBuf};

const OWN: [&str; 4] = ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"];

impl Postgres {
    /// Before the sentinel is set, which says from then on that these are kept.
    pub(super) async fn keep_own_files(&self) -> Result<(), Error> {
        let (data, kept, owner) = self.places();
        files::blocking(move || {
            files::private_dir(&kept, owner)?;
            // Of an earlier copy, which ended well but for the last step.
            files::empty_dir(&kept)?;
            put(&data, &kept, owner)
        })
        .await
    }

    /// Before the data is made durable.
    pub(super) async fn put_back_own_files(&self) -> Result<(), Error> {
        let (data, kept, owner) = self.places();
        files::blocking(move || put(&kept, &data, owner)).await
    }

    /// Once the sentinel is gone.
    pub(super) async fn forget_own_files(&self) -> Result<(), Error> {
        let (_, kept, _) = self.places();
        files::blocking(move || files::empty_dir(&kept)).await
    }

    fn places(&self) -> (PathBuf, PathBuf, Option<RunAs>) {
        (self.data_dir(), self.config().dir.join("kept"), self.config().run_as)
    }
}

fn put(from: &Path, to: &Path, owner: Option<RunAs>) -> Result<(), Error> {
    for name in OWN {
        if let Some(text) = files::read(&from.join(name))? {
            files::replace_durably(&to.join(name), &text, owner)?;
        }
    }
    Ok(())
}
