//! Carries out one look at the own copy of a command that runs under a lease: asks the core, and
//! begins what it says.
//! In: agreed state, facts, the lease that is proven. Out: at most one action; its reason.
//! Not here: the decision (`tandem_core::clustering::active_passive::singleton`), how it is carried
//! out (`acting.rs`).
//! Tested by: `tests.rs`.

use super::SingletonDriver;
use crate::runtime::clock;
use std::time::Duration;
use tandem_core::cluster::lease::counts_from;
use tandem_core::cluster::state::{ClusterState, ServiceState};
use tandem_core::clustering::active_active::seat::is_emptied_first;
use tandem_core::clustering::active_passive::singleton::{Next, SingletonView, instance};
use tandem_core::facts::Process;
use tandem_core::facts::withdrawal::{Doors, Wish};
use tandem_core::spec::{ServiceSpec, Timing};
use tandem_core::time::Timestamp;

/// A new holder asks this often for the proof of its lease, and for so long.
const PROOF_EVERY: Duration = Duration::from_millis(10);
const PROOF_WITHIN: Duration = Duration::from_secs(1);

impl SingletonDriver {
    pub(super) async fn decide(
        &mut self,
        (spec, state): (&ServiceSpec, &ServiceState),
        agreed: &ClusterState,
        lease: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let now = clock::now();
        let me = self.it.hub.me().clone();
        let own = self.judged();
        let facts = self.it.hub.everyone();
        let (suspicion, drain_max) = (spec.timing.suspicion, self.it.config.drain_max);
        let leaves = self.away_until > now;
        let view = SingletonView {
            me: &me,
            timing: spec.timing,
            state,
            own: &own,
            asked: self.asked,
            lease,
            counts_from: counts_from(spec, state, &self.answered, self.memory.since()),
            retry_at: self.retry_at.max(self.away_until),
            wish: if leaves { Wish::Leave } else { self.wish },
            is_emptied_first: spec.seat.as_ref().is_some_and(|it| is_emptied_first(agreed, it)),
            doors: Doors {
                me: &me,
                service: self.service(),
                nodes: &agreed.spec.nodes,
                facts: &facts,
                suspicion,
                drain_max,
            },
        };
        let Next { action, reason, again } = instance::plan(&view, now);
        let steps = action.iter().map(ToString::to_string).collect();
        self.it.explanations.note(self.service(), "instance", steps, &reason);
        match action {
            Some(action) => {
                self.act(action, &reason).await;
                again
            }
            None => again.or_else(|| self.ask_for_proof(spec.timing, state, lease)),
        }
    }

    /// A holder that may not start yet does not wait for the next heartbeat: whoever has just
    /// learnt of its appointment supports it now.
    pub(super) fn ask_for_proof(
        &self,
        timing: Timing,
        state: &ServiceState,
        lease: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let holds = self.holds(state) && state.switchover.is_none();
        // One that is about to pass is not started under either.
        let soon = clock::now().plus(timing.lease / 2);
        let lacks = lease.is_none_or(|until| until < soon);
        let waits = holds && self.own.process == Process::Stopped && lacks;
        // Where no majority answers, the usual heartbeats must do.
        (waits && self.own.stalled < PROOF_WITHIN).then(|| {
            self.it.hub.nudge();
            clock::now().plus(PROOF_EVERY)
        })
    }
}
