//! Runs the action that is planned for the own copy: begins it, ends it when it is not wanted any
//! more, and takes what it changed into the facts; one at a time.
//! In: agreed state, facts. Out: an action under way; facts once it is over.
//! Keeps: a fence waits for nothing; H42 the lease is known before a promotion begins.
//! Not here: what an action does, step by step (`actions/`).

use super::foreign;
use super::{End, Finished, InstanceDriver, Running};
use crate::driver::actions::{Failure, Given};
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::{Action, InstanceView, instance};
use tandem_core::facts::{Data, Process};
use tandem_core::ids::NodeId;
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// After a failed action, doubled each time up to the maximum.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

impl InstanceDriver {
    pub(super) async fn decide(
        &mut self,
        state: &ServiceState,
        spec: &ServiceSpec,
        voters: BTreeSet<NodeId>,
    ) {
        self.own.revision = state.revision;
        foreign::keep(&mut self.own, state.system);
        let everyone = self.hub.everyone();
        let now = clock::now();
        let of = (self.service(), state);
        let me = self.hub.me();
        let primary = InstanceView::heard_primary(me, of, &everyone, (&spec.timing, now));
        let view = InstanceView {
            me: self.hub.me(),
            timing: spec.timing,
            state,
            own: &self.own,
            primary,
            asked: self.asked,
        };
        let next = instance::plan(&view);
        let steps = next.action.iter().map(ToString::to_string).collect();
        self.explanations.note(self.service(), "instance", steps, &next.reason);
        let Some(action) = next.action else {
            self.stop_running(None);
            return;
        };
        if action == Action::Fence {
            self.stop_running(Some(&action));
            self.fence().await;
            return;
        }
        if self.running.as_ref().is_some_and(|running| running.action == action) {
            return;
        }
        self.stop_running(Some(&action));
        // One that cannot be made durable waits like everything else before it is tried again.
        let has_failed = self.failed.as_ref() == Some(&action);
        let urgent = matches!(action, Action::Promise { .. }) && !has_failed;
        if self.running.is_none() && (urgent || now >= self.retry_at) {
            let lease = state
                .appointment
                .as_ref()
                .and_then(|appointment| self.proven_until(appointment, spec, &voters));
            if matches!(action, Action::Promote { .. }) && lease.is_none_or(|until| until <= now) {
                // Those who know of the appointment answer in a moment: no failure to back off
                // from.
                return;
            }
            self.begin(action, lease, spec);
        }
    }

    /// Ends an action that only waits, when another one, or none, is due.
    pub(super) fn stop_running(&mut self, next: Option<&Action>) {
        let Some(running) = &self.running else { return };
        let waits = matches!(
            running.action,
            Action::RecordTerm { .. } | Action::ApplyRule { .. } | Action::Checkpoint
        );
        let copies = matches!(running.action, Action::Clone { .. });
        // Before it stops the server it only writes a checkpoint.
        let prepares = matches!(running.action, Action::StopForSwitchover { .. })
            && self.own.process == Process::Primary;
        let yields = waits || prepares || copies && next.is_some();
        if yields && next != Some(&running.action) {
            running.cancel.cancel();
            self.running = None;
            if copies {
                // Its sentinel is on disk: what there is of the copy is of no use.
                self.own.data = Data::Mixed;
            }
        }
    }

    pub(super) async fn fence(&mut self) {
        if let Err(error) = self.context.keeper.kill().await {
            tracing::error!(service = %self.service(), %error, "the keeper did not take the kill");
        }
    }

