//! Carries decisions out: gathers a view, asks the core, executes its effects.

pub mod actions;
pub mod asks;
pub mod controller;
pub mod explain;
pub mod guides;
pub mod heartbeat;
pub mod hub;
pub mod instance;
pub mod observer;
pub mod routes;
pub mod seats;
pub mod singleton;
pub mod upkeep;
pub mod wire;
pub mod witness;
