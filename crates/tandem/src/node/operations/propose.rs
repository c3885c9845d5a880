//! Talks to the consensus for operators: proposes, and waits for what comes of it.
//! In: a command made from the agreed state of the moment. Out: the revision it was made on.
//! Keeps: INV-6 the command names its revision; somebody else's change in between makes a new one.
//! Queues: none; at most `ATTEMPTS` proposals, each with its own deadline.

use super::{NodeOperations, refusals};
use crate::consensus::Agreed;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use std::time::Duration;
use tandem_core::cluster::command::{Command, ServiceCommand};
use tandem_core::cluster::state::{Applied, ServiceState};
use tandem_core::ids::{Revision, ServiceId};

/// A service under change is changed again within one round trip; more is a fight.
const ATTEMPTS: u32 = 5;
const PROPOSAL: Duration = Duration::from_secs(3);
/// For the agreed state to reach this node.
const CATCH_UP: Duration = Duration::from_secs(1);

impl NodeOperations {
    /// Proposes a change of one service until it was made on the newest state.
    pub(super) async fn change(
        &self,
        service: &ServiceId,
        what: &str,
        make: &(dyn Fn(&ServiceState) -> Result<ServiceCommand, Problem> + Send + Sync),
    ) -> Result<Revision, Problem> {
        let mut because = String::new();
        for _ in 0..ATTEMPTS {
            let state = self.service_state(service)?;
            let expected = state.revision;
            let command = make(&state)?;
            let command = Command::Service { service: service.clone(), expected, command };
            match self.agree(command, what).await? {
                Applied::Changed => return Ok(expected),
                Applied::Ignored { because: words } => because = words,
            }
            // A refusal for any other reason leaves the revision as it is.
            let moved = |agreed: &Agreed| {
                agreed.state.services.get(service).is_none_or(|it| it.revision > expected)
            };
            if self.wait(CATCH_UP, moved).await.is_none() {
                return Err(refused(what, &because));
            }
        }
        Err(Problem::new(
            codes::CHANGED_MEANWHILE,
            what,
            format!("{because}, {ATTEMPTS} times in a row"),
            "look at tandem status, and try again",
        ))
    }

    /// Proposes one command.
    pub(super) async fn agree(&self, command: Command, what: &str) -> Result<Applied, Problem> {
        let agreed = self.ground().consensus.propose(command, PROPOSAL).await;
        agreed.map_err(|error| refusals::not_agreed(what, &error))
    }

    /// The agreed state of a service.
    pub(super) fn service_state(&self, service: &ServiceId) -> Result<ServiceState, Problem> {
        let agreed = self.ground().consensus.state().borrow().state.clone();
        agreed.services.get(service).cloned().ok_or_else(|| refusals::no_such_service(service))
    }

    /// Waits until the agreed state is so; none if it is not in time, or the node stops.
    pub(super) async fn wait(
        &self,
        limit: Duration,
        until: impl FnMut(&Agreed) -> bool,
    ) -> Option<Agreed> {
        let mut agreed = self.ground().consensus.state();
        let reached = tokio::time::timeout(limit, agreed.wait_for(until)).await;
        reached.ok()?.ok().map(|agreed| agreed.clone())
    }
}

fn refused(what: &str, because: &str) -> Problem {
    Problem::new(codes::ALREADY_SO, what, because, "tandem status shows what is so")
}
