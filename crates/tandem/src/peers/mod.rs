//! Talks to the other nodes: one mutually authenticated connection to each.
