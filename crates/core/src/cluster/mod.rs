//! What all nodes agree on.

pub mod command;
pub mod copies;
pub mod lease;
pub mod partitions;
pub mod seats;
pub mod state;
