//! Talks to clients and servers in PostgreSQL's protocol 3, as far as a door must understand it.
//! In / Out: bytes. Not here: sockets' lifetimes (`session.rs`).

pub(super) mod answer;
mod arguments;
pub(super) mod durability;
#[cfg(test)]
mod fuzz;
mod lex;
mod recognise;
pub(super) mod scan;
pub(super) mod startup;
mod token;
pub(super) mod walk;
