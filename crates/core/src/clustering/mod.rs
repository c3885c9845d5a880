//! Axis 1: who serves.

pub mod active_active;
pub mod active_passive;
pub mod load_balanced;
