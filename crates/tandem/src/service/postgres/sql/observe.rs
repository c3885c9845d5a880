//! Talks to the instance several times a second: everything a plan needs to know, in one round
//! trip.
//! In: a deadline. Out: `Observation`.
//! Keeps: H6 and H30 the greatest term in the data; H10 two standbys of one name are reported;
//! H15 received, flushed and replayed are told apart; H29 hung, full and down are told apart.
//! Not here: a fresh connection (`probe_new_connection`), the disk (`probe_disk`).
//! Tested by: `tests/postgres_adapter.rs`, `tests/postgres_lag`.

use super::{Session, lsn, within};
use crate::runtime::clock;
use crate::service::postgres::{Error, Postgres, names};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tandem_core::facts::Replica;
use tandem_core::ids::{NodeId, SystemId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::replication::primary_replica::lag::{Look, ReplayLag};
use tokio_postgres::{Row, Statement, error::SqlState};

/// pg_settings costs a millisecond, and what waits for a restart is not urgent.
const SETTINGS_EVERY: u32 = 20;

const QUERY: &str = "
SELECT r.recovering,
  (SELECT system_identifier FROM pg_control_system()),
  CASE WHEN r.recovering
    THEN greatest(c.timeline_id, m.min_recovery_end_timeline, w.received_tli)
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END,
  c.timeline_id,
  CASE WHEN r.recovering
    THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
    ELSE pg_current_wal_flush_lsn() END::text,
  CASE WHEN r.recovering THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text,
  to_regclass('tandem.history') IS NOT NULL,
  w.status,
  extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time)::float8,
  w.sender_host, w.sender_port, w.received_tli,
  current_setting('synchronous_standby_names'),
  CASE WHEN r.recovering THEN pg_is_wal_replay_paused() ELSE false END,
  CASE WHEN $1 THEN EXISTS (SELECT FROM pg_settings WHERE pending_restart) END,
  (SELECT coalesce(json_agg(json_build_array(application_name, state, flush_lsn::text,
      replay_lsn::text, sync_priority)), '[]')::text FROM pg_stat_replication),
  CASE WHEN r.recovering AND pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()
      AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
        AND wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval'))
    THEN coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8,
      0) END
FROM (SELECT pg_is_in_recovery() AS recovering) r
CROSS JOIN pg_control_checkpoint() c
CROSS JOIN pg_control_recovery() m
LEFT JOIN pg_stat_wal_receiver w ON true";

const TERM: &str = "SELECT coalesce(max(term), 0) FROM tandem.history";

/// One look at a running instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// It is a standby.
    pub in_recovery: bool,
    /// Identity of the data.
    pub system: SystemId,
    /// The timeline that is written or received.
    pub timeline: TimelineId,
    /// The timeline of the last checkpoint: behind `timeline` until a promoted primary has ended
    /// one (H18).
    pub checkpoint_timeline: TimelineId,
    /// End of what is flushed: of the own log, or of the received.
    pub flushed: Lsn,
    /// End of what was replayed; `flushed` on a primary.
    pub replayed: Lsn,
    /// A standby: for how long it has had something whole that it has not replayed; else zero.
    pub replay_delay: Duration,
    /// Greatest term in the data; 0 before the first.
    pub data_term: Term,
    /// The WAL receiver, once it is connected.
    pub receiver: Option<Receiver>,
    /// The standbys that stream from here, by node.
    pub replicas: BTreeMap<NodeId, Replica>,
    /// Nodes under whose name more than one standby is connected (H10).
    pub duplicates: BTreeSet<NodeId>,
    /// `synchronous_standby_names` as this session sees it.
    pub sync_names: String,
    /// Somebody paused the replay.
    pub replay_paused: bool,
    /// A setting waits for a restart.
    pub pending_restart: bool,
}

