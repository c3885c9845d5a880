//! What a node tells of its doors to those whose copies are to be stopped.
//! In: the door's claims. Out: `DoorUse`, in the node's facts.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What a door has at a copy that is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorUse {
    /// The withdrawal that it obeys: it sends nothing new there.
    pub obeys: Timestamp,
    /// What is not over yet.
    pub in_flight: u32,
}
