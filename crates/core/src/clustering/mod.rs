//! Axis 1: who serves.

pub mod active_passive;
pub mod copies;
pub mod load_balanced;
pub mod members;
