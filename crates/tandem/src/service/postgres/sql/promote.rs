//! Talks to an instance that becomes primary: promotion, the record of its term, checkpoints.
//! In: the term and the rule. Out: the position of the record, which a commit quorum has.
//! Keeps: H5 the next start is in recovery again; H6 and H30 the term is in the data itself; H7 the
//! record comes before every commit that is acknowledged in the term; H11 the server's word that a
//! commit is confirmed proves nothing, the standbys' own does; H18 a checkpoint before anybody
//! rewinds from here.
//! Not here: the names. Nobody may confirm before the promotion (`hold_commits`), the rule's
//! standbys may once they have the record (`let_confirm`).
//! Tested by: `tests/postgres_adapter.rs`.

use super::{Error, POLL, lsn, within};
use crate::service::postgres::Postgres;
use std::time::Duration;
use tandem_core::ids::{Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;
use tokio::time::sleep;
use tokio_postgres::types::ToSql;

// An update where the row is there already: a repetition must write, or there is no position to
// wait for.
const RECORD: &str = "
INSERT INTO tandem.history AS h (term, node, timeline, lsn)
VALUES ($1, $2, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4,
  pg_current_wal_insert_lsn())
ON CONFLICT (term) DO UPDATE SET at = now() WHERE h.node = excluded.node
RETURNING term";

// Where a rule is in force already, since the same primary goes on under a new term, the row is
// seen only once it was confirmed by that.
const PREPARE: &str = "
SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_standby_names') = $1
  THEN 'local' ELSE 'on' END, false)";

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
    /// After a promotion its own commit waits for nobody, while all others are held. Given up, it
    /// leaves a row that proves nothing; the same call again writes anew.
    ///
    /// # Errors
    /// `TermTaken`; `Timeout`.
    pub async fn record_term(
        &self,
        term: Term,
        rule: &CommitRule,
        deadline: Duration,
    ) -> Result<Lsn, Error> {
        within("recording the term", deadline, async {
            let mut session = self.connect().await?;
            let nobody = self.sync_names(&self.rule_of_nobody());
            let names: [&(dyn ToSql + Sync); 1] = [&nobody];
            let prepare = session.client.query_one(PREPARE, &names);
            session.wire.drive(prepare).await.map_err(Error::sql("preparing"))?;
            let number = i64::try_from(term.0).unwrap_or(i64::MAX);
            let node = self.config().me.as_str();
            let values: [&(dyn ToSql + Sync); 2] = [&number, &node];
            let insert = session.client.query_opt(RECORD, &values);
            // Beside the record's own way to the disk, which takes longer.
            let (row, marked) =
                tokio::join!(session.wire.drive(insert), self.next_start_in_recovery());
            marked?;
            let row = row.map_err(Error::sql("recording the term"))?;
            if row.is_none() {
                let sql = format!("SELECT node FROM tandem.history WHERE term = {number}");
                let node = session.one("reading the term", &sql).await?.get(0);
                return Err(Error::TermTaken { term, node });
            }
            let end = "SELECT pg_current_wal_flush_lsn()::text";
            let position = lsn(&session.one("reading the position", end).await?, 0)?;
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
