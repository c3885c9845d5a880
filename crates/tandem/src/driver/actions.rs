//! Carries out one action on the own copy, step by step.
//! In: `Action`. Out: `Change`, what is different afterwards; or why it failed, for the log.
//! Keeps: INV-2 what must be durable is written before what follows from it; INV-6 every action may
//! be cut after any step and planned again; H5 every start is in recovery; H42 the lease is armed
//! before a promotion.
//! Not here: when to do what (the core), retries (the next plan).

use crate::fence::client::{self, Keeper, KeeperEvent};
use crate::fence::protocol::{Lease, Signal, StartSpec, User, WhenOrphaned};
use crate::runtime::clock;
use crate::runtime::supervisor::Supervisor;
use crate::service::postgres::{self, Postgres, RuleState, StartCommand, StateFile};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tandem_core::clustering::active_passive::Action;
use tandem_core::facts::{Ballot, Data, Fork, InstanceFacts, Position, Process, Stream};
use tandem_core::ids::{NodeId, ServiceId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;
use tandem_core::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Stopping the WAL receiver and replaying what it brought.
const RECEIVER_STOP: Duration = Duration::from_secs(2);
const PROMOTION: Duration = Duration::from_secs(10);
/// The barrier may wait for a standby that is only being copied.
const BARRIER: Duration = Duration::from_secs(3600);
const FOLLOW: Duration = Duration::from_secs(3);
const ROLES: Duration = Duration::from_secs(10);
const RULE: Duration = Duration::from_secs(2);
const CHECKPOINT: Duration = Duration::from_secs(300);
/// Telling sessions to end; the stop ends them too.
const SESSIONS: Duration = Duration::from_secs(1);
/// Stages of a stop: fast, then immediate, then killed (H38).
const STOP_FAST: Duration = Duration::from_secs(4);
const STOP_IMMEDIATE: Duration = Duration::from_secs(2);

/// What is different after an action.
pub type Change = Box<dyn FnOnce(&mut InstanceFacts) + Send>;

/// What an action may rely on.
#[derive(Clone, Debug)]
pub struct Given {
    /// The own copy as it was when the action was planned.
    pub own: InstanceFacts,
    /// Until when a primary may serve by what is proven now.
    pub lease: Option<Timestamp>,
    /// Before this moment a ballot does not count (`Async`).
    pub fence_wait: Option<Timestamp>,
    /// Ends the action where it can be ended.
    pub cancel: CancellationToken,
}

/// Why an action did not succeed, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub text: String,
    /// Whether the same may succeed later without anybody's doing.
    pub passes: bool,
}

/// What actions need.
#[derive(Clone, Debug)]
pub struct Context {
    /// Of which service.
    pub service: ServiceId,
    /// This node.
    pub me: NodeId,
    /// The adapter.
    pub postgres: Postgres,
    /// The parent of the server.
    pub keeper: Keeper,
    /// Where the keeper listens.
    pub run_dir: PathBuf,
    /// The program that is also the keeper.
    pub exe: PathBuf,
    /// Whether no process of the instance is left.
    pub stopped: watch::Sender<bool>,
    /// The rule that was in force when the server left recovery.
    pub promoted_under: Arc<Mutex<Option<CommitRule>>>,
    /// The history of the timeline that was looked up last.
    pub history: Arc<Mutex<(TimelineId, Vec<Fork>)>>,
    /// Percent of the copy that is running.
    pub progress: watch::Sender<Option<u8>>,
}

/// An action that did not succeed; the next plan decides what follows.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    #[error(transparent)]
    Keeper(#[from] client::Error),
    #[error("no lease is proven, so nothing is promoted")]
    NoLease,
    #[error("the rule is not proven yet: {0}")]
    RuleUnproven(String),
    #[error("it does not stop, though killed")]
    DoesNotStop,
}

/// The facts that are kept in the durable state.
pub fn adopt_state(own: &mut InstanceFacts, state: &StateFile) {
    own.promised = state.promised;
    own.promoted = state.promoted;
    own.followed = state.followed;
    own.timeline_term = state.timeline_term;
    own.was_primary = state.was_primary;
}

