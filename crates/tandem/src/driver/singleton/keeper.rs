//! Answers what the keeper of the own copy says, and its death.
//! In: the keeper's words. Out: facts: "stopped" only once no process of the copy is left.
//! Keeps: INV-12, H3: while the keeper is gone, nothing is claimed; its successor ends what it
//! left.
//! Not here: what the keeper is told (`acting.rs`).

use super::acting::{Ended, Finished, Part};
use super::{Life, SingletonDriver, Why};
use crate::fence::client::{self, Attached, Keeper, KeeperEvent};
use crate::fence::protocol::{Cause, End, Lease, State, Status};
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::service::command::Runs;
use crate::telemetry::event_kind::EventKind;
use std::time::Duration;
use tandem_core::clustering::checks::Origin;
use tandem_core::facts::Process;
use tandem_core::time::Timestamp;

/// Where no keeper can be started, another try is made after this.
const ATTACH_AGAIN: Duration = Duration::from_secs(1);

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
                self.reattach();
            }
        }
    }

    /// What a keeper holds, as its first word.
    async fn on_status(&mut self, status: &Status) {
        self.unheard = None;
        if let (false, Some(Lease::Until(until))) = (status.state == State::Idle, status.lease) {
            self.lease = until;
            self.it.hub.lease(self.service(), until);
        }
        match status.state {
            State::Idle if self.ends_stopper(|| Ended::Idle) => {}
            State::Idle => self.on_idle(),
            // Found running by a new daemon: whether it may is planned next.
            State::Running { .. } if self.durable.runs == Runs::Command => {
                self.lives += 1;
                self.life = Life::Runs;
                self.own.process = Process::Primary;
                self.own.promoted = self.durable.begun;
                self.begin_checks(Origin::Found);
                self.tell(EventKind::InstanceAdopted, "a running command was taken over");
            }
            State::Running { .. } | State::Starting { .. } | State::Ending { .. } => {
                self.lives += 1;
                self.life = Life::Ending { kill_at: clock::now(), why: Why::Fenced };
                self.own.process = Process::Stopping;
            }
        }
    }

    /// A new keeper, and nothing is left of what the last one held.
    pub(super) fn on_idle(&mut self) {
        if self.life != Life::Nothing {
            self.tell(EventKind::InstanceExited, "its keeper was killed, and it with it");
            self.failed();
        }
        self.rest();
    }

    /// Nothing of it is left.
    fn rest(&mut self) {
        self.it.hub.ended(self.service());
        self.life = Life::Nothing;
        self.own.serving = None;
        self.well_since = None;
        self.own.withdrawn = None;
        self.lease = Timestamp(0);
        if self.own.process != Process::Starting || self.writing.is_none() {
            self.own.process = Process::Stopped;
        }
    }

    fn on_started(&mut self) {
        match self.life {
            Life::Launching(_) => {}
            // Nobody knows of it any more.
            Life::Nothing => {
                self.lives += 1;
                self.life = Life::Ending { kill_at: clock::now(), why: Why::Fenced };
                self.own.process = Process::Stopping;
                return;
            }
            Life::Opening(_) | Life::Runs | Life::Closing(_) | Life::Ending { .. } => return,
        }
        self.life = Life::Runs;
        self.own.process = Process::Primary;
        self.begin_checks(Origin::Started);
        let term = self.own.promoted;
        self.tell(EventKind::InstanceStarted, format!("runs in term {term}"));
    }

    pub(super) async fn on_exited(&mut self, end: &End) {
        if self.ends_stopper(|| Ended::Exited(end.clone())) {
            return;
        }
        self.lease = Timestamp(0);
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

    /// Looks for a keeper in place of the one that is gone; it ends what that one left before it
    /// answers. Nothing waits for it meanwhile: promises are made, and leases pass.
    pub(super) fn reattach(&mut self) {
        if self.attaching || clock::now() < self.attach_at {
            return;
        }
        self.attaching = true;
        let (run_dir, exe) = (self.it.config.run_dir(), self.it.exe.clone());
        let (supervisor, sender) = (self.it.supervisor.clone(), self.finished.0.clone());
        self.it.supervisor.spawn("keeper of a command", TaskKind::Session, async move {
            let attached = Keeper::attach_or_spawn(&run_dir, &exe, &supervisor).await;
            let _ = sender.send(Finished::Attached(attached)).await;
        });
    }

    pub(super) async fn on_attached(&mut self, attached: Result<Attached, client::Error>) {
        self.attaching = false;
        match attached {
            Ok((keeper, events)) => {
                self.keeper = keeper;
                self.keeper_events = events;
                self.keeper_lost = false;
                // Nothing is planned before it is known what it holds: that is its first word, and
                // is there.
                let first = self.keeper_events.recv().await;
                self.on_keeper(first.unwrap_or(KeeperEvent::KeeperGone)).await;
            }
            Err(error) => {
                self.attach_at = clock::now().plus(ATTACH_AGAIN);
                tracing::error!(service = %self.service(), %error, "there is no keeper");
            }
        }
        // Of what was found running.
        self.awaits_user();
    }
}
