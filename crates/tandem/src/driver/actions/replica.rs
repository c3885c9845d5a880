//! Carries out what a copy does to become a standby and to stay one: promise, found, start, follow,
//! rejoin.
//! In: a term, a primary. Out: `Change`.
//! Keeps: INV-2 a promise is durable before the ballot is told; H15 the ballot comes after the WAL
//! receiver stopped; H5 every start is in recovery.

use super::inspect::adopt_state;
use super::{Change, Context, Error};
use crate::fence::protocol::{Lease, StartSpec, User, WhenOrphaned};
use crate::runtime::clock;
use crate::service::postgres::StartCommand;
use std::ffi::OsString;
use std::time::Duration;
use tandem_core::facts::{Ballot, Data, InstanceFacts, Position, Process, Stream};
use tandem_core::ids::{NodeId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

/// Stopping the WAL receiver and replaying what it brought.
const RECEIVER_STOP: Duration = Duration::from_secs(2);
const FOLLOW: Duration = Duration::from_secs(3);

impl Context {
    pub(super) async fn promise(
        &self,
        term: Term,
        own: &InstanceFacts,
        fence_wait: Option<Timestamp>,
    ) -> Result<Change, Error> {
        let state = self
            .postgres
            .change_state(move |state| state.promised = state.promised.max(term))
            .await?;
        let promised = move |own: &mut InstanceFacts| adopt_state(own, &state);
        if own.process == Process::Stopped && own.data != Data::Present {
            if let Some(until) = fence_wait {
                tokio::time::sleep(until.since(clock::now())).await;
            }
            return Ok(Box::new(move |own| {
                promised(own);
                own.ballot = Some(Ballot { term, position: None, held: None });
            }));
        }
        if own.process != Process::Standby {
            return Ok(Box::new(promised));
        }
        let stopped = self.postgres.stop_receiver(RECEIVER_STOP).await?;
        let seen = self.postgres.observer().observe(RECEIVER_STOP).await?;
        if let Some(until) = fence_wait {
            let wait = until.since(clock::now());
            tokio::time::sleep(wait).await;
        }
        // What can be replayed counts: a confirmed commit is a whole record, and flushed bytes that
        // cannot be read are no copy of anything.
        let position = Position { data_term: seen.data_term, flushed: stopped.replayed };
        Ok(Box::new(move |own| {
            promised(own);
            own.upstream = None;
            own.stream = Stream::None;
            own.flushed = position.flushed;
            own.data_term = position.data_term;
            own.ballot = Some(Ballot { term, position: Some(position), held: None });
        }))
    }

    pub(super) async fn found(&self, own: &InstanceFacts) -> Result<Change, Error> {
        if own.data == Data::Foreign {
            let warnings = self.postgres.adopt().await?;
            tracing::info!(service = %self.service, "the data was adopted");
            for warning in warnings {
                tracing::warn!(service = %self.service, %warning, "of the data that was adopted");
            }
        } else {
            self.postgres.found().await?;
        }
        let mut own = InstanceFacts::default();
        self.inspect(&mut own).await;
        Ok(Box::new(move |facts| {
            facts.data = own.data;
            facts.system = own.system;
            facts.timeline = own.timeline;
            facts.flushed = own.flushed;
            facts.stopped_cleanly = own.stopped_cleanly;
            facts.was_primary = own.was_primary;
        }))
    }

    pub(super) async fn start(
        &self,
        upstream: Option<(NodeId, Term)>,
        timeline: Option<TimelineId>,
    ) -> Result<Change, Error> {
        // Recovery on a full disk ends before anybody can look at it (H27).
        match self.postgres.make_room_to_start().await {
            Ok(true) => tracing::warn!(service = %self.service, "full: the ballast is given up"),
            Ok(false) => {}
            Err(error) => tracing::warn!(service = %self.service, %error, "room is not known"),
        }
        let followed = upstream.clone();
        let state = self
            .postgres
            .change_state(move |state| {
                if let Some((_, term)) = followed {
                    state.follow(term, timeline);
                }
            })
            .await?;
        let command = self.postgres.prepare_start(upstream.as_ref().map(|(node, _)| node)).await?;
        self.stopped.send_replace(false);
        self.keeper.start(start_spec(command)).await?;
        Ok(Box::new(move |own| {
            adopt_state(own, &state);
            own.process = Process::Starting;
            own.upstream = upstream;
            own.ballot = None;
            own.stopped_cleanly = false;
        }))
    }

    pub(super) async fn follow(
        &self,
        (primary, term): (NodeId, Term),
        timeline: Option<TimelineId>,
    ) -> Result<Change, Error> {
        let state = self.postgres.change_state(move |state| state.follow(term, timeline)).await?;
        self.postgres.follow(&primary, FOLLOW).await?;
        Ok(Box::new(move |own| {
            adopt_state(own, &state);
            own.upstream = Some((primary, term));
            own.ballot = None;
        }))
    }

    pub(super) async fn stop_to_rejoin(&self) -> Result<Change, Error> {
        self.stop().await?;
        Ok(Box::new(|own| own.rejoin_failures += 1))
    }

    pub(super) async fn rewind(
        &self,
        from: &NodeId,
        served: (Term, TimelineId),
        cancel: CancellationToken,
    ) -> Result<Change, Error> {
        let rewind = self.postgres.rewind_from(from, cancel).await?;
        tracing::info!(service = %self.service, %from, ?rewind, "pg_rewind ended");
        self.copied(served).await
    }

    pub(super) async fn clone_from(
        &self,
        from: &NodeId,
        served: (Term, TimelineId),
        cancel: CancellationToken,
    ) -> Result<Change, Error> {
        self.postgres.clone_from(from, self.progress.clone(), cancel).await?;
        self.copied(served).await
    }

    /// The data is a part of the primary's log now.
    pub(super) async fn copied(
        &self,
        (term, timeline): (Term, TimelineId),
    ) -> Result<Change, Error> {
        let state = self
            .postgres
            .change_state(move |state| {
                state.was_primary = false;
                state.followed = state.followed.max(term);
                state.followed_timeline = timeline;
            })
            .await?;
        let mut fresh = InstanceFacts::default();
        self.inspect(&mut fresh).await;
        Ok(Box::new(move |own| {
            adopt_state(own, &state);
            own.data = fresh.data;
            own.system = fresh.system;
            own.timeline = fresh.timeline;
            own.forks = fresh.forks;
            own.data_term = Term(0);
            // Where it starts from is not known before it starts; nothing of its own is left.
            own.flushed = Lsn::ZERO;
        }))
    }

    pub(super) async fn quarantine(&self, reason: String) -> Result<Change, Error> {
        let why = reason.clone();
        self.postgres.change_state(move |state| state.quarantined = Some(why)).await?;
        Ok(Box::new(move |own| own.data = Data::Quarantined { reason }))
    }
}

fn start_spec(command: StartCommand) -> StartSpec {
    let text = |part: OsString| part.to_string_lossy().into_owned();
    StartSpec {
        argv: command.argv.into_iter().map(text).collect(),
        env: command.env.into_iter().map(|(name, value)| (text(name), text(value))).collect(),
        cwd: command.cwd,
        user: command.run_as.map(|user| User { uid: user.uid, gid: user.gid, groups: Vec::new() }),
        log_file: command.log_file,
        when_orphaned: WhenOrphaned::Quit,
        // A database is the last thing to be killed for memory.
        oom_score_adj: -900,
        lease: Lease::Unlimited,
        limits: std::collections::BTreeMap::new(),
    }
}
