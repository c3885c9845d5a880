//! The keeper with real processes: it reports, it fences, and nothing of an instance outlives it.

mod fencing;
mod postgres;
mod serving;
mod world;
