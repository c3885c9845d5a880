//! Decides how far the own copy has come: whether it runs well, and since when it should have run.
//! In: what the keeper holds, limits. Out: `starts_failed`, `stalled`; kills past a limit.
//! Keeps: H50 nothing that is waited for has no end: past its limit it is killed, and where that
//! does not help either, `stalled` grows, by which the controller moves the service.
//! Not here: when a service is moved (`tandem_core`, `singleton/controller.rs`).
//! Tested by: `tests.rs`.

use super::{Life, SingletonDriver, Why};
use crate::runtime::clock;
use crate::telemetry::event_kind::EventKind;
use std::time::Duration;
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::singleton::{RAN_WELL_AFTER, retry_after};
use tandem_core::facts::Process;
use tandem_core::time::Timestamp;

/// Failures are forgotten where it has not been tried for so long.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// In a term without moves, the kernel's way of ending it is asked for again.
pub(super) const KILL_AGAIN: Duration = Duration::from_millis(500);

impl SingletonDriver {
    pub(super) fn note_progress(&mut self, state: Option<&ServiceState>, now: Timestamp) {
        let well_since = self.well_since.filter(|_| self.own.process == Process::Primary);
        // That the process is there says nothing where it has never answered a check.
        let ran_well = well_since.is_some_and(|since| now.since(since) >= RAN_WELL_AFTER);
        let is_forgotten = self.life == Life::Nothing && now.since(self.failed_at) >= FORGET_AFTER;
        if (ran_well && !self.checks.fail()) || is_forgotten {
            self.own.starts_failed = 0;
        }
        if self.keeper_lost {
            self.overdue_since.get_or_insert(now);
        } else if matches!(self.life, Life::Nothing | Life::Runs) {
            self.overdue_since = None;
        }
        let holds = state.is_some_and(|it| self.holds(it) && it.switchover.is_none());
        let rests = self.own.process == Process::Stopped && self.retry_at > now;
        let waits = (self.life == Life::Nothing && !rests) || self.overdue_since.is_some();
        if holds && waits && self.away_until <= now {
            self.stalled_since.get_or_insert(now);
        } else {
            self.stalled_since = None;
        }
        self.own.stalled = self.stalled_since.map_or(Duration::ZERO, |since| now.since(since));
    }

    /// It is well from now on.
    pub(super) fn serves(&mut self, now: Timestamp) {
        self.well_since = Some(now);
        self.own.serving = Some(self.own.promoted);
    }

    /// Kills what has passed its limit, again and again; told once of each life.
    pub(super) async fn enforce(&mut self, now: Timestamp) {
        let again = now.plus(KILL_AGAIN);
        let (until, what, next) = match self.life {
            Life::Opening(until) => (until, "on_start", Life::Opening(again)),
            Life::Closing(until) => (until, "on_stop", Life::Closing(again)),
            Life::Launching(until) => {
                let next = Life::Ending { kill_at: again, why: Why::Unwell };
                (until, "what starts the command", next)
            }
            Life::Ending { kill_at, why } => {
                (kill_at, "the command", Life::Ending { kill_at: again, why })
            }
            Life::Nothing | Life::Runs => return,
        };
        if until > now {
            return;
        }
        if matches!(self.life, Life::Launching(_)) {
            self.own.process = Process::Stopping;
        }
        self.overdue_since.get_or_insert(now);
        // A kill that takes its time is no limit that was passed.
        let is_fenced = matches!(self.life, Life::Ending { why: Why::Fenced, .. });
        if self.told_overdue != self.lives && !is_fenced {
            self.told_overdue = self.lives;
            let message = format!("{what} did not end within its limit and is killed");
            self.tell(EventKind::HookFailed, message);
        }
        self.life = next;
        self.kill().await;
    }

    /// It did not run, or not for long.
    pub(super) fn failed(&mut self) {
        let now = clock::now();
        self.own.starts_failed = self.own.starts_failed.saturating_add(1);
        self.failed_at = now;
        self.retry_at = now.plus(retry_after(self.own.starts_failed));
    }
}
