//! Talks to the service as its clients do, and keeps what they were told outside of the database.
//! In: addresses, a login. Out: histories, rows, and what the two together prove.
//! Not here: what is broken meanwhile (`steps.rs`), what a report says of it (`report.rs`).
//! Tested by: the tests of each file.

pub mod attempts;
pub mod canary;
pub mod copies;
pub mod history;
pub mod ledger;
pub mod overlap;
pub mod session;
pub mod workload;
