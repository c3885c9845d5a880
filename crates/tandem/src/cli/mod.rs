//! Talks to the person at the terminal.

pub mod config;