/// A connected WAL receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver {
    /// In state `streaming`.
    pub streaming: bool,
    /// Age of the last message.
    pub last_message: Duration,
    /// Where it is connected to.
    pub host: String,
    /// Where it is connected to.
    pub port: u16,
    /// The timeline that it receives.
    pub timeline: TimelineId,
}

/// Keeps one connection open and looks at the instance through it. One task owns it; after a
/// `reconfigure` make a new one.
pub struct Observer {
    postgres: Postgres,
    session: Option<(Session, Statement)>,
    pending_restart: bool,
    has_history: bool,
    looks: u32,
    lag: ReplayLag,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("connected", &self.session.is_some()).finish()
    }
}

impl Postgres {
    /// An observer of this instance, not connected yet.
    pub fn observer(&self) -> Observer {
        Observer {
            postgres: self.clone(),
            session: None,
            pending_restart: false,
            has_history: false,
            looks: 0,
            lag: ReplayLag::default(),
        }
    }
}

impl Observer {
    /// Looks at the same server by another configuration.
    pub fn reconfigure(&mut self, postgres: Postgres) {
        self.postgres = postgres;
    }

    /// Looks once; connects first where there is no connection.
    ///
    /// # Errors
    /// `NotRunning`, `Starting`, `ConnectionsUsedUp`, `Timeout`, or `Sql`. After any of them the
    /// next look connects anew.
    pub async fn observe(&mut self, deadline: Duration) -> Result<Observation, Error> {
        // Taken out, so that a look that is cut off by the deadline drops its connection: the rest
        // of an answer must not be taken for the next one.
        let session = self.session.take();
        let look = async {
            let kept = session.is_some();
            match self.look(session).await {
                // That a kept connection ended says nothing of the server: somebody may have ended
                // it.
                Err(Error::NotRunning) if kept => self.look(None).await,
                other => other,
            }
        };
        let (session, observation) = within("observing", deadline, look).await?;
        self.session = Some(session);
        Ok(observation)
    }

    async fn look(
        &mut self,
        session: Option<(Session, Statement)>,
    ) -> Result<((Session, Statement), Observation), Error> {
        let (mut session, statement) = match session {
            Some(session) => session,
            None => {
                let mut session = self.postgres.connect().await?;
                let prepare = session.client.prepare(QUERY);
                let statement =
                    session.wire.drive(prepare).await.map_err(Error::sql("preparing"))?;
                self.looks = 0;
                (session, statement)
            }
        };
        let with_settings = self.looks.is_multiple_of(SETTINGS_EVERY);
        self.looks = self.looks.wrapping_add(1);
        let (row, term) = self.ask(&mut session, &statement, with_settings).await?;
        self.pending_restart = row.get::<_, Option<bool>>(14).unwrap_or(self.pending_restart);
        let mut observation = self.read(&row)?;
        observation.data_term = term;
        observation.replay_delay = self.replay_delay(row.get(16), &observation);
        Ok(((session, statement), observation))
    }

    /// Received may end within a record, for as long as an open transaction writes no more: while
    /// the startup process waits for the rest, there is nothing to replay.
    fn replay_delay(&mut self, last_commit: Option<f64>, seen: &Observation) -> Duration {
        let Some(age) = last_commit else {
            self.lag.note_none();
            return Duration::ZERO;
        };
        let (received, replayed) = (seen.flushed, seen.replayed);
        let age_max = seconds(Some(age));
        self.lag.note(Look { received, replayed, age_max }, clock::now())
    }

