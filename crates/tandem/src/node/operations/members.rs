//! Talks about members and configuration: hands the verb on.
//! Not here: how it is done.

use super::NodeOperations;
use crate::api::operations::{Outcome, Refused, Verb};
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;

/// Carries out `ApplyConfig`, `AddNode`, `RemoveNode` or `MintToken`.
#[allow(clippy::unused_async, reason = "it will wait for the agreement")]
pub(super) async fn operate(_operations: &NodeOperations, _verb: Verb) -> Result<Outcome, Refused> {
    Err(Problem::new(
        codes::NOT_SUPPORTED,
        "cannot change the members or the configuration",
        "this is not available on this node",
        "restart the nodes with the new configuration file",
    ))
}
