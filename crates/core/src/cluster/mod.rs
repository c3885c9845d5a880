//! What all nodes agree on.

pub mod command;
pub mod lease;
pub mod partitions;
pub mod state;
