//! Talks to a running node to learn something; changes nothing.

pub mod balanced;
mod divided;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod status;
pub mod stream;
