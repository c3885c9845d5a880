//! Carries out what a copy does as a primary, or to become one: promote, prove the rule, record the
//! term, stop for the next.
//! In: a term, a rule. Out: `Change`.
//! Keeps: INV-2, H42 what must be durable and the lease come before the promotion; H8, H9 no term
//! is recorded before the rule is proven; H38 a planned stop waits for nobody but the next primary.

use super::inspect::adopt_state;
use super::{Change, Context, Error};
use crate::runtime::clock;
use crate::service::postgres::RuleState;
use std::sync::PoisonError;
use std::time::Duration;
use tandem_core::facts::{InstanceFacts, Process, Stream};
use tandem_core::ids::{NodeId, Term};
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
        rule: CommitRule,
        lease: Option<Timestamp>,
    ) -> Result<Change, Error> {
        let until = lease.filter(|until| *until > clock::now()).ok_or(Error::NoLease)?;
        self.keeper.limit(until).await?;
        if let RuleState::Pending { why } = self.postgres.write_rule(&rule, RULE).await? {
            return Err(Error::RuleUnproven(why.to_string()));
        }
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
        *self.promoted_under.lock().unwrap_or_else(PoisonError::into_inner) = Some(rule);
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

    pub(super) async fn apply_rule(&self, rule: CommitRule) -> Result<Change, Error> {
        *self.promoted_under.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let rule = self.prove(rule).await?;
        Ok(Box::new(move |own| own.rule = Some(rule)))
    }

    pub(super) async fn prove(&self, rule: CommitRule) -> Result<CommitRule, Error> {
        match self.postgres.apply_rule(&rule, RULE).await? {
            RuleState::Proven => Ok(rule),
            RuleState::Pending { why } => Err(Error::RuleUnproven(why.to_string())),
        }
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
