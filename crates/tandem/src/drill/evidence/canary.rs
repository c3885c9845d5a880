//! Talks to every instance directly, past all doors, as a client on that node would.
//! In: addresses. Out: `CanaryWrite`s, for `overlap.rs` and the ledger check.
//! Writes every 50 ms, as in published measurements of other products. A standby is only asked
//! whether it still is one: refused writes would fill its log. The session is kept, so a promotion
//! is noticed at the next beat.
//! Tested by: below, against PostgreSQL.

use super::overlap::CanaryWrite;
use super::session::{Login, Session};
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tandem_core::ids::{NodeId, TimelineId};
use tokio_postgres::Statement;
use tokio_util::sync::CancellationToken;

const BEAT: Duration = Duration::from_millis(50);
const STATEMENT_MAX: Duration = Duration::from_secs(3);
const STOP_MAX: Duration = Duration::from_secs(10);
/// The first eight digits of a WAL file's name are the timeline that is being written.
const INSERT: &str = "INSERT INTO drill_canary (run, node, n) VALUES ($1, $2, $3) \
     RETURNING left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)";

/// A running canary.
#[derive(Debug)]
pub struct Canary {
    writes: Arc<Mutex<Vec<CanaryWrite>>>,
    tasks: Supervisor,
}

impl Canary {
    /// Starts it on every instance.
    pub fn start(instances: &[(NodeId, SocketAddr)], login: &Login, run: &str) -> Self {
        let (writes, tasks) = (Arc::new(Mutex::default()), Supervisor::new());
        for (node, address) in instances {
            let perch = Perch {
                node: node.clone(),
                address: *address,
                run: run.into(),
                login: login.clone(),
                writes: Arc::clone(&writes),
                stop: tasks.stopping(),
                n: 0,
            };
            tasks.spawn("drill canary", TaskKind::Session, perch.sing());
        }
        Self { writes, tasks }
    }

    /// How many writes were acknowledged so far, on any node.
    pub fn acked(&self) -> u64 {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Ends it, and hands over what was acknowledged.
    pub async fn stop(self) -> Vec<CanaryWrite> {
        self.tasks.stop(STOP_MAX).await;
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Canary {
    /// A run that is given up ends its load too.
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

struct Perch {
    node: NodeId,
    address: SocketAddr,
    run: String,
    login: Login,
    writes: Arc<Mutex<Vec<CanaryWrite>>>,
    stop: CancellationToken,
    n: i64,
}

/// A session on an instance.
struct Place {
    session: Session,
    insert: Statement,
    probe: Statement,
    /// It was no standby when last asked.
    writable: bool,
}

impl Perch {
    async fn sing(mut self) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut place: Option<Place> = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = beat.tick() => {}
            }
            if place.is_none() {
                place = self.open().await;
            }
            if let Some(open) = &mut place
                && !self.beat(open).await
            {
                place = None;
            }
        }
    }

    async fn open(&self) -> Option<Place> {
        let session = self.login.connect(self.address).await?;
        // Fails while a standby has not replayed the table yet; then the next beat tries again.
        let prepared = session.client().prepare(INSERT);
        let insert = tokio::time::timeout(STATEMENT_MAX, prepared).await.ok()?.ok()?;
        let prepared = session.client().prepare("SELECT pg_is_in_recovery()");
        let probe = tokio::time::timeout(STATEMENT_MAX, prepared).await.ok()?.ok()?;
        Some(Place { session, insert, probe, writable: false })
    }

    /// False when the session is of no more use.
    async fn beat(&mut self, place: &mut Place) -> bool {
        if !place.writable {
            let query = place.session.client().query_one(&place.probe, &[]);
            let Ok(Ok(row)) = tokio::time::timeout(STATEMENT_MAX, query).await else {
                return false;
            };
            place.writable = row.try_get(0).is_ok_and(|in_recovery: bool| !in_recovery);
        }
        // After a failure of any kind the session begins anew, and asks again.
        !place.writable || self.write(&place.session, &place.insert).await
    }

    async fn write(&mut self, session: &Session, statement: &Statement) -> bool {
        self.n += 1;
        let node = self.node.as_str();
        let sent = clock::now();
        let row: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&self.run, &node, &self.n];
        let query = session.client().query_one(statement, &row);
        let Ok(answer) = tokio::time::timeout(STATEMENT_MAX, query).await else { return false };
        let acked = clock::now();
        let Ok(row) = answer else { return false };
        let timeline = row.try_get::<_, &str>(0).ok().and_then(|t| u32::from_str_radix(t, 16).ok());
        let Some(timeline) = timeline.map(TimelineId) else { return false };
        let write = CanaryWrite { node: self.node.clone(), n: self.n, sent, acked, timeline };
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).push(write);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ledger, overlap};
    use super::*;
    use crate::drill::testing::{Postgres, until};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_nodes_that_take_writes_are_found_out() {
        let postgres = Postgres::start();
        let tasks = Supervisor::new();
        let login = Login::new(Postgres::PASSWORD, tasks.clone());
        let session = login.connect(postgres.address()).await.unwrap();
        session.client().batch_execute(ledger::TABLES).await.unwrap();
        // One server under two names is what two primaries look like.
        let nodes = [
            (NodeId::new("a"), postgres.address()),
            (NodeId::new("b"), postgres.address()),
            (NodeId::new("c"), "127.0.0.1:1".parse().unwrap()),
        ];
        let canary = Canary::start(&nodes, &login, "r");
        let writes = Arc::clone(&canary.writes);
        until("the canary sings", || writes.lock().unwrap().len() > 10).await;
        let writes = canary.stop().await;
        assert!(writes.iter().all(|write| write.timeline == TimelineId(1)));
        assert!(overlap::dual_primary_instants(&writes) > 0);
        let alone: Vec<_> = writes.iter().filter(|w| w.node.as_str() == "a").cloned().collect();
        assert_eq!(overlap::dual_primary_instants(&alone), 0);
        let rows = ledger::canary_rows(&session, "r").await.unwrap();
        assert!(alone.iter().all(|write| rows.contains_key(&("a".into(), write.n))));
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }
}
