//! Talks to pg_basebackup: a new copy of a member's data.
//! In: the source, a place for the progress, a way to give up. Out: a standby's data directory.
//! Keeps: H19 sentinel around it; H25 its slot keeps the WAL from the backup's first byte until the
//! new standby streams; H44 a backup that did not end well never counts.
//! Tested by: `tests/postgres_adapter.rs`.

use super::super::{Error, Postgres, Sentinel, StateFile, names};
use super::{display, is_unreachable};
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SLOT_WITHIN: Duration = Duration::from_secs(5);

impl Postgres {
    /// Replaces all data by a copy of `source`'s. What was here is gone at once: whether it may go
    /// is the caller's decision. Repeating it after an interruption begins again.
    ///
    /// # Errors
    /// `SourceUnavailable` (the sentinel stays: the old data is gone), `Cancelled`, `Tool`,
    /// `StillRunning`, `Quarantined`, `StateMissing`.
    pub async fn clone_from(
        &self,
        source: &NodeId,
        progress: watch::Sender<Option<u8>>,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let state = self.load_state_or_none().await?;
        if let Some(reason) = state.quarantined {
            return Err(Error::Quarantined { reason });
        }
        self.alone().await?;
        self.write_passfile().await?;
        // Asked before anything is removed: a source that is down costs nothing then.
        self.make_slot_on(source, SLOT_WITHIN).await?;
        if state.sentinel.is_none() {
            self.keep_own_files().await?;
        }
        self.set_sentinel(Some(Sentinel::Cloning)).await?;
        self.wipe().await?;
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Cancelled),
            copied = self.basebackup(source, &progress) => copied?,
        }
        self.end_copy(source).await
    }

    async fn basebackup(
        &self,
        source: &NodeId,
        progress: &watch::Sender<Option<u8>>,
    ) -> Result<(), Error> {
        let dbname = format!("--dbname={}", self.conninfo(source, None)?);
        let slot = format!("--slot={}", names::slot(&self.config().me));
        let data = display(&self.data_dir());
        let label = format!("--label=tandem {}", self.config().me);
        let arguments = [
            "-D",
            &data,
            &dbname,
            &slot,
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-password",
            "--progress",
            "--no-sync",
            &label,
        ];
        let watch = |line: &str| {
            if let Some(percent) = percent(line) {
                progress.send_replace(Some(percent));
            }
        };
        let finished = self.run_watched("pg_basebackup", arguments, "", watch).await?;
        if !finished.status.success() && is_unreachable(&finished.output) {
            let Err(Error::Tool { output, .. }) = finished.ok("pg_basebackup") else {
                return Err(Error::Interrupted);
            };
            return Err(Error::SourceUnavailable { source_node: source.clone(), output });
        }
        finished.ok("pg_basebackup").map(|_| ())
    }

    /// As `load_state`; data that never ran here has none. Where it is merely missing, promises
    /// are lost, and only an operator has the data replaced.
    async fn load_state_or_none(&self) -> Result<StateFile, Error> {
        match self.load_state().await {
            Err(Error::StateMissing { .. }) if self.is_foreign().await? => Ok(StateFile::default()),
            other => other,
        }
    }
}

/// ` 22903/22903 kB (100%), 1/1 tablespace`
fn percent(line: &str) -> Option<u8> {
    let (before, _) = line.split_once("%)")?;
    let (_, number) = before.rsplit_once('(')?;
    number.parse::<u8>().ok().map(|percent| percent.min(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        assert_eq!(percent("22903/22903 kB (100%), 1/1 tablespace"), Some(100));
        assert_eq!(percent("  123/22903 kB (7%), 0/1 tablespace (/x)"), Some(7));
        assert_eq!(percent("waiting for checkpoint"), None);
    }
}
