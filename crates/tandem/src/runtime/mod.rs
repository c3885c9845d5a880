//! Spawns tasks, reads the clock, starts processes: the only place that may.

pub mod clock;
pub mod process;
pub mod signals;
pub mod supervisor;
pub mod user;
pub mod woken;
pub mod workers;
