//! Decides whether the own copy is well by what it answers, and ends one that is not.
//! In: answers of checks. Out: `serving`, or an end that counts as a failure.
//! States: asked → (rise) well → (fall) unwell → ended and started anew.
//! Keeps: a copy is asked as it was meant to be when it was started. All of them would fail at once
//! what only their successors can answer, and end together; they start anew in turns.
//! Not here: how it is asked (`service/command/check.rs`, `fence/program.rs`).

use super::acting::Finished;
use super::{Life, SingletonDriver, Why};
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::service::command::{Health, Probe};
use crate::telemetry::event_kind::EventKind;
use std::time::Duration;
use tandem_core::time::Timestamp;

/// Before its first success it is asked more often: clients wait for that.
const EAGER: Duration = Duration::from_millis(100);

/// What is known of the present copy.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    next: Timestamp,
    began: Timestamp,
    asking: bool,
    was_well: bool,
    /// A restarted daemon found it running.
    found: bool,
    failures: u32,
    successes: u32,
    last: Option<String>,
    /// It waits to be started otherwise: how it is asked until then.
    kept: Option<Option<Health>>,
}

impl Checks {
    pub(super) fn begin(&mut self, now: Timestamp) {
        *self = Self { next: now, began: now, ..Self::default() };
    }

    /// The same, of one that a restarted daemon found running.
    pub(super) fn begin_with_found(&mut self, now: Timestamp) {
        self.begin(now);
        self.found = true;
    }

    /// Whether it was found running; how it is, is not known before it is well once more.
    pub(super) const fn of_found(&self) -> bool {
        self.found
    }

    /// Whether the last ones failed.
    pub(super) const fn fail(&self) -> bool {
        self.failures > 0
    }

    /// When to ask again.
    fn due(&self) -> Option<Timestamp> {
        (!self.asking).then_some(self.next)
    }

    /// Others are meant for its successor from now on, or, with none, for itself.
    pub(super) fn keep(&mut self, old: Option<Option<Health>>) {
        self.kept = old.map(|old| self.kept.take().unwrap_or(old));
    }
}

impl SingletonDriver {
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
        let pause = if self.checks.was_well { health.interval } else { health.interval.min(EAGER) };
        self.checks.asking = true;
        self.checks.next = now.plus(pause);
        let (life, sender, limit) = (self.lives, self.finished.0.clone(), health.timeout);
        let at = match health.probe {
            Probe::Port(at) => at,
            Probe::Exec(words) => return self.check_by_program(&words, limit),
        };
        let config = self.it.config.clone();
        self.it.supervisor.spawn("check of a command", TaskKind::Session, async move {
            let answer = config.check(&at, limit).await;
            let _ = sender.send(Finished::Checked { life, answer }).await;
        });
    }

    fn check_by_program(&self, words: &[String], limit: Duration) {
        let (life, sender) = (self.lives, self.finished.0.clone());
        let (program, stop) = (self.program(words), self.it.supervisor.stopping());
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
        let Err(why) = answer else {
            let checks = &mut self.checks;
            checks.failures = 0;
            checks.successes = checks.successes.saturating_add(1);
            if checks.successes >= health.rise && self.own.serving.is_none() {
                checks.was_well = true;
                self.serves(clock::now());
                self.tell(EventKind::InstanceRecovered, "its checks succeed");
            }
            return;
        };
        let in_grace = clock::now().since(self.checks.began) < health.grace;
        let checks = &mut self.checks;
        checks.successes = 0;
        checks.last = Some(why.clone());
        if in_grace && !checks.was_well {
            return;
        }
        checks.failures = checks.failures.saturating_add(1);
        if checks.failures < health.fall {
            return;
        }
        let message =
            format!("{} checks in a row failed, so it is started anew: {why}", checks.failures);
        self.tell(EventKind::InstanceHung, message);
        self.stop(Why::Unwell).await;
    }
}
