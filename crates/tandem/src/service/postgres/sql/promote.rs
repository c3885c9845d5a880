//! Talks to an instance that becomes primary: promotion, the record of its term, checkpoints.
//! In: the term and the rule. Out: the position of the record, proven on the commit quorum.
//! Keeps: H6 and H30 the term is in the data itself; H11 a wait that was cut short proves nothing;
//! H18 a checkpoint before anybody rewinds from here.
//! Not here: the names, which must be in effect before (`write_rule`, H8).
//! Tested by: `tests/postgres_adapter.rs`.

use super::{Error, POLL, lsn, within};
use crate::service::postgres::Postgres;
use std::time::Duration;
use tandem_core::ids::{Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;
use tokio::time::sleep;
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::ToSql;

// An update where the row is there already: a repetition must write, or its commit waits for
// nobody.
const RECORD: &str = "
INSERT INTO tandem.history AS h (term, node, timeline, lsn)
VALUES ($1, $2, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4,
  pg_current_wal_insert_lsn())
ON CONFLICT (term) DO UPDATE SET at = now() WHERE h.node = excluded.node
RETURNING term";

const TIMELINE: &str =
    "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4";

impl Postgres {
    /// Promotes, and returns the timeline that it writes once it accepts writes. Done already is
    /// done.
    ///
    /// # Errors
    /// `Timeout`: it goes on by itself; call again.
    pub async fn promote(&self, deadline: Duration) -> Result<TimelineId, Error> {
        within("promoting", deadline, async {
            let mut session = self.connect().await?;
            if session.in_recovery().await? {
                session.one("asking for promotion", "SELECT pg_promote(false)").await?;
                while session.in_recovery().await? {
                    sleep(POLL).await;
                }
            }
            let row = session.one("reading the timeline", TIMELINE).await?;
            Ok(TimelineId(u32::try_from(row.get::<_, i32>(0)).unwrap_or(0)))
        })
        .await
    }

    /// Records who is primary in `term`, and returns once the commit quorum of `rule` has it.
    /// It has a connection of its own, so it can be given up: the row may still become durable
    /// then, and the same call again waits for it anew.
    ///
    /// # Errors
    /// `Unproven` if the wait was cut short (H11); `TermTaken`; `Timeout`.
    pub async fn record_term(
        &self,
        term: Term,
        rule: &CommitRule,
        deadline: Duration,
    ) -> Result<Lsn, Error> {
        within("recording the term", deadline, async {
            let mut session = self.connect().await?;
            let number = i64::try_from(term.0).unwrap_or(i64::MAX);
            let node = self.config().me.as_str();
            let values: [&(dyn ToSql + Sync); 2] = [&number, &node];
            let insert = session.client.query_opt(RECORD, &values);
            let row = session.wire.drive(insert).await.map_err(Error::sql("recording the term"))?;
            if row.is_none() {
                let sql = format!("SELECT node FROM tandem.history WHERE term = {number}");
                let node = session.one("reading the term", &sql).await?.get(0);
                return Err(Error::TermTaken { term, node });
            }
            if let Some(warning) = session.wire.notices.iter().find(|n| is_warning(n)) {
                let because = warning.message().to_owned();
                return Err(Error::Unproven { term, because });
            }
            let end = "SELECT pg_current_wal_flush_lsn()::text";
            let position = lsn(&session.one("reading the position", end).await?, 0)?;
            // The server's word was the proof; this one does not rest on its flag for "somebody
            // must confirm" having been set in time.
            while !rule.acknowledges(&self.confirmed(&mut session, rule, position).await?) {
                sleep(POLL).await;
            }
            Ok(position)
        })
        .await
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// `Timeout`: the server goes on with it.
    pub async fn checkpoint(&self, deadline: Duration) -> Result<(), Error> {
        within("writing a checkpoint", deadline, async {
            self.connect().await?.run("writing a checkpoint", "CHECKPOINT").await
        })
        .await
    }
}

fn is_warning(notice: &DbError) -> bool {
    notice.parsed_severity() == Some(Severity::Warning)
}
