//! Bad input and bad days, with real processes: refused or survived, with what, because, try.
//! What a test of one process cannot show is tested where it can be: `docs/operating/bad-days.md`
//! lists every situation with its test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "a test that cannot run here says so")]

mod before;
mod folders;
mod mixed_up;
mod place;
mod start;