    pub(super) fn begin(&mut self, action: Action, lease: Option<Timestamp>, spec: &ServiceSpec) {
        tracing::info!(service = %self.service(), ?action, "begins");
        self.tell_begin(&action);
        match &action {
            // From the first byte of the new setting on, nothing is proven (H9).
            Action::ApplyRule { .. } => self.own.rule = None,
            Action::RecordTerm { rule, .. } => {
                self.own.rule.take_if(|own| own != rule);
            }
            Action::Promote { .. } => self.own.process = Process::Promoting,
            Action::StopToRejoin => {
                self.own.process = Process::Stopping;
                self.context.stopped.send_replace(false);
            }
            Action::Clone { .. } => {
                self.context.progress.send_replace(None);
                self.own.data = Data::Copying { percent: None };
            }
            // From now on what this node acknowledges proves no lease any more; the ballot follows
            // once the promise is durable.
            Action::Promise { term } => self.own.promised = self.own.promised.max(*term),
            Action::Found
            | Action::Start { .. }
            | Action::Follow { .. }
            | Action::Reaffirm { .. }
            | Action::StopForSwitchover { .. }
            | Action::Checkpoint
            | Action::Rewind { .. }
            | Action::Quarantine { .. }
            | Action::Fence => {}
        }
        if let (Action::Promote { .. }, Some(until)) = (&action, lease) {
            self.lease = until;
        }
        self.publish();
        let cancel = CancellationToken::new();
        let task = {
            let context = self.context.clone();
            let (action, cancel, own) = (action.clone(), cancel.clone(), self.own.clone());
            let fence_wait = self.fence_wait(spec);
            let sender = self.finished.0.clone();
            let life = self.life;
            async move {
                let (stops, asked) = oneshot::channel();
                let given = Given { own, lease, fence_wait, cancel: cancel.clone(), stops };
                let work = context.execute(action.clone(), given);
                let told = tell_of_stop(&sender, &action, life, asked);
                let (result, ()) = tokio::select! {
                    biased;
                    () = cancel.cancelled() => return,
                    ends = async { tokio::join!(work, told) } => ends,
                };
                // The driver ended first: there is nobody left to tell.
                let _ = sender.send(Finished { action, life, end: End::Over(result) }).await;
            }
        };
        self.supervisor.spawn("instance action", TaskKind::Session, task);
        self.running = Some(Running { action, cancel });
    }

    pub(super) async fn on_finished(&mut self, Finished { action, life, end }: Finished) {
        let is_current = self.running.as_ref().is_some_and(|running| running.action == action);
        let result = match end {
            End::Over(result) => result,
            End::Stops(go) => {
                if is_current && life == self.life {
                    self.own.process = Process::Stopping;
                    self.context.stopped.send_replace(false);
                    self.publish();
                    // It ended meanwhile: then there is nothing to stop.
                    let _ = go.send(());
                }
                return;
            }
        };
        if is_current {
            self.running = None;
        }
        match result {
            Ok(change) => {
                self.tell_action(&action, None);
                self.changed_at = clock::now();
                self.observed_at = self.changed_at;
                change(&mut self.own);
                self.failed = None;
                if life != self.life && self.own.process != Process::Stopped {
                    // The instance ended before this was heard: what was made durable counts, what
                    // it says of a running server does not.
                    self.own = self.own.clone().after_end();
                    self.own.starts_failed += u32::from(matches!(action, Action::Start { .. }));
                    self.context.inspect(&mut self.own).await;
                    self.back_off();
                }
                if !matches!(action, Action::Start { .. }) {
                    self.failures = 0;
                    self.retry_at = Timestamp(0);
                }
                self.observer.watch_running(self.own.process != Process::Stopped);
                self.observer.look();
                self.upkeep_due.notify_one();
            }
            Err(Failure { text, passes }) => {
                tracing::warn!(service = %self.service(), ?action, error = text, "action failed");
                self.tell_action(&action, Some(&text));
                self.back_off();
                self.failed = Some(action.clone());
                self.own.starts_failed += u32::from(matches!(action, Action::Start { .. }));
                let copies = matches!(action, Action::Rewind { .. } | Action::Clone { .. });
                if copies && !passes {
                    self.own.rejoin_failures += 1;
                }
                if copies || action == Action::Found {
                    // What it left behind decides what is possible now.
                    self.context.inspect(&mut self.own).await;
                }
            }
        }
    }

    pub(super) fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_MAX);
        self.retry_at = clock::now().plus(wait);
    }
}

/// Passes an action's wish to stop the server on to the driver.
async fn tell_of_stop(
    sender: &mpsc::Sender<Finished>,
    action: &Action,
    life: u64,
    asked: oneshot::Receiver<oneshot::Sender<()>>,
) {
    // Most actions never ask.
    let Ok(go) = asked.await else { return };
    let _ = sender.send(Finished { action: action.clone(), life, end: End::Stops(go) }).await;
}
