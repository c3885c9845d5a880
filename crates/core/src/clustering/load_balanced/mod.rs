//! Work is spread over everything that can do it.

pub mod balance;
