//! Decides until when the own copy may run by what is proven now, and tells its keeper.
//! In: agreed state, acknowledged heartbeats. Out: the proven end of the lease; the keeper's lease.
//! Keeps: INV-3, INV-12 the lease is pushed only while it is proven, for the term that the copy was
//! started for, and by a node that has promised no later one.
//! Not here: what proves it (`tandem_core::cluster::lease`).

use super::{Life, SingletonDriver};
use crate::runtime::clock;
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::lease::{Proof, valid_until};
use tandem_core::cluster::state::ServiceState;
use tandem_core::ids::NodeId;
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;

/// The keeper is told when the lease grew by this much.
const LEASE_STEP: Duration = Duration::from_millis(50);

impl SingletonDriver {
    /// Until when the lease is proven; pushes what runs as far.
    pub(super) async fn hold_lease(
        &mut self,
        spec: &ServiceSpec,
        state: &ServiceState,
        voters: &BTreeSet<NodeId>,
    ) -> Option<Timestamp> {
        let until = self.proven_until(spec, state, voters)?;
        let is_its_own = self.own.promoted == state.term() && self.life != Life::Nothing;
        if is_its_own && until >= self.lease.plus(LEASE_STEP) {
            self.lease = until;
            if let Err(error) = self.it.keeper.renew(until).await {
                tracing::debug!(service = %self.service(), %error, "the lease was not renewed");
            }
        }
        Some(until)
    }

    fn proven_until(
        &self,
        spec: &ServiceSpec,
        state: &ServiceState,
        voters: &BTreeSet<NodeId>,
    ) -> Option<Timestamp> {
        let me = self.it.hub.me();
        let appointment = state.appointment.as_ref().filter(|it| it.primary == *me)?;
        let promised = self.own.promised.max(self.durable.promised);
        if promised > appointment.term {
            return None;
        }
        let proof = Proof {
            me,
            voters,
            rules: &appointment.rules,
            now: clock::now(),
            acknowledged: &self.it.hub.proof(self.service(), spec, appointment.term),
        };
        valid_until(&proof, spec.timing.lease)
    }

    /// The same, by what is agreed now.
    pub(super) fn proven_now(&self) -> Option<Timestamp> {
        let agreed = self.it.agreed.borrow().clone();
        let spec = agreed.state.spec.services.get(self.service())?;
        let state = agreed.state.services.get(self.service())?;
        let voters = agreed.state.spec.nodes.keys().cloned().collect();
        let is_its_own = self.own.promoted == state.term();
        self.proven_until(spec, state, &voters).filter(|_| is_its_own)
    }
}
