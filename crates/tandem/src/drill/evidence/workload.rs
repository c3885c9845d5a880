//! Talks to the front doors as an application: concurrent writers that note what they were told.
//! In: doors, a login. Out: `History`.
//! A write whose outcome is unknown is never sent again: a client that does so makes duplicates of
//! its own. Each number is used once.
//! Not here: how it is noted (`attempts.rs`), what the history says (`history.rs`), whether the
//! rows are there (`ledger.rs`).
//! Tested by: below, against PostgreSQL; `steps.rs`.

use super::attempts::{Log, Pen};
use super::history::{History, Outcome};
use super::ledger::INSERT;
use super::session::{Login, Session};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::time::Timestamp;
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

/// How long a writer waits for the answer to one statement before it gives the session up and
/// takes the outcome as unknown. Longer than any budget of DESIGN except a hung instance's (5 s),
/// so a client that a failover leaves alone resumes; short enough that a forgotten session shows.
pub const STATEMENT_MAX: Duration = Duration::from_secs(3);
/// Before the doors are tried from the beginning.
const DOORS_CLOSED: Duration = Duration::from_millis(20);
/// A writer ends its last statement before it stops.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What kind of load.
#[derive(Clone, Debug)]
pub struct Load {
    /// Concurrent writers.
    pub writers: usize,
    /// Between the end of a write and the next of the same writer. Not zero: a machine that is busy
    /// with the load itself would measure the load, not the failover.
    pub pace: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self { writers: 8, pace: Duration::from_millis(5) }
    }
}

/// Running writers.
#[derive(Debug)]
pub struct Workload {
    log: Arc<Log>,
    tasks: Supervisor,
}

impl Workload {
    /// Starts the writers, each at another door.
    pub fn start(load: &Load, doors: &[SocketAddr], login: &Login, run: &str) -> Self {
        let log = Log::new(load.writers);
        let tasks = Supervisor::new();
        for number in 0..load.writers {
            let writer = Writer {
                pen: Pen::new(&log, number, tasks.stopping()),
                run: run.into(),
                doors: doors.into(),
                pace: load.pace,
                login: login.clone(),
                seq: 0,
            };
            tasks.spawn("drill writer", TaskKind::Session, writer.write());
        }
        Self { log, tasks }
    }

    /// How many writes were acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.log.acked()
    }

    /// When the last one was.
    pub fn last_acked(&self) -> Timestamp {
        self.log.last_acked()
    }

    /// Ends the writers, and hands over what they saw.
    pub async fn stop(self) -> History {
        if !self.tasks.stop(STOP_MAX).await {
            tracing::warn!(
                "a writer of the drill is still waiting; its last write counts as unknown"
            );
        }
        self.log.history()
    }
}

impl Drop for Workload {
    /// A run that is given up ends its load too.
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

struct Writer {
    pen: Pen,
    run: String,
    doors: Vec<SocketAddr>,
    pace: Duration,
    login: Login,
    seq: i64,
}

impl Writer {
    async fn write(mut self) {
        let mut failed = 0;
        let mut door = self.pen.number;
        while !self.pen.is_stopped() {
            match self.open(door).await {
                Some((session, statement)) => {
                    failed = 0;
                    self.use_up(&session, &statement).await;
                }
                None => {
                    failed += 1;
                    if failed % self.doors.len().max(1) == 0 {
                        self.pen.closed_doors();
                        self.pen.pause(DOORS_CLOSED).await;
                    }
                }
            }
            door += 1;
        }
    }

    async fn open(&self, door: usize) -> Option<(Session, Statement)> {
        let address = self.doors.get(door % self.doors.len().max(1))?;
        let session = self.login.connect(*address).await?;
        let prepared = session.client().prepare(INSERT);
        let statement = tokio::time::timeout(STATEMENT_MAX, prepared).await.ok()?.ok()?;
        Some((session, statement))
    }

