//! Carries out what a copy does as a primary, or to become one: promote, prove the rule, record the
//! term, stop for the next.
//! In: a term, a rule. Out: `Change`.
//! Keeps: INV-2, H42 what must be durable and the lease come before the promotion; H7, H8, H9 no
//! commit is acknowledged before a commit quorum has the term's record, and then by one rule;
//! H38 a planned stop waits for nobody but the next primary.
//!
//! From the promotion to the barrier (H7), and where this daemon or the server may die:
//! 1. The server was started so that nobody may confirm its commits, and that is proven before the
//!    promotion. Sessions that were open on the standby survive it; their commits wait.
//! 2. It is primary. The daemon dies: commits wait; the next daemon finds no row and begins 3, or
//!    the lease passes and the keeper ends the server. The server dies: it starts as a standby.
//! 3. The row is written and waits for nobody. The daemon dies: the next one finds the row, but
//!    also that nobody may confirm, and begins 3 anew (`found_running`).
//! 4. As many as the rule demands have the row: no election can pass them all by, and one with the
//!    row outranks whoever lacks it, however much more of an earlier term that has. So whatever is
//!    acknowledged from here on is found again, even what lies before the row. Only now the names
//!    of the rule are written, one step or many (`let_confirm`). The daemon dies: as 3 if they were
//!    not loaded yet; else commits are acknowledged rightly, and the next daemon goes on serving.

use super::inspect::adopt_state;
use super::{Change, Context, Error};
use crate::runtime::clock;
use crate::service::postgres::RuleState;
use std::sync::PoisonError;
use std::time::Duration;
use tandem_core::facts::{InstanceFacts, Process, Stream};
use tandem_core::ids::{NodeId, Term};
use tandem_core::replication::primary_replica::loaded_rule::LoadedRule;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;
use tandem_core::time::Timestamp;
use tokio::sync::oneshot;

const PROMOTION: Duration = Duration::from_secs(10);
/// The barrier may wait for a standby that is only being copied.
const BARRIER: Duration = Duration::from_secs(3600);
const ROLES: Duration = Duration::from_secs(10);
const RULE: Duration = Duration::from_secs(2);
const CHECKPOINT: Duration = Duration::from_secs(300);
/// Telling sessions to end; the stop ends them too.
const SESSIONS: Duration = Duration::from_secs(1);

