//! Talks to instances for operators: restart, reload, copy again; on whatever node they are.

use super::NodeOperations;
use crate::api::operations::{Outcome, Refused};
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use tandem_core::ids::{NodeId, ServiceId};

fn not_yet(what: &str) -> Problem {
    Problem::new(codes::NOT_SUPPORTED, what, "this node cannot do it", "tandem status")
}

impl NodeOperations {
    #[allow(clippy::unused_async, reason = "waits for the instance")]
    pub(super) async fn restart(&self, s: ServiceId, n: NodeId) -> Result<Outcome, Refused> {
        Err(not_yet(&format!("cannot restart {s} on {n}")))
    }

    #[allow(clippy::unused_async, reason = "waits for the instance")]
    pub(super) async fn reload(&self, s: ServiceId) -> Result<Outcome, Refused> {
        Err(not_yet(&format!("cannot reload {s}")))
    }

    #[allow(clippy::unused_async, reason = "waits for the instance")]
    pub(super) async fn reinit(&self, s: ServiceId, n: NodeId) -> Result<Outcome, Refused> {
        Err(not_yet(&format!("cannot copy {s} on {n} again")))
    }
}