    /// Writes until the session is of no more use.
    async fn use_up(&mut self, session: &Session, statement: &Statement) {
        while !self.pen.is_stopped() {
            self.seq += 1;
            let number = i32::try_from(self.pen.number).unwrap_or(i32::MAX);
            let row: [&(dyn ToSql + Sync); 3] = [&self.run, &number, &self.seq];
            self.pen.sent(self.seq);
            if session.client().is_closed() {
                // Cut while idle: an error for the application, but nothing was sent.
                self.pen.ended(Outcome::Refused);
                return;
            }
            let executed = session.client().execute(statement, &row);
            let (outcome, usable) = match tokio::time::timeout(STATEMENT_MAX, executed).await {
                Ok(Ok(_)) => (Outcome::Acked, true),
                Ok(Err(error)) => (verdict(&error), !error.is_closed()),
                Err(_) => (Outcome::Unknown, false),
            };
            self.pen.ended(outcome);
            // After an unknown outcome, or on a server that takes no writes, another door is
            // better.
            if !usable || outcome != Outcome::Acked {
                return;
            }
            self.pen.pause(self.pace).await;
        }
    }
}

/// What a failed statement means. Only codes that PostgreSQL sends before it could commit, and the
/// front door for what it certainly rolled back, count as refused. An administrator's shutdown, a
/// crash of another session (57P01, 57P02) and a cancel (57014) can hit a commit that is done here
/// and waits for its standbys (H11): unknown.
fn verdict(error: &tokio_postgres::Error) -> Outcome {
    let Some(code) = error.code() else { return Outcome::Unknown };
    let certain = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::DISK_FULL,
        SqlState::OUT_OF_MEMORY,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::UNDEFINED_TABLE,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    if certain.contains(code) { Outcome::Refused } else { Outcome::Unknown }
}

#[cfg(test)]
mod tests {
    use super::super::ledger;
    use super::*;
    use crate::drill::testing::{Postgres, until};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_writers_were_told_is_what_is_there() {
        let mut postgres = Postgres::start();
        let tasks = Supervisor::new();
        let login = Login::new(Postgres::PASSWORD, tasks.clone());
        let session = login.connect(postgres.address()).await.unwrap();
        session.client().batch_execute(ledger::TABLES).await.unwrap();
        // The first door is closed: writers have to go on to the next.
        let doors = ["127.0.0.1:1".parse().unwrap(), postgres.address()];
        let load = Load { writers: 4, pace: Duration::from_millis(1) };
        let workload = Workload::start(&load, &doors, &login, "r1");
        until("writes flow", || workload.acked() > 200).await;
        postgres.kill();
        let acked = workload.acked();
        postgres.run();
        until("writes flow again", || workload.acked() > acked + 100).await;
        assert!(workload.last_acked() > Timestamp(0));
        let history = workload.stop().await;

        let session = login.connect(postgres.address()).await.unwrap();
        let mut rows = ledger::rows(&session, "r1").await.unwrap();
        let balance = ledger::balance(&history, &rows);
        assert_eq!(balance.acked, history.count(Outcome::Acked));
        assert_eq!((balance.lost, balance.duplicated, balance.phantoms), (0, 0, 0));
        assert!(history.closed_doors.iter().sum::<u64>() > 0, "both doors were closed for a while");

        let delete = "DELETE FROM drill_ledger WHERE ctid = (SELECT min(ctid) FROM drill_ledger)";
        session.client().execute(delete, &[]).await.unwrap();
        let again = "INSERT INTO drill_ledger SELECT * FROM drill_ledger WHERE seq = 20";
        let copies = session.client().execute(again, &[]).await.unwrap();
        rows = ledger::rows(&session, "r1").await.unwrap();
        let balance = ledger::balance(&history, &rows);
        assert_eq!((balance.lost, balance.duplicated), (1, copies), "what was tampered with shows");
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }
}
