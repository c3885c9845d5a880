//! The keeper with real processes: it reports, it fences, and nothing of an instance outlives it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "times are reported, never asserted")]

mod command;
mod fencing;
mod postgres;
mod programs;
mod serving;
mod world;
