//! Tells what happens to the own copy, where only its driver knows it.
//! In: the keeper's words, ends of actions. Out: events.
//! Not here: what shows in facts and agreed state, of this node or another
//! (`node/operations/watcher.rs`).

use super::InstanceDriver;
use crate::fence::protocol::{Cause, End, How};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use tandem_core::clustering::active_passive::Action;
use tandem_core::facts::Process;

impl InstanceDriver {
    pub(super) fn tell(&self, kind: EventKind, message: impl Into<String>) {
        self.events.record(self.draft(kind, message));
    }

    fn draft(&self, kind: EventKind, message: impl Into<String>) -> Draft {
        let agreed = self.agreed.borrow();
        let state = agreed.state.services.get(self.service());
        let draft = Draft::new(kind, message)
            .service(self.service())
            .field("instance", self.hub.me().as_str());
        state.map_or(draft.clone(), |state| draft.term(state.term()))
    }

    /// No process of the instance is left.
    pub(super) fn tell_end(&self, end: &End) {
        let me = self.hub.me();
        let how = match &end.how {
            How::Code(code) => format!("exit code {code}"),
            How::Signal(signal) => format!("signal {signal}"),
            How::NotStarted { why } => format!("not started: {why}"),
        };
        let took_ms = end.gone.since(end.at).as_secs_f64() * 1000.0;
        let detail = |draft: Draft| draft.field("how", how.as_str()).field("took_ms", took_ms);
        let was_primary = self.own.process == Process::Primary;
        match end.cause {
            Cause::LeaseExpired => {
                let message = format!("the lease of {me} was not proven in time");
                self.events.record(self.draft(EventKind::LeaseExpired, message));
                let message = format!("the keeper of {me} ended its instance: {how}");
                self.events.record(detail(self.draft(EventKind::InstanceFenced, message)));
            }
            Cause::Asked if was_primary => {
                let message = format!("{me} may not be primary: its instance was killed ({how})");
                self.events.record(detail(self.draft(EventKind::InstanceFenced, message)));
            }
            Cause::Asked => {
                let message = format!("{me} stopped its instance ({how})");
                self.events.record(detail(self.draft(EventKind::InstanceStopped, message)));
            }
            Cause::ByItself => {
                let message = format!("the postmaster of {me} ended by itself ({how})");
                self.events.record(detail(self.draft(EventKind::InstanceExited, message)));
            }
        }
        if was_primary && end.cause != Cause::LeaseExpired {
            let message = format!("{me} gave its lease back: its instance is gone for certain");
            self.events.record(self.draft(EventKind::LeaseReleased, message));
        }
    }

    /// An action began.
    pub(super) fn tell_begin(&self, action: &Action) {
        if let Action::Clone { from, .. } = action {
            let message = format!("{} copies everything from {from}", self.hub.me());
            let draft = self.draft(EventKind::CloneStarted, message);
            self.events.record(draft.field("from", from.as_str()));
        }
    }

    /// An action ended; with an error, why it did not succeed.
    pub(super) fn tell_action(&self, action: &Action, error: Option<&str>) {
        let me = self.hub.me();
        let (kind, message) = match (action, error) {
            (Action::Start { .. }, None) => {
                (EventKind::InstanceStarted, format!("{me} started its instance, as a standby"))
            }
            (Action::Rewind { from, .. }, None) => {
                (EventKind::RejoinRewound, format!("{me} holds nothing that {from} does not have"))
            }
            (Action::Clone { from, .. }, None) => {
                (EventKind::RejoinCloned, format!("{me} has a complete copy of {from}"))
            }
            (Action::Rewind { from, .. }, Some(error)) => {
                (EventKind::RejoinFailed, format!("{me} could not rewind to {from}: {error}"))
            }
            (Action::Clone { from, .. }, Some(error)) => {
                (EventKind::RejoinFailed, format!("{me} could not copy {from}: {error}"))
            }
            (Action::StopToRejoin, None) => {
                (EventKind::RejoinFailed, format!("{me} was not fed: takes the next rung"))
            }
            (_, _) => return,
        };
        self.tell(kind, message);
    }
}
