//! Carries out moves of a primary for operators: planned, and forced.

pub(super) mod failover;
pub(super) mod schedule;
pub(super) mod switchover;
