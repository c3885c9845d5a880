//! Decides until when a primary may serve: as long as nobody else can have been elected; and, where
//! no commit quorum fences, from when on the vote of a peer that it rested on may count.
//! In: when each peer last acknowledged a heartbeat without having promised a later term; when this
//! node last answered the primary. Out: the moment at which the instance must be gone, unless there
//! is newer proof; the moment from which it surely is.
//! Keeps: INV-3 no provable lease, no writes; H31 the commit quorum is proof enough, so the loss
//! of the controller demotes nobody.
//! Not here: who enforces it (the keeper process), promises (`Ballot`).
//! Tested by: below, and the simulator.

use crate::ids::{NodeId, Term};
use crate::replication::primary_replica::sync_quorum::CommitRule;
use crate::spec::{Durability, ServiceSpec};
use crate::time::Timestamp;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// What the lease of a primary rests on.
#[derive(Clone, Debug)]
pub struct Proof<'a> {
    /// The primary itself.
    pub me: &'a NodeId,
    /// Every voter of the cluster, this one included.
    pub voters: &'a BTreeSet<NodeId>,
    /// The rules in force.
    pub rules: &'a [CommitRule],
    /// Per peer that has promised nothing later than our term and whose answers support us: when the
    /// heartbeat that it last acknowledged was *sent*, on our clock.
    pub acknowledged: &'a BTreeMap<NodeId, Timestamp>,
}

/// Until when the primary may serve; none without any proof.
///
/// Either proof is enough: a majority of the voters, without which nobody is appointed, or enough
/// standbys of every rule that what is left of it cannot elect.
pub fn valid_until(proof: &Proof<'_>, lease: Duration) -> Option<Timestamp> {
    let mut moments: Vec<Timestamp> = proof.acknowledged.values().copied().collect();
    moments.sort_unstable_by(|a, b| b.cmp(a));
    let proven = moments.into_iter().find(|since| {
        let hold: BTreeSet<NodeId> = proof
            .acknowledged
            .iter()
            .filter(|(_, at)| *at >= since)
            .map(|(node, _)| node.clone())
            .collect();
        is_majority(proof, &hold) || blocks_election(proof, &hold)
    });
    let alone = proof.voters.len() == 1 && proof.voters.contains(proof.me);
    match proven {
        Some(since) => Some(since.plus(lease)),
        None if alone => Some(Timestamp(u64::MAX)),
        None => None,
    }
}

/// Whether an answer supports the lease of the primary of `term`, given the term of the appointment
/// that its sender knew: in `Async` mode its sender must have known whom it supports, or else it would
/// wait for the lease of an earlier primary before it votes.
pub fn supports(spec: &ServiceSpec, term: Term, known: Term) -> bool {
    match spec.durability {
        Durability::Quorum { .. } | Durability::Preferred { .. } => true,
        Durability::Async { .. } => known >= term,
    }
}

/// From when on the ballot of a node counts; none where promises alone fence the old primary.
///
/// In `Async` mode nobody confirms commits, so the old primary goes on until its lease passed, and
/// that may rest on this node's last answer before it promised. `answered` is that moment, `started`
/// when this daemon began: what an earlier one answered is not known any more.
pub fn outlived(
    spec: &ServiceSpec,
    answered: Option<Timestamp>,
    started: Timestamp,
) -> Option<Timestamp> {
    match spec.durability {
        Durability::Quorum { .. } | Durability::Preferred { .. } => None,
        Durability::Async { .. } => {
            let last = answered.map_or(started, |answered| answered.max(started));
            Some(last.plus(spec.timing.lease).plus(spec.timing.drift_margin))
        }
    }
}

fn is_majority(proof: &Proof<'_>, hold: &BTreeSet<NodeId>) -> bool {
    let with_me = proof.voters.iter().filter(|n| *n == proof.me || hold.contains(*n)).count();
    with_me * 2 > proof.voters.len()
}

/// Whether the standbys in `hold`, as long as they promise nothing, keep the others from electing.
fn blocks_election(proof: &Proof<'_>, hold: &BTreeSet<NodeId>) -> bool {
    !proof.rules.is_empty()
        && proof
            .rules
            .iter()
            .any(|rule| rule.primary == *proof.me && rule.acks > 0 && rule.acknowledges(hold))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(acks: &[(&str, u64)], standbys: &[&str], k: usize) -> Option<Timestamp> {
        let me = "a".into();
        let voters = ["a", "b", "c"].map(NodeId::from).into();
        let rules = [CommitRule {
            primary: "a".into(),
            standbys: standbys.iter().map(|n| NodeId::from(*n)).collect(),
            acks: k,
        }];
        let acknowledged =
            acks.iter().map(|(node, at)| (NodeId::from(*node), Timestamp(*at))).collect();
        let proof = Proof { me: &me, voters: &voters, rules: &rules, acknowledged: &acknowledged };
        valid_until(&proof, Duration::from_micros(1000))
    }

    #[test]
    fn the_newest_sufficient_proof_counts() {
        assert_eq!(until(&[("b", 10), ("c", 50)], &["b", "c"], 1), Some(Timestamp(1050)));
        assert_eq!(until(&[("b", 10)], &["b", "c"], 1), Some(Timestamp(1010)));
    }

    #[test]
    fn nobody_heard_is_no_lease() {
        assert_eq!(until(&[], &["b", "c"], 1), None);
        assert_eq!(until(&[], &[], 0), None);
    }
}
