//! Answers what the keeper of the own copy says, and its death.
//! In: the keeper's words. Out: facts: "stopped" only once no process of the instance is left (H3).
//! Not here: what the keeper is told (`acting.rs`, `actions/`).

use super::InstanceDriver;
use super::sweep::sweep;
use crate::fence::client::KeeperEvent;
use crate::fence::protocol::{State, Status};
use crate::runtime::clock;
use crate::telemetry::event_kind::EventKind;
use tandem_core::facts::Process;
use tandem_core::time::Timestamp;
use tokio::sync::mpsc;

impl InstanceDriver {
    pub(super) async fn on_keeper(&mut self, event: KeeperEvent) {
        match event {
            KeeperEvent::Started { .. } => {}
            KeeperEvent::Exited(end) => {
                self.tell_end(&end);
                self.gone(end.is_clean()).await;
            }
            KeeperEvent::Stuck { pids } => {
                tracing::error!(service = %self.service(), ?pids, "killed processes do not die");
            }
            KeeperEvent::KeeperGone => {
                let Some(left) = self.sweep().await else { return };
                let message =
                    format!("the keeper is gone, and the instance with it; {left} were killed");
                self.tell(EventKind::InstanceExited, message);
                self.gone(false).await;
                self.reattach().await;
            }
            KeeperEvent::Status(status) => self.on_keeper_status(&status).await,
        }
    }

    pub(super) async fn on_keeper_status(&mut self, status: &Status) {
        if matches!(status.state, State::Ending { .. }) && self.own.process == Process::Stopped {
            // Left by an earlier keeper or daemon: nothing to take over, but not gone yet (H3).
            self.own.process = Process::Stopping;
            return;
        }
        if status.state != State::Idle {
            if self.own.process == Process::Stopped {
                self.own.process = Process::Starting;
                self.observer.watch_running(true);
                self.tell(EventKind::InstanceAdopted, "a running instance was taken over");
            }
            return;
        }
        // An earlier keeper may have been killed while nobody was there to hear of it.
        let Some(left) = self.sweep().await else { return };
        if left > 0 {
            let message = format!("{left} processes without a keeper were killed");
            self.tell(EventKind::InstanceExited, message);
        }
        self.settled = true;
        if self.own.process != Process::Stopped {
            self.gone(false).await;
        }
    }

    /// Returns once no process works in the data directory (H3); how many were killed for it.
    /// None if the daemon is to end meanwhile: then nothing is claimed.
    pub(super) async fn sweep(&self) -> Option<usize> {
        let data = self.context.postgres.data_dir();
        let stop = self.supervisor.stopping();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            killed = sweep(&data) => Some(killed.len()),
        }
    }

    /// The keeper is a new one after it was killed; until it is there nothing can be started.
    pub(super) async fn reattach(&mut self) {
        match self.context.reattach(&self.supervisor).await {
            Ok((keeper, events)) => {
                self.context.keeper = keeper;
                self.keeper_events = events;
                self.keeper_lost = false;
            }
            Err(error) => {
                tracing::error!(service = %self.service(), %error, "no keeper can be started");
                let (_, never) = mpsc::channel(1);
                self.keeper_events = never;
                self.keeper_lost = true;
                self.back_off();
            }
        }
    }

    /// No process of the instance is left.
    pub(super) async fn gone(&mut self, clean: bool) {
        if self.own.process == Process::Starting {
            // It ended before it answered once: the next start would end the same way.
            self.back_off();
            self.own.starts_failed += 1;
        }
        self.life += 1;
        self.observer.watch_running(false);
        self.context.stopped.send_replace(true);
        self.changed_at = clock::now();
        self.lease = Timestamp(0);
        // Whether it ended cleanly, and where, only its files prove: an immediate stop exits with 0
        // as well. Until they were read it counts as a crash.
        let ended = self.own.clone().after_end();
        if !clean {
            // The others need to know at once; where the log ends matters only later.
            self.own = ended.clone();
            self.publish();
        }
        self.own = ended;
        self.context.inspect(&mut self.own).await;
        self.observed_at = clock::now();
    }
}
