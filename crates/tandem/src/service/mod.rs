//! Talks to the things that are protected, one adapter per kind.

pub mod command;
pub mod postgres;
