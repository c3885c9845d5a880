//! The shipped core on a fake world: virtual time, disks, networks and PostgreSQL, from a seed.
//! Faults come from the seed, then everything heals and must serve again. Every invariant is
//! checked at every step; a run that fails repeats exactly.
//!
//! What it does not find: a keeper that wakes from a freeze a moment after the server it guards
//! (here the keeper always looks first), and anything in the shell's own code, which is modelled.

pub mod event;
pub mod explore;
pub mod faults;
pub mod invariants;
pub mod mutation;
pub mod network;
pub mod node;
pub mod operators;
pub mod options;
pub mod postgres;
pub mod raft;
pub mod rng;
pub mod runner;
pub mod singleton;
pub mod trace;
pub mod world;
