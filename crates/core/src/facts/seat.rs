//! What a node says of its copy of a command whose work is divided.

use crate::ids::{ConfigVersion, Epoch, PartitionId};
use alloc::collections::BTreeMap;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What the copy of a seat says of its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatFacts {
    /// The table that this is about, by the configuration that made it.
    pub table: ConfigVersion,
    /// Durable: no process of this node works on these any more, nor will for that epoch (INV-13).
    pub released: BTreeMap<PartitionId, Epoch>,
    /// For how long there has been no copy that is well.
    pub unwell: Duration,
    /// Its disk takes nothing, so that it cannot release anything either.
    pub mute: bool,
}