impl Context {
    /// A new keeper after the old one was killed.
    ///
    /// # Errors
    /// As the keeper's client.
    pub async fn reattach(
        &self,
        supervisor: &Supervisor,
    ) -> Result<(Keeper, mpsc::Receiver<KeeperEvent>), client::Error> {
        Keeper::attach_or_spawn(&self.run_dir, &self.exe, supervisor).await
    }

    /// Fills in what a stopped instance's files say.
    pub async fn inspect(&self, own: &mut InstanceFacts) {
        // A state that cannot be read is told by what it makes of the data.
        if let Ok(state) = self.postgres.load_state().await {
            adopt_state(own, &state);
        }
        own.data = match self.postgres.data().await {
            Ok(data) => data,
            Err(error) => Data::Quarantined { reason: error.to_string() },
        };
        if !matches!(own.data, Data::Present | Data::Foreign) {
            return;
        }
        match self.postgres.inspect_stopped().await {
            Ok(stopped) => {
                own.system = Some(stopped.system);
                if own.data == Data::Foreign {
                    own.was_primary = stopped.state.was_primary();
                }
                own.timeline = own.timeline.max(stopped.timeline);
                if own.was_primary {
                    // pg_control learns of a promotion with the next checkpoint only (H6).
                    let newest = self.postgres.newest_timeline().await.ok().flatten();
                    own.timeline = own.timeline.max(newest.unwrap_or_default());
                }
                own.stopped_cleanly = stopped.state.is_clean();
                // A standby's control file may lag behind what it had flushed.
                let end = stopped.end;
                own.flushed = if own.was_primary { end } else { own.flushed.max(end) };
                self.history(own).await;
            }
            Err(error) => {
                tracing::warn!(service = %self.service, %error, "cannot inspect the data")
            }
        }
    }

    /// Fills in where the ancestors of the own timeline ended.
    pub async fn history(&self, own: &mut InstanceFacts) {
        let cached = self.history.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if cached.0 == own.timeline {
            own.forks = cached.1;
            return;
        }
        // A standby may know a timeline before it has fetched its history.
        if let Ok(forks) = self.postgres.forks(own.timeline).await {
            own.forks.clone_from(&forks);
            let mut cached = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            *cached = (own.timeline, forks);
        }
    }

    /// Does it.
    pub async fn execute(self, action: Action, given: Given) -> Result<Change, Failure> {
        let Given { own, lease, fence_wait, cancel } = given;
        let result = match action {
            Action::Promise { term } => self.promise(term, &own, fence_wait).await,
            Action::Found => self.found(&own).await,
            Action::Start { upstream } => self.start(upstream).await,
            Action::Follow { primary, term } => self.follow(primary, term).await,
            Action::Promote { term, rule } => self.promote(term, rule, lease).await,
            Action::Reaffirm { term } => self.reaffirm(term).await,
            Action::RecordTerm { term, rule } => self.record_term(term, rule, &own).await,
            Action::ApplyRule { rule } => self.apply_rule(rule).await,
            Action::Checkpoint => self.checkpoint().await,
            Action::StopForSwitchover { to } => self.stop_for_switchover(&to).await,
            Action::StopToRejoin => self.stop_to_rejoin().await,
            Action::Rewind { from, term } => self.rewind(&from, term, cancel).await,
            Action::Clone { from, term } => self.clone_from(&from, term, cancel).await,
            Action::Quarantine { reason } => self.quarantine(reason).await,
            Action::Fence => self.kill().await,
        };
        result.map_err(|error| {
            let passes = match &error {
                Error::Postgres(error) => error.may_pass_by_itself(),
                Error::NoLease | Error::RuleUnproven(_) | Error::Keeper(_) => true,
                Error::DoesNotStop => false,
            };
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(next) = cause {
                text = format!("{text}: {next}");
                cause = next.source();
            }
            Failure { text, passes }
        })
    }

