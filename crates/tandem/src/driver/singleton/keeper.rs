//! Answers what the keeper of the own copy says, and its death.
//! In: the keeper's words. Out: facts: "stopped" only once no process of the copy is left.
//! Keeps: INV-12, H3: while the keeper is gone, nothing is claimed; its successor ends what it
//! left.
//! Not here: what the keeper is told (`acting.rs`).

use super::acting::Part;
use super::{Life, SingletonDriver, Why};
use crate::fence::client::{Keeper, KeeperEvent};
use crate::fence::protocol::{Cause, End, State, Status};
use crate::runtime::clock;
use crate::service::command::Runs;
use crate::telemetry::event_kind::EventKind;
use tandem_core::facts::Process;

impl SingletonDriver {
    pub(super) async fn on_keeper(&mut self, event: KeeperEvent) {
        match event {
            KeeperEvent::Status(status) => self.on_status(&status).await,
            KeeperEvent::Started { .. } => self.on_started(),
            KeeperEvent::Exited(end) => self.on_exited(&end).await,
            KeeperEvent::Stuck { pids } => {
                let message = format!("killed processes do not die: {pids:?}");
                self.tell(EventKind::InstanceHung, message);
            }
            KeeperEvent::KeeperGone => {
                self.keeper_lost = true;
                self.own.serving = None;
                if self.life != Life::Nothing {
                    self.own.process = Process::Stopping;
                }
                self.reattach().await;
            }
        }
    }

    /// What a keeper holds, as its first word.
    async fn on_status(&mut self, status: &Status) {
        match status.state {
            State::Idle => {
                if self.life != Life::Nothing {
                    self.tell(EventKind::InstanceExited, "its keeper was killed, and it with it");
                    self.failed();
                }
                self.rest();
            }
            // Found running by a new daemon: whether it may is planned next.
            State::Running { .. } if self.durable.runs == Runs::Command => {
                self.lives += 1;
                self.life = Life::Runs;
                self.own.process = Process::Primary;
                self.own.promoted = self.durable.begun;
                self.checks.begin(clock::now());
                if self.it.config.health.is_none() {
                    self.serves(clock::now());
                }
                self.tell(EventKind::InstanceAdopted, "a running command was taken over");
            }
            State::Running { .. } | State::Starting { .. } | State::Ending { .. } => {
                self.lives += 1;
                self.life = Life::Ending { kill_at: clock::now(), why: Why::Fenced };
                self.own.process = Process::Stopping;
            }
        }
    }

    /// Nothing of it is left.
    fn rest(&mut self) {
        self.life = Life::Nothing;
        self.own.serving = None;
        self.well_since = None;
        if self.own.process != Process::Starting || self.writing.is_none() {
            self.own.process = Process::Stopped;
        }
    }

    fn on_started(&mut self) {
        if !matches!(self.life, Life::Launching(_)) {
            return;
        }
        let now = clock::now();
        self.life = Life::Runs;
        self.own.process = Process::Primary;
        self.checks.begin(now);
        if self.it.config.health.is_none() {
            self.serves(now);
        }
        let term = self.own.promoted;
        self.tell(EventKind::InstanceStarted, format!("runs in term {term}"));
    }

    async fn on_exited(&mut self, end: &End) {
        let was = std::mem::replace(&mut self.life, Life::Nothing);
        match was {
            Life::Opening(_) if end.is_clean() && self.own.process == Process::Starting => {
                self.begin(self.own.promoted, Part::Command);
                return;
            }
            Life::Opening(_) => {
                self.tell_hook("on_start", end);
                self.failed();
            }
            Life::Closing(_) if !end.is_clean() => self.tell_hook("on_stop", end),
            Life::Closing(_) => {}
            Life::Launching(_) | Life::Runs => {
                self.tell_end(end, false);
                if end.cause == Cause::ByItself {
                    self.failed();
                }
            }
            Life::Ending { why: Why::Planned, .. } => {
                self.tell_end(end, true);
                if self.closes() {
                    // Noted first: a later daemon must not take the hook for the copy.
                    return self.begin(self.own.promoted, Part::OnStop);
                }
            }
            Life::Ending { why: Why::Unwell, .. } => {
                self.tell_end(end, true);
                self.failed();
            }
            Life::Ending { why: Why::Fenced, .. } => self.tell_end(end, true),
            Life::Nothing => {}
        }
        self.lives += 1;
        self.own.process = Process::Stopped;
        self.rest();
    }

    /// A keeper in place of the one that is gone. It ends what that one left before it answers.
    pub(super) async fn reattach(&mut self) {
        let run_dir = self.it.config.run_dir();
        let attached = Keeper::attach_or_spawn(&run_dir, &self.it.exe, &self.it.supervisor).await;
        match attached {
            Ok((keeper, events)) => {
                self.it.keeper = keeper;
                self.it.keeper_events = events;
                self.keeper_lost = false;
            }
            Err(error) => {
                tracing::error!(service = %self.service(), %error, "there is no keeper");
            }
        }
    }
}
