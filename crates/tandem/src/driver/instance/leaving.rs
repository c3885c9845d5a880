//! Carries the agreed configuration out on the own copy: takes new settings, and ends where it has
//! no place any more.
//! In: `Reconfigured`, the agreed state. Out: an answer once the server was told; a clean stop.
//! States: here → (its service or its node left the configuration) stopping → stopped → (they came
//! back) here.
//! Keeps: a service that ends is stopped cleanly, not by a lease that runs out; H48 the copy of a
//! node that is no member stops.
//! Not here: which configuration it is (`node/live.rs`).
//! Tested by: `tests/members`.

use super::InstanceDriver;
use crate::consensus::Agreed;
use crate::driver::actions::{STOP_FAST, STOP_IMMEDIATE};
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::service::postgres::InstanceConfig;
use crate::telemetry::problem::chain;
use std::time::Duration;
use tandem_core::clustering::active_passive::Action;
use tandem_core::facts::Process;
use tandem_core::time::Timestamp;
use tokio::sync::oneshot;

const RELOAD: Duration = Duration::from_secs(5);
/// Nobody is appointed for a service that is gone, so its primary may take every stage of a stop.
const FAREWELL: Duration = Duration::from_secs(1);
/// A node that is being removed and then is not takes its place again after this.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Another configuration of the own copy, and where the answer goes.
#[derive(Debug)]
pub struct Reconfigured {
    /// From now on; none where the node is no member any more.
    pub config: Option<InstanceConfig>,
    /// The server was told, or why not.
    pub answer: oneshot::Sender<Result<(), String>>,
}

impl InstanceDriver {
    /// Whether the own copy has a place in what is agreed, at this moment.
    pub(super) fn has_a_place(&self, agreed: &Agreed) -> bool {
        let state = &agreed.state;
        state.services.contains_key(self.service())
            && state.spec.nodes.contains_key(self.hub.me())
            && clock::now() >= self.away_until
    }

    /// The node is about to be removed: the copy stops, so that no commit waits for it any more.
    pub(super) fn step_aside(&mut self) {
        self.away_until = clock::now().plus(AWAY_MAX);
    }

    /// Stops what has no place any more.
    pub(super) async fn leave(&mut self, agreed: &Agreed) {
        // Before anything is agreed, nothing is known to have ended.
        if agreed.state.cluster.is_none() {
            return;
        }
        if let Some(running) = self.running.take_if(|it| matches!(it.action, Action::Clone { .. }))
        {
            running.cancel.cancel();
        }
        if matches!(self.own.process, Process::Stopped | Process::Stopping) {
            return;
        }
        tracing::info!(service = %self.service(), "has no place here any more: stops");
        let ended = !agreed.state.services.contains_key(self.service());
        if ended && self.own.process == Process::Primary && self.lease > clock::now() {
            self.hold_for_the_stop().await;
        }
        self.own.process = Process::Stopping;
        self.context.stopped.send_replace(false);
        self.publish();
        let context = self.context.clone();
        self.supervisor.spawn("stop for good", TaskKind::Session, async move {
            if let Err(error) = context.stop().await {
                tracing::error!(service = %context.service, %error, "an instance does not stop");
            }
        });
    }

    async fn hold_for_the_stop(&mut self) {
        let until: Timestamp = clock::now().plus(STOP_FAST + STOP_IMMEDIATE + FAREWELL);
        self.lease = self.lease.max(until);
        if let Err(error) = self.context.keeper.renew(until).await {
            tracing::warn!(service = %self.service(), %error, "the lease was not renewed");
        }
    }

    /// Uses another configuration; a running server loads it, another one has it when it starts.
    pub(super) fn reconfigure(&mut self, Reconfigured { config, answer }: Reconfigured) {
        let Some(config) = config else {
            self.away_until = Timestamp(u64::MAX);
            let _ = answer.send(Ok(()));
            return;
        };
        if let Err(error) = self.context.postgres.reconfigure(config) {
            let _ = answer.send(Err(chain(&error)));
            return;
        }
        let postgres = self.context.postgres.clone();
        self.shared.send_replace(postgres.clone());
        self.upkeep_due.notify_one();
        if !matches!(self.own.process, Process::Standby | Process::Primary) {
            // The next start has it; one that fails has to be seen to succeed first.
            let starts = self.own.starts_failed == 0;
            let _ = answer.send(if starts { Ok(()) } else { Err("it does not start".into()) });
            return;
        }
        self.supervisor.spawn("load new settings", TaskKind::Session, async move {
            let done = postgres.reload(RELOAD).await;
            let _ = answer.send(done.map_err(|error| chain(&error)));
        });
    }
}
