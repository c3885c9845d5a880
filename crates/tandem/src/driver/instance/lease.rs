//! Decides until when the own copy may serve by what is proven now, and tells its keeper.
//! In: an appointment, acknowledged heartbeats. Out: the keeper's lease, pushed forward.
//! Keeps: INV-3 the lease is pushed only while it is proven.
//! Not here: what proves it (`tandem_core::cluster::lease`).

use super::{InstanceDriver, Running};
use crate::runtime::clock;
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::lease::{self, Proof};
use tandem_core::cluster::state::{Appointment, ServiceState};
use tandem_core::clustering::active_passive::Action;
use tandem_core::facts::Process;
use tandem_core::ids::NodeId;
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;

/// The lease is pushed again when it grew by this much.
const LEASE_STEP: Duration = Duration::from_millis(150);

impl InstanceDriver {
    /// Pushes the lease of a primary as far as it is proven (INV-3).
    pub(super) async fn hold_lease(
        &mut self,
        state: &ServiceState,
        spec: &ServiceSpec,
        voters: &BTreeSet<NodeId>,
    ) {
        let rises = matches!(self.running, Some(Running { action: Action::Promote { .. }, .. }));
        let stops =
            matches!(self.running, Some(Running { action: Action::StopForSwitchover { .. }, .. }));
        if self.own.process != Process::Primary && !rises && !stops {
            return;
        }
        let Some(appointment) = state.appointment.as_ref() else { return };
        let Some(until) = self.proven_until(appointment, spec, voters) else { return };
        if until >= self.lease.plus(LEASE_STEP) {
            self.lease = until;
            if let Err(error) = self.context.keeper.renew(until).await {
                tracing::warn!(service = %self.service(), %error, "the lease was not renewed");
            }
        }
    }

    pub(super) fn proven_until(
        &self,
        appointment: &Appointment,
        spec: &ServiceSpec,
        voters: &BTreeSet<NodeId>,
    ) -> Option<Timestamp> {
        let me = self.hub.me();
        let term = appointment.term;
        if appointment.primary != *me || self.own.promised > term {
            return None;
        }
        let proof = Proof {
            me,
            voters,
            rules: &appointment.rules,
            now: clock::now(),
            acknowledged: &self.hub.proof(self.service(), spec, term),
        };
        lease::valid_until(&proof, spec.timing.lease)
    }

    /// From when on a ballot of this node counts (`Async`).
    pub(super) fn fence_wait(&self, spec: &ServiceSpec) -> Option<Timestamp> {
        let agreed = self.agreed.borrow();
        let state = agreed.state.services.get(self.service());
        let appointment = state.and_then(|state| state.appointment.as_ref());
        let answered = appointment.and_then(|it| self.hub.answered_at(&it.primary));
        // Where nobody is known to be appointed, this daemon supported nobody: only an earlier one
        // did.
        lease::outlived(spec, answered, self.memory.since())
    }
}
