//! One instance takes writes, the others are fed by it.

pub mod sync_quorum;
