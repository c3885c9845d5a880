//! Tells that nothing is left of services whose copies ran side by side.
//! Not here: what follows from it (`clustering/copies/left.rs`).

use crate::ids::{ConfigVersion, ServiceId};
use alloc::collections::BTreeSet;
use serde::{Deserialize, Serialize};

/// Of which services nothing is left on a node, whose copies ran side by side: no lease bounds
/// those.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The configuration that the node goes by, after a restart too, and that does not have them.
    pub version: ConfigVersion,
    /// Their names.
    pub services: BTreeSet<ServiceId>,
}
