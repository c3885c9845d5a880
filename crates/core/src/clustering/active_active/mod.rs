//! Every node works, and the share of a failed one goes to the others.
//!
//! A command whose work is divided runs a copy on each data node, under a lease: its *seat*, which
//! has terms like a singleton's, but never another holder (`seat`). Who owns which partition is
//! agreed (`cluster/partitions.rs`): by node and *sitting*, the last term of its seat for which all
//! earlier copies were proven gone. `controller` moves partitions: it never gives one away before
//! its owner released it, or its owner's sitting passed. `holder` is what a node tells its copy,
//! and what it says to be released. Why it is safe: `docs/adr/0015-partitions.md`. `routing` is
//! where doors send what belongs to a partition (`docs/adr/0017-doors-by-key.md`), `led` what of it
//! waits for nobody. `standing` is what operators are told of it all.
//!
//! The first four meet only in agreed state and facts, so each may crash between any two steps.
//! Keeps: INV-13, by its parts.

pub mod controller;
pub mod holder;
pub mod led;
pub mod placement;
pub mod routing;
pub mod seat;
pub mod standing;

#[cfg(test)]
mod tests;
