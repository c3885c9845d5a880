//! Talks Raft: keeps the agreed state on every voter.