    /// Both questions in one round trip, once it is known that the second has an answer.
    async fn ask(
        &mut self,
        session: &mut Session,
        statement: &Statement,
        with_settings: bool,
    ) -> Result<(Row, Term), Error> {
        let client = &session.client;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&with_settings];
        let (row, term) = if self.has_history {
            let both = async {
                Ok(tokio::join!(
                    client.query_one(statement, &parameters),
                    client.simple_query(TERM)
                ))
            };
            let (row, term) = session.wire.drive(both).await.map_err(Error::sql("observing"))?;
            (row.map_err(Error::sql("observing"))?, Some(term))
        } else {
            let row = session.wire.drive(client.query_one(statement, &parameters)).await;
            (row.map_err(Error::sql("observing"))?, None)
        };
        self.has_history = row.get(6);
        let term = match term {
            _ if !self.has_history => return Ok((row, Term(0))),
            Some(term) => term,
            None => session.wire.drive(session.client.simple_query(TERM)).await,
        };
        match term {
            Ok(messages) => Ok((row, read_term(&messages)?)),
            // Dropped between the two, as a clone replaced the data.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok((row, Term(0))),
            Err(error) => Err(Error::sql("reading the term")(error)),
        }
    }

    fn read(&self, row: &Row) -> Result<Observation, Error> {
        let (replicas, duplicates) = self.replicas(row.get(15))?;
        let timeline = |column| TimelineId(u32::try_from(row.get::<_, i32>(column)).unwrap_or(0));
        let receiver = row.get::<_, Option<&str>>(7).map(|status| Receiver {
            streaming: status == "streaming",
            last_message: seconds(row.get(8)),
            host: row.get::<_, Option<String>>(9).unwrap_or_default(),
            port: u16::try_from(row.get::<_, Option<i32>>(10).unwrap_or(0)).unwrap_or(0),
            timeline: TimelineId(
                u32::try_from(row.get::<_, Option<i32>>(11).unwrap_or(0)).unwrap_or(0),
            ),
        });
        Ok(Observation {
            in_recovery: row.get(0),
            system: SystemId(row.get::<_, i64>(1).cast_unsigned()),
            timeline: timeline(2),
            checkpoint_timeline: timeline(3),
            flushed: lsn(row, 4)?,
            replayed: lsn(row, 5)?,
            replay_delay: Duration::ZERO,
            data_term: Term(0),
            receiver,
            replicas,
            duplicates,
            sync_names: row.get(12),
            replay_paused: row.get(13),
            pending_restart: self.pending_restart,
        })
    }

    fn replicas(&self, json: &str) -> Result<(BTreeMap<NodeId, Replica>, BTreeSet<NodeId>), Error> {
        let rows: Vec<ReplicaRow> = serde_json::from_str(json)
            .map_err(|_| Error::Answer { doing: "reading the standbys", answer: json.into() })?;
        let config = self.postgres.config();
        let by_name: BTreeMap<String, &NodeId> = config
            .members
            .iter()
            .map(|node| (names::application(&config.cluster, node), node))
            .collect();
        let (mut replicas, mut duplicates) = (BTreeMap::new(), BTreeSet::new());
        for (name, state, flushed, replayed, _) in rows {
            let Some(node) = by_name.get(&name.to_ascii_lowercase()) else { continue };
            let position =
                |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO);
            let replica = Replica {
                flushed: position(flushed),
                replayed: position(replayed),
                streaming: state.as_deref() == Some("streaming"),
            };
            if let Some(other) = replicas.insert((*node).clone(), replica) {
                // Of two under one name, the one that has less: it must not count for more.
                duplicates.insert((*node).clone());
                let lesser = if other.flushed < replica.flushed { other } else { replica };
                replicas.insert((*node).clone(), lesser);
            }
        }
        Ok((replicas, duplicates))
    }
}

type ReplicaRow = (String, Option<String>, Option<String>, Option<String>, Option<i32>);

fn read_term(messages: &[tokio_postgres::SimpleQueryMessage]) -> Result<Term, Error> {
    messages
        .iter()
        .find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok().map(Term),
            _ => None,
        })
        .ok_or(Error::Answer { doing: "reading the term", answer: String::new() })
}

fn seconds(seconds: Option<f64>) -> Duration {
    Duration::try_from_secs_f64(seconds.unwrap_or(0.0).max(0.0)).unwrap_or(Duration::MAX)
}
