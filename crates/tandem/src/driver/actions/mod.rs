//! Carries out one action on the own copy, step by step.
//! In: `Action`. Out: `Change`, what is different afterwards; or why it failed, for the log.
//! Keeps: INV-2 what must be durable is written before what follows from it; INV-6 every action may
//! be cut after any step and planned again; H5 every start is in recovery; H42 the lease is armed
//! before a promotion.
//! Not here: when to do what (the core), retries (the next plan).

mod inspect;
mod primary;
mod replica;

use crate::fence::client::{self, Keeper, KeeperEvent};
use crate::fence::protocol::Signal;
use crate::runtime::supervisor::Supervisor;
use crate::service::postgres::{self, Postgres};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tandem_core::clustering::active_passive::Action;
use tandem_core::facts::{Fork, InstanceFacts};
use tandem_core::ids::{NodeId, ServiceId, TimelineId};
use tandem_core::replication::primary_replica::loaded_rule::LoadedRule;
use tandem_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Stages of a stop: fast, then immediate, then killed (H38).
pub(super) const STOP_FAST: Duration = Duration::from_secs(4);
pub(super) const STOP_IMMEDIATE: Duration = Duration::from_secs(2);

/// What is different after an action.
pub type Change = Box<dyn FnOnce(&mut InstanceFacts) + Send>;

/// What an action may rely on.
#[derive(Debug)]
pub struct Given {
    /// The own copy as it was when the action was planned.
    pub own: InstanceFacts,
    /// Until when a primary may serve by what is proven now.
    pub lease: Option<Timestamp>,
    /// Before this moment a ballot does not count (`Async`).
    pub fence_wait: Option<Timestamp>,
    /// Ends the action where it can be ended.
    pub cancel: CancellationToken,
    /// Where an action that stops the server says so first, and waits to be let on.
    pub stops: oneshot::Sender<oneshot::Sender<()>>,
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
    /// Which rules the server may obey since its promotion.
    pub loaded: Arc<Mutex<LoadedRule>>,
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
    #[error("it ended, or the switchover was given up, before it was stopped")]
    NotLetOn,
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

    /// Does it.
    pub async fn execute(self, action: Action, given: Given) -> Result<Change, Failure> {
        let Given { own, lease, fence_wait, cancel, stops } = given;
        let result = match action {
            Action::Promise { term } => self.promise(term, &own, fence_wait).await,
            Action::Found => self.found(&own).await,
            Action::Start { upstream, timeline } => self.start(upstream, timeline).await,
            Action::Follow { primary, term, timeline } => {
                self.follow((primary, term), timeline).await
            }
            Action::Promote { term } => self.promote(term, lease).await,
            Action::Reaffirm { term } => self.reaffirm(term).await,
            Action::RecordTerm { term, rule } => self.record_term(term, rule, &own).await,
            Action::ApplyRule { rule } => self.apply_rule(rule).await,
            Action::Checkpoint => self.checkpoint().await,
            Action::StopForSwitchover { to } => self.stop_for_switchover(&to, stops).await,
            Action::StopToRejoin => self.stop_to_rejoin().await,
            Action::Rewind { from, term, timeline } => {
                self.rewind(&from, (term, timeline), cancel).await
            }
            Action::Clone { from, term, timeline } => {
                self.clone_from(&from, (term, timeline), cancel).await
            }
            Action::Quarantine { reason } => self.quarantine(reason).await,
            Action::Fence => self.kill().await,
        };
        if let Err(Error::Postgres(postgres::Error::DiskFull { .. })) = &result {
            // What could not be written is tried again, and shall have room (H27).
            if let Err(error) = self.postgres.release_ballast().await {
                tracing::warn!(service = %self.service, %error, "the ballast cannot be given up");
            }
        }
        result.map_err(|error| {
            let passes = match &error {
                Error::Postgres(error) => error.may_pass_by_itself(),
                Error::NoLease | Error::RuleUnproven(_) | Error::Keeper(_) | Error::NotLetOn => {
                    true
                }
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

    async fn kill(&self) -> Result<Change, Error> {
        self.keeper.kill().await?;
        Ok(Box::new(|_| {}))
    }
}
