//! One instance takes writes, the others are fed by it.

pub mod desired_rule;
pub mod lag;
pub mod loaded_rule;
pub mod settings;
pub mod sync_quorum;
