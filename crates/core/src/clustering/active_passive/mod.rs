//! One instance serves, another takes over.
//!
//! Two planners, both without memory: `controller` plans for the service as a whole, on the Raft
//! leader; `instance` plans for the own copy, on every node. They meet only in agreed state and
//! facts, so either may crash, repeat itself or be replaced between any two steps.

mod action;
pub mod candidate;
pub mod controller;
mod election;
mod founding;
pub mod instance;
pub mod loss;
pub mod rejoin;
pub mod routing;
mod steady;
pub mod trail;
pub mod verdict;
pub mod witness;

pub use action::Action;
pub use controller::{ControllerView, Plan, Step};
pub use instance::InstanceView;
pub use steady::SWITCHOVER_LAG_BYTES_MAX;
