//! Decides where a command runs of which exactly one copy may run.
//!
//! As for a primary, two planners without memory: `controller` for the service, on the Raft leader;
//! `instance` for the own copy, on every node. `election` is what the controller does when the copy
//! shall run elsewhere; `door` says where clients are led. Why it is safe:
//! `docs/adr/0014-singletons.md`.
//!
//! In the facts of an instance, `process` `Primary` is "it runs", `promoted` the term that it was
//! started for, `serving` "it is healthy", `starts_failed` its failures in a row, `stalled` how
//! long it should have run by now, `withdrawn` "hold whoever comes", `pending_restart` "it runs as
//! an earlier configuration said".
//! Keeps: INV-12, by its parts.

mod controller;
pub mod door;
mod election;
pub mod instance;

pub use crate::attempts::{FAILURES_MAX, RAN_WELL_AFTER, RETRY_AFTER_MAX, retry_after};
pub use controller::{judge, plan};
pub use election::{ballots, best, is_fit, recruits};
pub use instance::{Action, Next, SingletonView};

#[cfg(test)]
mod tests;
