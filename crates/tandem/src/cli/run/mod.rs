//! Talks about what starts or makes something on this machine: the arguments of each command.
//! Not here: what they do (`cli/entry.rs` calls it).

pub mod config;
pub mod dev;
pub mod drill;
pub mod init;
pub mod join;
pub mod node;
pub mod password;
pub mod recover;
pub mod tour;
