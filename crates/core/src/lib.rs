//! Tandem's decisions: data in, data out.
//! No clock, no I/O, no randomness: the same view and the same time give the same plan, so the code
//! that ships is the code that is simulated. `no_std` makes a leak a compile error.

#![no_std]
#![warn(missing_docs)]

extern crate alloc;

pub mod attempts;
pub mod cluster;
pub mod clustering;
pub mod facts;
pub mod ids;
pub mod lsn;
pub mod pairing;
pub mod reason;
pub mod replication;
pub mod spec;
pub mod time;
