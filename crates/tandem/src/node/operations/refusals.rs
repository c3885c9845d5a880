//! Talks to operators about what is refused: what, because, try.
//! In: errors of consensus, names. Out: `Problem`s with their codes.
//! Not here: HTTP (`api/problem.rs`).

use crate::consensus;
use crate::telemetry::codes;
use crate::telemetry::problem::{Problem, chain};
use tandem_core::ids::{NodeId, ServiceId};

pub(super) use crate::api::problem::no_such_service;

pub(super) fn no_such_node(node: &NodeId) -> Problem {
    Problem::new(
        codes::NO_SUCH_NODE,
        format!("cannot find node {node}"),
        "the agreed configuration has no node of that name",
        "tandem status lists the nodes",
    )
}

pub(super) fn witness(node: &NodeId, what: &str) -> Problem {
    Problem::new(
        codes::WITNESS,
        what,
        format!("{node} is a witness: it votes and holds no data"),
        "name a data node",
    )
}

pub(super) fn no_primary(service: &ServiceId, what: &str) -> Problem {
    Problem::new(
        codes::TARGET_NOT_ELIGIBLE,
        what,
        format!("{service} has no primary yet"),
        "wait until tandem status shows it as active",
    )
}

/// What became of a proposal that was not agreed.
pub(super) fn not_agreed(what: &str, error: &consensus::Error) -> Problem {
    let because = chain(error);
    match error {
        consensus::Error::Unknown { .. } => Problem::new(
            codes::OUTCOME_UNKNOWN,
            what,
            because,
            "look at tandem status before you repeat it",
        ),
        consensus::Error::NotProposed { .. }
        | consensus::Error::NotLeading { .. }
        | consensus::Error::Behind { .. } => Problem::new(
            codes::NO_MAJORITY,
            what,
            because,
            "tandem doctor shows which nodes cannot be reached",
        ),
        consensus::Error::Store(_)
        | consensus::Error::Timing(_)
        | consensus::Error::Stopped(_)
        | consensus::Error::NotInMembers { .. }
        | consensus::Error::TooLarge { .. }
        | consensus::Error::Refused(_) => {
            Problem::new(codes::OPERATION_FAILED, what, because, "see the node's log")
        }
    }
}
