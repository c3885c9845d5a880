//! What all nodes agree on.

pub mod command;
pub mod copies;
pub mod lease;
pub mod memory;
pub mod partitions;
pub mod ranges;
pub mod seats;
pub mod state;
pub mod taken_out;
