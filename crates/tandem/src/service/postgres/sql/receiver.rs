//! Talks to a standby's WAL receiver: stops it for a vote, points it at another primary.
//! In: whom to follow, a deadline. Out: `StoppedAt`, what the standby votes with.
//! Keeps: H15 nothing arrives any more once a position is reported, and the replay has provably
//! ended; INV-2 with the durable promise that comes before (`state_file`).
//! Tested by: `tests/postgres_adapter.rs`.

use super::{Error, POLL, lsn, within};
use crate::service::postgres::Postgres;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::lsn::Lsn;
use tokio::time::{Instant, sleep};

/// The startup process waits here when it has replayed everything there is, and receives nothing.
const IDLE: &[&str] = &["RecoveryRetrieveRetryInterval"];

const STATE: &str = "
SELECT s.pid, s.wait_event,
  EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
  greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text,
  pg_last_wal_replay_lsn()::text
FROM pg_stat_activity s WHERE s.backend_type = 'startup'";

/// Ends what the replay waits for: queries and locks of clients that would hold up a vote for as
/// long as `max_standby_streaming_delay` allows.
const UNBLOCK: &str = "
SELECT count(pg_terminate_backend(c.pid)) FROM pg_stat_activity c
WHERE c.backend_type = 'client backend' AND c.state <> 'idle' AND c.pid <> pg_backend_pid()
  AND EXISTS (SELECT FROM pg_stat_activity s WHERE s.backend_type = 'startup'
    AND (s.wait_event LIKE 'RecoveryConflict%' OR s.wait_event_type IN ('Lock', 'BufferPin')))";

/// A replay that goes on for so long may wait for somebody.
const UNBLOCK_AFTER: Duration = Duration::from_millis(200);

const RESUME: &str = "SELECT CASE WHEN pg_is_wal_replay_paused() THEN pg_wal_replay_resume() END";

/// What a standby holds, for good: nothing more arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppedAt {
    /// Flushed up to here; may end within a record that never came whole.
    pub flushed: Lsn,
    /// Replayed up to here: the end of the last whole record.
    pub replayed: Lsn,
}

impl Postgres {
    /// Stops receiving WAL, for good until `follow`, and waits for the replay of what is here.
    ///
    /// An empty pg_stat_wal_receiver proves nothing: a receiver that is connecting does not show,
    /// and a startup process that has not read its configuration yet starts the next one. The proof
    /// is the startup process asleep in the wait that it enters only after it stopped its receiver
    /// and found nothing more to replay, at a moment after the reload was signalled (`asleep`),
    /// with no connection string to start another one.
    ///
    /// # Errors
    /// `Role` on a primary; `Timeout` while the replay is still going on: call again.
    pub async fn stop_receiver(&self, deadline: Duration) -> Result<StoppedAt, Error> {
        within("stopping the WAL receiver", deadline, async {
            self.write_upstream(None).await?;
            let mut session = self.reload_until("primary_conninfo", "").await?;
            if !session.in_recovery().await? {
                return Err(Error::Role { expected: "standby" });
            }
            session.one("resuming the replay", RESUME).await?;
            let mut startup = None;
            let mut unblock = Instant::now() + UNBLOCK_AFTER;
            loop {
                if let Some(row) = session.while_asleep(STATE, IDLE, &mut startup).await?
                    && !row.get::<_, bool>(2)
                {
                    return Ok(StoppedAt { flushed: lsn(&row, 3)?, replayed: lsn(&row, 4)? });
                }
                if Instant::now() >= unblock {
                    session.one("ending what the replay waits for", UNBLOCK).await?;
                    unblock = Instant::now() + UNBLOCK_AFTER;
                }
                sleep(POLL).await;
            }
        })
        .await
    }

    /// Follows another primary, at once: returns when the server has been told.
    /// Whether it streams, the next observation says.
    ///
    /// # Errors
    /// `NoAddress`, `Role` on a primary, `Timeout`.
    pub async fn follow(&self, upstream: &NodeId, deadline: Duration) -> Result<(), Error> {
        within("following another primary", deadline, async {
            let conninfo = self.stream_conninfo(upstream)?;
            self.write_upstream(Some(upstream)).await?;
            let mut session = self.reload_until("primary_conninfo", &conninfo).await?;
            match session.in_recovery().await? {
                true => Ok(()),
                false => Err(Error::Role { expected: "standby" }),
            }
        })
        .await
    }
}
