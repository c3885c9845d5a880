//! What all nodes agree on.

pub mod command;
pub mod copies;
pub mod lease;
pub mod state;
