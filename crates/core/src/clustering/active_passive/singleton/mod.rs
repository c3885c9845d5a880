//! Decides where a command runs of which exactly one copy may run.
//!
//! As for a primary, two planners without memory: `controller` for the service, on the Raft leader;
//! `instance` for the own copy, on every node. `election` is what the controller does when the copy
//! shall run elsewhere. Why it is safe: `docs/adr/0014-singletons.md`.
//!
//! In the facts of an instance, `process` `Primary` is "it runs", `promoted` the term that it was
//! started for, `serving` "it is healthy", `starts_failed` its failures in a row, `stalled` how
//! long it should have run by now.
//! Keeps: INV-12, by its parts.

mod controller;
mod election;
pub mod instance;

use core::time::Duration;

pub use controller::{judge, plan};
pub use election::{ballots, best, is_fit, recruits};
pub use instance::{Action, Next, SingletonView};

/// Failures in a row after which a node is given up for a while.
pub const FAILURES_MAX: u32 = 5;

/// A copy that ran this long ended the row of failures before it.
pub const RAN_WELL_AFTER: Duration = Duration::from_secs(10);

/// The longest pause before it is started again.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long to wait before the next start, after so many failures in a row: at once after the
/// first, since most crashes do not repeat.
pub fn retry_after(failures: u32) -> Duration {
    if failures < 2 {
        return Duration::ZERO;
    }
    Duration::from_millis(200 << (failures - 2).min(8)).min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests;
