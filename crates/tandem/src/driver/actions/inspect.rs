//! Reads what a stopped copy's files say into the facts.
//! In: state file, control file, history of the timeline. Out: facts.
//! Keeps: H6 a promotion that pg_control does not know of yet is known from the history; H19 what
//! cannot be read is never taken for nothing; H26 whose disk is suspect is not started again.

use super::Context;
use crate::service::postgres::{ControlState, StateFile};
use std::sync::PoisonError;
use tandem_core::facts::{Data, InstanceFacts};

/// The facts that are kept in the durable state.
pub fn adopt_state(own: &mut InstanceFacts, state: &StateFile) {
    own.promised = state.promised;
    own.promoted = state.promoted;
    own.followed = state.followed;
    own.followed_timeline = state.followed_timeline;
    own.timeline_term = state.timeline_term;
    own.was_primary = state.was_primary;
}
impl Context {
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
        if own.data == Data::Present {
            match self.postgres.judge_end().await {
                Ok(None) => {}
                Ok(Some(reason)) => own.data = Data::Suspect { reason },
                Err(error) => {
                    tracing::warn!(service = %self.service, %error, "its last words are not known");
                }
            }
        }
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
                // A primary that was stopped cleanly wrote its shutdown checkpoint as one.
                own.stopped_cleanly = stopped.state.is_clean()
                    && (!own.was_primary || stopped.state == ControlState::ShutDown);
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
}
