//! Carries out the checks of the own copy, and what follows from its answers.
//! In: answers of checks. Out: `serving`, or an end that counts as a failure.
//! Keeps: a copy is asked as it was meant to be when it was started. All of them would fail at once
//! what only their successors can answer, and end together; they start anew in turns.
//! Not here: what answers make of it (`tandem_core::clustering::checks`), how it is asked
//! (`service/command/check.rs`, `fence/program.rs`).

use super::acting::Finished;
use super::{Life, SingletonDriver, Why};
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::service::command::{Health, Probe};
use crate::telemetry::event_kind::EventKind;
use std::time::Duration;
use tandem_core::clustering::checks::{self, Answer, Limits, Origin, Verdict};
use tandem_core::time::Timestamp;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What is known of the present copy.
#[derive(Debug, Default)]
pub(super) struct Checks {
    it: checks::Checks,
    pub(super) next: Timestamp,
    pub(super) asking: bool,
    /// Ends who asks now, when dropped: the next copy is none of its business.
    asks: Option<DropGuard>,
    /// It waits to be started otherwise: how it is asked until then.
    kept: Option<Option<Health>>,
}

impl Checks {
    fn begin(&mut self, origin: Origin, kept: Option<Option<Health>>, now: Timestamp) {
        let it = checks::Checks::new(origin, now);
        *self = Self { it, next: now, kept, ..Self::default() };
    }

    /// Whether it was found running, and is not known yet to be well or not.
    pub(super) fn is_unjudged(&self) -> bool {
        self.it.is_unjudged()
    }

    /// Whether the last ones failed.
    pub(super) const fn fail(&self) -> bool {
        self.it.fail()
    }

    /// When to ask again.
    fn due(&self) -> Option<Timestamp> {
        (!self.asking).then_some(self.next)
    }

    /// The copy ends, or has.
    pub(super) fn leave(&mut self) {
        self.asks = None;
    }

    /// Others are meant for its successor from now on, or, with none, for itself.
    pub(super) fn keep(&mut self, old: Option<Option<Health>>) {
        self.kept = old.map(|old| self.kept.take().unwrap_or(old));
    }
}

impl SingletonDriver {
    /// From here on the present copy is judged. One that waits to be started otherwise is asked as
    /// before; where nobody remembers that (a daemon that was restarted) it is not asked at all:
    /// what only its successor can answer would end it before its turn.
    pub(super) fn begin_checks(&mut self, origin: Origin) {
        let (now, is_outdated) = (clock::now(), self.is_outdated());
        let kept = is_outdated.then(|| self.checks.kept.take().unwrap_or_default());
        self.checks.begin(origin, kept, now);
        if self.asked().is_none() {
            self.serves(now);
        }
    }

    /// How the present copy is asked, if it is.
    pub(super) fn asked(&self) -> Option<&Health> {
        self.checks.kept.as_ref().unwrap_or(&self.it.config.health).as_ref()
    }

    /// When to ask it again.
    pub(super) fn check_due(&self) -> Option<Timestamp> {
        let is_asked = self.asked().is_some() && self.life == Life::Runs;
        self.checks.due().filter(|_| is_asked)
    }

    /// Asks, if it is time.
    pub(super) fn check_health(&mut self) {
        let now = clock::now();
        let is_due = self.check_due().is_some_and(|at| at <= now);
        let Some(health) = self.asked().filter(|_| is_due).cloned() else { return };
        self.checks.asking = true;
        self.checks.next = now.plus(self.checks.it.pause(&limits(&health)));
        let (life, sender, limit) = (self.lives, self.finished.0.clone(), health.timeout);
        let stop = self.it.supervisor.stopping().child_token();
        self.checks.asks = Some(stop.clone().drop_guard());
        let at = match health.probe {
            Probe::Port(at) => at,
            Probe::Exec(words) => return self.check_by_program(&words, limit, stop),
        };
        let config = self.it.config.clone();
        self.it.supervisor.spawn("check of a command", TaskKind::Session, async move {
            let asked = stop.run_until_cancelled(config.check(&at, limit)).await;
            let Some(answer) = asked else { return };
            let _ = sender.send(Finished::Checked { life, answer }).await;
        });
    }

    fn check_by_program(&mut self, words: &[String], limit: Duration, stop: CancellationToken) {
        if self.awaits_user() {
            // What cannot be asked yet is not unwell for that.
            self.checks.asking = false;
            return;
        }
        let (life, sender) = (self.lives, self.finished.0.clone());
        let program = self.program(words);
        self.it.supervisor.spawn("check of a command", TaskKind::Session, async move {
            let answer = program.run(limit, &stop).await.map_err(|error| error.to_string());
            let _ = sender.send(Finished::Checked { life, answer }).await;
        });
    }

    pub(super) async fn on_checked(&mut self, life: u64, answer: Result<(), String>) {
        if life != self.lives || self.life != Life::Runs {
            return;
        }
        self.checks.asking = false;
        let Some(health) = self.asked().cloned() else { return };
        let (said, why) = match answer {
            Ok(()) => (Answer::Good, String::new()),
            Err(why) => (Answer::Bad, why),
        };
        let failures = match self.checks.it.answered(said, &limits(&health), clock::now()) {
            // Nobody asked it before: it counted as well.
            Verdict::Well if self.own.serving.is_some() => return,
            Verdict::Well => {
                self.serves(clock::now());
                return self.tell(EventKind::InstanceRecovered, "its checks succeed");
            }
            Verdict::Same => return,
            Verdict::Unwell(failures) => failures,
        };
        let message = format!("{failures} checks in a row failed, so it is started anew: {why}");
        self.tell(EventKind::InstanceHung, message);
        self.stop(Why::Unwell).await;
    }
}

fn limits(health: &Health) -> Limits {
    let Health { interval, fall, rise, grace, .. } = *health;
    Limits { interval, fall, rise, grace }
}