impl Context {
    pub(super) async fn promote(
        &self,
        term: Term,
        lease: Option<Timestamp>,
    ) -> Result<Change, Error> {
        let until = lease.filter(|until| *until > clock::now()).ok_or(Error::NoLease)?;
        self.keeper.limit(until).await?;
        proven(self.postgres.hold_commits(RULE).await?)?;
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) =
            LoadedRule::at_promotion(self.postgres.rule_of_nobody());
        // From here on it may have left recovery, whatever happens.
        let state = self
            .postgres
            .change_state(move |state| {
                state.promised = state.promised.max(term);
                state.promoted = term;
                state.timeline_term = term;
                state.was_primary = true;
            })
            .await?;
        // The others compare their logs with this one's history as soon as they hear of it: what
        // they hear must be of the new timeline, or they take themselves for another past (H6).
        let timeline = self.postgres.promote(PROMOTION).await?;
        let mut fresh = InstanceFacts { timeline, ..InstanceFacts::default() };
        self.history(&mut fresh).await;
        Ok(Box::new(move |own| {
            adopt_state(own, &state);
            own.process = Process::Primary;
            own.timeline = fresh.timeline;
            own.forks = fresh.forks;
            own.upstream = None;
            own.stream = Stream::None;
            own.ballot = None;
            own.serving = None;
            own.rule = None;
            own.checkpointed = false;
        }))
    }

    pub(super) async fn reaffirm(&self, term: Term) -> Result<Change, Error> {
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

    pub(super) async fn record_term(
        &self,
        term: Term,
        wanted: CommitRule,
        own: &InstanceFacts,
    ) -> Result<Change, Error> {
        if own.data_term == Term(0) {
            self.postgres.ensure_roles(ROLES).await?;
        }
        self.postgres.record_term(term, &wanted, BARRIER).await?;
        if own.rule.as_ref() == Some(&wanted) {
            // It is in force: the same primary goes on under a new term.
        } else if self.loaded.lock().unwrap_or_else(PoisonError::into_inner).is_first(&wanted) {
            proven(self.postgres.let_confirm(&wanted, RULE).await?)?;
        } else {
            self.prove(&wanted).await?;
        }
        Ok(Box::new(move |own| {
            own.serving = Some(term);
            own.data_term = own.data_term.max(term);
            own.rule = Some(wanted);
        }))
    }

    pub(super) async fn apply_rule(&self, rule: CommitRule) -> Result<Change, Error> {
        self.prove(&rule).await?;
        Ok(Box::new(move |own| own.rule = Some(rule)))
    }

    async fn prove(&self, rule: &CommitRule) -> Result<(), Error> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).forget();
        proven(self.postgres.apply_rule(rule, RULE).await?)
    }

    pub(super) async fn checkpoint(&self) -> Result<Change, Error> {
        self.postgres.checkpoint(CHECKPOINT).await?;
        Ok(Box::new(|own| own.checkpointed = true))
    }

    pub(super) async fn stop_for_switchover(
        &self,
        next: &NodeId,
        stops: oneshot::Sender<oneshot::Sender<()>>,
    ) -> Result<Change, Error> {
        // Now rather than while nobody can write. Where the disk is full it fails, and the stop may
        // not be clean: then the others elect (H27).
        if let Err(error) = self.postgres.checkpoint(CHECKPOINT).await {
            tracing::warn!(service = %self.service, %error, "no checkpoint before the stop");
        }
        let (go, may_go) = oneshot::channel();
        let _ = stops.send(go);
        may_go.await.map_err(|_closed| Error::NotLetOn)?;
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
}

fn proven(state: RuleState) -> Result<(), Error> {
    match state {
        RuleState::Proven => Ok(()),
        RuleState::Pending { why } => Err(Error::RuleUnproven(why.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::client::{self, Asked, Keeper};
    use crate::fence::protocol::{Answer, Command, Refusal};
    use crate::service::postgres::Postgres;

    fn context() -> (Context, Asked) {
        let (keeper, asked) = Keeper::for_test();
        let context = Context {
            service: "orders".into(),
            me: "a".into(),
            postgres: Postgres::for_test(),
            keeper,
            run_dir: "/nowhere".into(),
            exe: "/nowhere".into(),
            stopped: tokio::sync::watch::Sender::new(false),
            loaded: std::sync::Arc::default(),
            history: std::sync::Arc::default(),
            progress: tokio::sync::watch::Sender::new(None),
        };
        (context, asked)
    }

    /// What the keeper was asked, and why the promotion failed: there is no server.
    async fn promote(lease: Option<Timestamp>, answer: Answer) -> (Option<Command>, Option<Error>) {
        let (context, mut asked) = context();
        let promotion = async move { context.promote(Term(3), lease).await.err() };
        tokio::join!(asked.answer(answer), promotion)
    }

    /// H42.
    #[tokio::test]
    async fn h42_the_keeper_has_the_end_of_the_lease_before_anything_is_promoted() {
        let until = clock::now().plus(Duration::from_secs(600));
        let limit = Some(Command::Limit { until });
        let (asked, error) = promote(Some(until), Answer::Done).await;
        assert_eq!(asked, limit, "asked first of all");
        assert!(matches!(error, Some(Error::Postgres(_))), "{error:?}");
        let refusal = Answer::Refused(Refusal::LeasePassed);
        let (asked, error) = promote(Some(until), refusal).await;
        assert_eq!(asked, limit);
        let refused = matches!(error, Some(Error::Keeper(client::Error::Refused(_))));
        assert!(refused, "PostgreSQL was asked all the same: {error:?}");
        for lease in [None, Some(clock::now())] {
            let (asked, error) = promote(lease, Answer::Done).await;
            assert!(matches!(error, Some(Error::NoLease)) && asked.is_none(), "{error:?}");
        }
    }
}
