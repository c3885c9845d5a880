//! Decides which acknowledged writes are missing and which are there twice, and reads the table.
//! In: `History`, the rows of the final primary. Out: `Balance`.
//! The table has no unique key on purpose: with one, a write carried out twice would show as an
//! error of the second time, and the copy would stay hidden.
//! Keeps: INV-11, checked. Tested by: below, with crafted histories, and against PostgreSQL.

use super::history::{History, Outcome};
use super::session::Session;
use std::collections::BTreeMap;

/// Makes the tables; again does nothing.
pub const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS drill_ledger (
        run text NOT NULL, writer int NOT NULL, seq bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE INDEX IF NOT EXISTS drill_ledger_run ON drill_ledger (run);
    CREATE TABLE IF NOT EXISTS drill_canary (
        run text NOT NULL, node text NOT NULL, n bigint NOT NULL);
    CREATE INDEX IF NOT EXISTS drill_canary_run ON drill_canary (run);";
/// One write.
pub const INSERT: &str = "INSERT INTO drill_ledger (run, writer, seq) VALUES ($1, $2, $3)";
const ROWS: &str =
    "SELECT writer, seq, count(*) FROM drill_ledger WHERE run = $1 GROUP BY writer, seq";
const CANARY_ROWS: &str =
    "SELECT node, n, count(*) FROM drill_canary WHERE run = $1 GROUP BY node, n";

/// How often each write is in the table, by writer and number.
pub type Rows = BTreeMap<(usize, i64), i64>;

/// How often each of the canary's writes is in the table, by node and number.
pub type CanaryRows = BTreeMap<(String, i64), i64>;

/// How many copies there are of canary writes that were sent once.
pub fn canary_duplicated(rows: &CanaryRows) -> u64 {
    rows.values().map(|times| times.saturating_sub(1).max(0).cast_unsigned()).sum()
}

/// What became of the writes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Acknowledged to a client.
    pub acked: u64,
    /// Acknowledged and missing.
    pub lost: u64,
    /// There more often than they were sent.
    pub duplicated: u64,
    /// Of unknown outcome, and there.
    pub unknown_present: u64,
    /// Of unknown outcome, and not there.
    pub unknown_absent: u64,
    /// There, although the client was told that they certainly are not, or never sent.
    pub phantoms: u64,
}

/// Compares what clients saw with what is there.
pub fn balance(history: &History, rows: &Rows) -> Balance {
    let mut balance = Balance::default();
    let mut sent = 0;
    for (writer, attempt) in history.attempts() {
        let times = rows.get(&(writer, attempt.seq)).copied().unwrap_or(0);
        sent += u64::from(times > 0);
        balance.duplicated += times.saturating_sub(1).max(0).cast_unsigned();
        match (attempt.outcome, times > 0) {
            (Outcome::Acked, true) => balance.acked += 1,
            (Outcome::Acked, false) => {
                balance.acked += 1;
                balance.lost += 1;
            }
            (Outcome::Unknown | Outcome::Pending, true) => balance.unknown_present += 1,
            (Outcome::Unknown | Outcome::Pending, false) => balance.unknown_absent += 1,
            (Outcome::Refused, true) => balance.phantoms += 1,
            (Outcome::Refused, false) => {}
        }
    }
    balance.phantoms += rows.len() as u64 - sent;
    balance
}

/// Reads the rows of a run.
pub async fn rows(session: &Session, run: &str) -> Result<Rows, tokio_postgres::Error> {
    let rows = session.client().query(ROWS, &[&run]).await?;
    rows.iter()
        .map(|row| {
            let writer: i32 = row.try_get(0)?;
            Ok(((usize::try_from(writer).unwrap_or(usize::MAX), row.try_get(1)?), row.try_get(2)?))
        })
        .collect()
}

/// Reads the canary's rows of a run.
pub async fn canary_rows(
    session: &Session,
    run: &str,
) -> Result<CanaryRows, tokio_postgres::Error> {
    let rows = session.client().query(CANARY_ROWS, &[&run]).await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::history::tests::attempt;
    use super::*;

    fn history() -> History {
        let writers = vec![
            vec![
                attempt(1, 0, 1, Outcome::Acked),
                attempt(2, 1, 2, Outcome::Unknown),
                attempt(3, 2, 3, Outcome::Unknown),
                attempt(4, 3, 4, Outcome::Refused),
            ],
            vec![attempt(1, 0, 1, Outcome::Acked), attempt(2, 2, 2, Outcome::Pending)],
        ];
        History { writers, ..History::default() }
    }

    #[test]
    fn a_clean_run() {
        let rows = Rows::from([((0, 1), 1), ((0, 2), 1), ((1, 1), 1)]);
        let expected =
            Balance { acked: 2, unknown_present: 1, unknown_absent: 2, ..Balance::default() };
        assert_eq!(balance(&history(), &rows), expected);
    }

    #[test]
    fn a_missing_acknowledged_write_is_lost() {
        let rows = Rows::from([((0, 1), 1), ((1, 2), 1)]);
        let balance = balance(&history(), &rows);
        assert_eq!((balance.acked, balance.lost), (2, 1));
        assert_eq!((balance.unknown_present, balance.unknown_absent), (1, 2));
    }

    #[test]
    fn a_write_that_is_there_twice_is_duplicated_whatever_its_outcome() {
        let rows = Rows::from([((0, 1), 3), ((0, 2), 2), ((1, 1), 1)]);
        let balance = balance(&history(), &rows);
        assert_eq!((balance.lost, balance.duplicated), (0, 3));
    }

    #[test]
    fn a_canary_that_sang_twice_is_heard() {
        let rows = CanaryRows::from([(("a".into(), 1), 1), (("a".into(), 2), 3)]);
        assert_eq!(canary_duplicated(&rows), 2);
    }

    #[test]
    fn a_row_that_should_not_be_there_is_a_phantom() {
        let rows = Rows::from([((0, 1), 1), ((1, 1), 1), ((0, 4), 1), ((7, 7), 1)]);
        assert_eq!(balance(&history(), &rows).phantoms, 2);
    }
}
