//! Drives whole balancers over sockets: what a client writes, what its endpoint gets, what comes
//! back.

mod balancing;
mod checks;
mod corpus;
mod endpoint;
mod ends;
mod faults;
pub(super) mod fuzz;
mod h2;
mod keys;
mod limits;
mod messages;
mod mutations;
mod owners;
pub(in crate::proxy) mod support;
pub(in crate::proxy) mod tls;
mod upstream_tls;