    async fn promise(
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
                own.ballot = Some(Ballot { term, position: None });
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
        let position = Position { data_term: seen.data_term, flushed: stopped.flushed };
        Ok(Box::new(move |own| {
            promised(own);
            own.upstream = None;
            own.stream = Stream::None;
            own.flushed = position.flushed;
            own.data_term = position.data_term;
            own.ballot = Some(Ballot { term, position: Some(position) });
        }))
    }

    async fn found(&self, own: &InstanceFacts) -> Result<Change, Error> {
        if own.data == Data::Foreign {
            for warning in self.postgres.adopt().await? {
                tracing::warn!(service = %self.service, %warning, "the data was adopted");
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

    async fn start(&self, upstream: Option<(NodeId, Term)>) -> Result<Change, Error> {
        let followed = upstream.clone();
        let state = self
            .postgres
            .change_state(move |state| {
                if let Some((_, term)) = followed {
                    state.promised = state.promised.max(term);
                    state.followed = state.followed.max(term);
                    state.was_primary = false;
                }
            })
            .await?;
        let command =
            self.postgres.prepare_start(upstream.as_ref().map(|(node, _)| node), None).await?;
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

    async fn follow(&self, primary: NodeId, term: Term) -> Result<Change, Error> {
        let state = self
            .postgres
            .change_state(move |state| {
                state.promised = state.promised.max(term);
                state.followed = state.followed.max(term);
                state.was_primary = false;
            })
            .await?;
        self.postgres.follow(&primary, FOLLOW).await?;
        Ok(Box::new(move |own| {
            adopt_state(own, &state);
            own.upstream = Some((primary, term));
            own.ballot = None;
        }))
    }

    async fn promote(
        &self,
        term: Term,
        rule: CommitRule,
        lease: Option<Timestamp>,
    ) -> Result<Change, Error> {
        let until = lease.filter(|until| *until > clock::now()).ok_or(Error::NoLease)?;
        let state = self
            .postgres
            .change_state(move |state| {
                state.promised = state.promised.max(term);
                state.promoted = term;
                state.timeline_term = term;
                state.was_primary = true;
            })
            .await?;
        self.keeper.limit(until).await?;
        if let RuleState::Pending { why } = self.postgres.write_rule(&rule, RULE).await? {
            return Err(Error::RuleUnproven(why.to_string()));
        }
        self.postgres.promote(PROMOTION).await?;
        *self.promoted_under.lock().unwrap_or_else(PoisonError::into_inner) = Some(rule);
        Ok(Box::new(move |own| {
            adopt_state(own, &state);
            own.process = Process::Primary;
            own.upstream = None;
            own.stream = Stream::None;
            own.ballot = None;
            own.serving = None;
            own.rule = None;
            own.checkpointed = false;
        }))
    }

    async fn reaffirm(&self, term: Term) -> Result<Change, Error> {
        let state = self
            .postgres
            .change_state(move |state| {
                state.promised = state.promised.max(term);
                state.promoted = term;
            })
            .await?;
        Ok(Box::new(move |own| {
            adopt_state(own, &state);
            own.serving = None;
        }))
    }

    async fn record_term(
        &self,
        term: Term,
        wanted: CommitRule,
        own: &InstanceFacts,
    ) -> Result<Change, Error> {
        if own.data_term == Term(0) {
            self.postgres.ensure_roles(ROLES).await?;
        }
        // Before the promotion nothing was listed as synchronous, so what confirms the barrier
        // obeys the rule that the promotion brought (H8, H9).
        let under = {
            let mut under = self.promoted_under.lock().unwrap_or_else(PoisonError::into_inner);
            // Once another rule was written, the promotion's own is in force no longer.
            under.take_if(|rule| *rule != wanted);
            under.clone()
        };
        let rule = match under.or_else(|| own.rule.clone()).filter(|rule| *rule == wanted) {
            Some(rule) => rule,
            None => self.prove(wanted).await?,
        };
        self.postgres.record_term(term, &rule, BARRIER).await?;
        Ok(Box::new(move |own| {
            own.serving = Some(term);
            own.data_term = own.data_term.max(term);
            own.rule = Some(rule);
        }))
    }

    async fn apply_rule(&self, rule: CommitRule) -> Result<Change, Error> {
        *self.promoted_under.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let rule = self.prove(rule).await?;
        Ok(Box::new(move |own| own.rule = Some(rule)))
    }

    async fn prove(&self, rule: CommitRule) -> Result<CommitRule, Error> {
        match self.postgres.apply_rule(&rule, RULE).await? {
            RuleState::Proven => Ok(rule),
            RuleState::Pending { why } => Err(Error::RuleUnproven(why.to_string())),
        }
    }

    async fn checkpoint(&self) -> Result<Change, Error> {
        self.postgres.checkpoint(CHECKPOINT).await?;
        Ok(Box::new(|own| own.checkpointed = true))
    }

    async fn stop_for_switchover(&self, next: &NodeId) -> Result<Change, Error> {
        // Now rather than while nobody can write. Where the disk is full it fails, and the stop may
        // not be clean: then the others elect (H27).
        if let Err(error) = self.postgres.checkpoint(CHECKPOINT).await {
            tracing::warn!(service = %self.service, %error, "no checkpoint before the stop");
        }
        // Clients first: what they still commit needs the standbys. Then whoever need not have the
        // shutdown checkpoint, or one that cannot be reached would keep the stop from ending (H38).
        match self.postgres.end_sessions(next, SESSIONS).await {
            Ok(ended) => tracing::info!(service = %self.service, ?ended, "sessions end"),
            Err(error) => {
                tracing::warn!(service = %self.service, %error, "sessions could not be ended");
            }
        }
        self.stop().await?;
        Ok(Box::new(|_| {}))
    }

    async fn stop_to_rejoin(&self) -> Result<Change, Error> {
        self.stop().await?;
        Ok(Box::new(|own| own.rejoin_failures += 1))
    }

    /// Fast, then immediate, then killed, each stage bounded (H38).
    pub(super) async fn stop(&self) -> Result<(), Error> {
        let mut stopped = self.stopped.subscribe();
        for (signal, patience) in [(Signal::Fast, STOP_FAST), (Signal::Immediate, STOP_IMMEDIATE)] {
            self.keeper.signal(signal).await?;
            if tokio::time::timeout(patience, stopped.wait_for(|stopped| *stopped)).await.is_ok() {
                return Ok(());
            }
        }
        self.keeper.kill().await?;
        let gone = tokio::time::timeout(STOP_IMMEDIATE, stopped.wait_for(|stopped| *stopped)).await;
        gone.map(|_| ()).map_err(|_elapsed| Error::DoesNotStop)
    }

    async fn rewind(
        &self,
        from: &NodeId,
        term: Term,
        cancel: CancellationToken,
    ) -> Result<Change, Error> {
        let rewind = self.postgres.rewind_from(from, cancel).await?;
        tracing::info!(service = %self.service, %from, ?rewind, "pg_rewind ended");
        self.copied(term).await
    }

    async fn clone_from(
        &self,
        from: &NodeId,
        term: Term,
        cancel: CancellationToken,
    ) -> Result<Change, Error> {
        self.postgres.clone_from(from, self.progress.clone(), cancel).await?;
        self.copied(term).await
    }

    /// The data is a part of the primary's log now.
    async fn copied(&self, term: Term) -> Result<Change, Error> {
        let state = self
            .postgres
            .change_state(move |state| {
                state.was_primary = false;
                state.followed = state.followed.max(term);
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

    async fn quarantine(&self, reason: String) -> Result<Change, Error> {
        let why = reason.clone();
        self.postgres.change_state(move |state| state.quarantined = Some(why)).await?;
        Ok(Box::new(move |own| own.data = Data::Quarantined { reason }))
    }

    async fn kill(&self) -> Result<Change, Error> {
        self.keeper.kill().await?;
        Ok(Box::new(|_| {}))
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
    }
}
