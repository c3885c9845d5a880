//! Decides where the doors of a command lead of which one copy runs.
//! In: what is agreed, what each node last said. Out: a node, or none: then clients are held.
//! Keeps: INV-7, H41 only the holder of the newest term known here, healthy, and heard lately;
//! INV-14 none that has withdrawn.
//! Not here: what a door says to one that withdrew (`facts/withdrawal.rs`).
//! Tested by: `tests/withdrawn.rs`, and the simulator (`sim/src/singleton`).

use crate::cluster::state::ServiceState;
use crate::facts::{NodeFacts, Process};
use crate::ids::{NodeId, ServiceId};
use crate::time::{Observed, Timestamp};
use alloc::collections::BTreeMap;
use core::time::Duration;

/// What a node knows when it leads clients to the copy.
#[derive(Clone, Copy, Debug)]
pub struct DoorView<'a> {
    /// The service.
    pub service: &'a ServiceId,
    /// What is agreed of it.
    pub state: &'a ServiceState,
    /// What each node last said, this one included.
    pub facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
    /// What a node said longer ago is not known to be so now.
    pub suspicion: Duration,
}

/// Whose copy takes clients now.
pub fn leads_to<'a>(view: &DoorView<'a>, now: Timestamp) -> Option<&'a NodeId> {
    let appointment = view.state.appointment.as_ref()?;
    let facts = view.facts.get(&appointment.primary)?.fresh(now, view.suspicion)?;
    let own = facts.instances.get(view.service)?;
    let serves = own.process == Process::Primary && own.serving == Some(appointment.term);
    (serves && own.withdrawn.is_none()).then_some(&appointment.primary)
}
