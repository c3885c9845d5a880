//! Decides what PostgreSQL would do: its log, its timelines, streaming, synchronous commit.
//! Modelled on PostgreSQL 15, including what makes it dangerous.

pub mod commit;
pub mod server;
pub mod stream;
pub mod wal;
