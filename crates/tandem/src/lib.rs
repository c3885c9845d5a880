//! High availability for PostgreSQL and any other service, in one binary.
//! See ARCHITECTURE.md for the map.

pub mod api;
pub mod cli;
pub mod config;
pub mod consensus;
pub mod dev;
pub mod drill;
pub mod driver;
pub mod fence;
pub mod identity;
pub mod node;
pub mod peers;
pub mod proxy;
pub mod runtime;
pub mod service;
pub mod telemetry;
