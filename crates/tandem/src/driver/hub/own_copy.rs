//! Keeps what only its own node needs to know of a copy, and what its seat says beside its driver.
//! In: the driver's words, the seat's. Out: the same, for the other of the two.
//! Keeps: INV-13 what is known of the copy and how many ended are of one moment.

use super::Hub;
use tandem_core::facts::{InstanceFacts, SeatFacts, seat_differs};
use tandem_core::ids::ServiceId;
use tandem_core::time::Timestamp;

/// What only its own node needs to know of a copy, or tells of it apart from its driver.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnCopy {
    /// Copies of which nothing is left, since the daemon started.
    pub ends: u64,
    /// Until when the present one may run, as its keeper knows.
    pub lease: Timestamp,
    /// What its node says of its partitions.
    pub seat: SeatFacts,
}

impl Hub {
    /// A copy of a command ended here, to its last process. Told before its end is published.
    pub fn ended(&self, service: &ServiceId) {
        self.known().copies.entry(service.clone()).or_default().ends += 1;
    }

    /// The own instance as it was published last, and how many copies had ended by then or later.
    pub fn own_instance(&self, service: &ServiceId) -> Option<(InstanceFacts, u64)> {
        let known = self.known();
        let (facts, _) = known.instances.get(service)?;
        Some((facts.clone(), known.copies.get(service).map_or(0, |copy| copy.ends)))
    }

    /// The own copy may run until then.
    pub fn lease(&self, service: &ServiceId, until: Timestamp) {
        self.known().copies.entry(service.clone()).or_default().lease = until;
    }

    /// Until when the own copy may run.
    pub fn leased(&self, service: &ServiceId) -> Timestamp {
        self.known().copies.get(service).map_or(Timestamp(0), |copy| copy.lease)
    }

    /// What this node says of the partitions of its copy; the others are told at once where
    /// somebody may wait for it.
    pub fn seated(&self, service: &ServiceId, facts: SeatFacts) {
        let mut known = self.known();
        let copy = known.copies.entry(service.clone()).or_default();
        let before = std::mem::replace(&mut copy.seat, facts.clone());
        drop(known);
        if seat_differs(&before, &facts) {
            self.wake();
        }
    }
}
