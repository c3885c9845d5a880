//! Work is spread over everything that can do it.

pub mod answers;
pub mod attempts;
pub mod balance;
pub mod ejection;
pub mod key;
pub mod latency;
pub mod line;
pub mod owners;
pub mod pace;
pub mod quantiles;
pub mod rate;
pub mod rendezvous;
pub mod retry;
