//! Axis 2: who holds the data.

pub mod primary_replica;
