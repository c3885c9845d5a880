//! Axis 1: who serves.

pub mod active_active;
pub mod active_passive;
pub mod checks;
pub mod copies;
pub mod load_balanced;
pub mod members;

use crate::time::Timestamp;
use active_passive::{ControllerView, Plan};

/// Plans for one service, or for one seat of it.
pub fn plan(view: &ControllerView<'_>, now: Timestamp) -> Plan {
    match (&view.spec.seat, &view.state.partitions) {
        (Some(seat), _) => active_active::seat::plan(view, seat, now),
        (None, Some(table)) => active_active::controller::plan(view, table, now),
        (None, None) => active_passive::controller::plan(view, now),
    }
}
