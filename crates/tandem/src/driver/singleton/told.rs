//! Tells what happens to the own copy of a command, where only its driver knows it.
//! In: the keeper's words, ends of hooks. Out: events.

use super::SingletonDriver;
use crate::fence::protocol::{Cause, End, How};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use tandem_core::clustering::active_passive::singleton::FAILURES_MAX;

fn words(end: &End) -> String {
    match &end.how {
        How::Code(code) => format!("exit code {code}"),
        How::Signal(signal) => format!("signal {signal}"),
        How::NotStarted { why } => format!("not started: {why}"),
    }
}

impl SingletonDriver {
    pub(super) fn tell(&self, kind: EventKind, message: impl Into<String>) {
        self.it.events.record(self.draft(kind, message));
    }

    fn draft(&self, kind: EventKind, message: impl Into<String>) -> Draft {
        let me = self.it.hub.me();
        Draft::new(kind, format!("{me}: {}", message.into()))
            .service(self.service())
            .term(self.own.promoted)
            .field("instance", me.as_str())
    }

    pub(super) fn tell_hook(&self, hook: &str, end: &End) {
        self.tell(EventKind::HookFailed, format!("{hook} failed ({})", words(end)));
    }

    /// No process of the copy is left.
    pub(super) fn tell_end(&self, end: &End, was_asked: bool) {
        let how = words(end);
        let took_ms = end.gone.since(end.at).as_secs_f64() * 1000.0;
        // What a program asked to end is one to its keeper that ended by itself.
        let cause = match end.cause {
            Cause::ByItself if was_asked => Cause::Asked,
            cause @ (Cause::ByItself | Cause::Asked | Cause::LeaseExpired) => cause,
        };
        let (kind, message) = match cause {
            Cause::LeaseExpired => {
                let message = "the lease was not proven in time";
                self.tell(EventKind::LeaseExpired, message);
                (EventKind::InstanceFenced, format!("its keeper ended the copy ({how})"))
            }
            Cause::Asked => (EventKind::InstanceStopped, format!("the copy was stopped ({how})")),
            Cause::ByItself => {
                let row = self.own.starts_failed.saturating_add(1);
                let message = format!("the command ended by itself ({how})");
                let message = match row {
                    _ if row >= FAILURES_MAX => {
                        format!("{message}, {row} times in a row: crash loop")
                    }
                    2.. => format!("{message}, {row} times in a row"),
                    _ => message,
                };
                (EventKind::InstanceExited, message)
            }
        };
        let draft = self.draft(kind, message).field("how", how).field("took_ms", took_ms);
        self.it.events.record(draft);
    }
}
