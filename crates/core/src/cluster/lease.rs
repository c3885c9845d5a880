//! Decides until when a primary may serve: as long as nobody else can have been elected; and, where
//! no commit quorum fences, from when on the vote of a peer that it rested on may count.
//! In: when each peer last acknowledged a heartbeat without having promised a later term; when this
//! node last answered the primary. Out: the moment at which the instance must be gone, unless there
//! is newer proof; the moment from which it surely is.
//! Keeps: INV-3 no provable lease, no writes; INV-12 no provable lease, no copy of a command; H31
//! the commit quorum is proof enough, so the loss of the controller demotes nobody.
//! Not here: who enforces it (the keeper process), promises (`Ballot`).
//! Tested by: below, and the simulator.

use crate::cluster::state::ServiceState;
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
    /// Now, on our clock.
    pub now: Timestamp,
    /// Per peer that has promised nothing later than our term and whose answers support us: when
    /// the heartbeat that it last acknowledged was *sent*, on our clock.
    pub acknowledged: &'a BTreeMap<NodeId, Timestamp>,
}

/// Until when the primary may serve; none without any proof.
///
/// Either proof is enough: a majority of the voters, without which nobody is appointed, or enough
/// standbys of every rule that what is left of it cannot elect. The only voter proves itself, but
/// no further than any other: by the next lease it may be one of several.
pub fn valid_until(proof: &Proof<'_>, lease: Duration) -> Option<Timestamp> {
    if proof.voters.len() == 1 && proof.voters.contains(proof.me) {
        return Some(proof.now.plus(lease));
    }
    let mut moments: Vec<Timestamp> = proof.acknowledged.values().copied().collect();
    moments.sort_unstable_by(|a, b| b.cmp(a));
    moments
        .into_iter()
        .find(|since| {
            let hold: BTreeSet<NodeId> = proof
                .acknowledged
                .iter()
                .filter(|(_, at)| *at >= since)
                .map(|(node, _)| node.clone())
                .collect();
            is_majority(proof, &hold) || blocks_election(proof, &hold)
        })
        .map(|since| since.plus(lease))
}

/// The term whose primary's lease a node waits out before it votes, by what it knows as agreed;
/// none where promises alone fence the old primary.
pub fn outlives(spec: &ServiceSpec, state: &ServiceState) -> Option<Term> {
    match spec.durability {
        Durability::Quorum { .. } | Durability::Preferred { .. } => None,
        // Before anybody is appointed nobody is supported, whatever was before.
        Durability::Async { .. } => Some(state.appointment.as_ref().map_or(Term(0), |it| it.term)),
    }
}

/// Whether an answer supports the lease of the primary of `term`, given what its sender would wait
/// out (`outlives`): in `Async` mode a voter that does not know the mode yet, or knows an earlier
/// primary only, would vote too early.
pub fn supports(spec: &ServiceSpec, term: Term, outlives: Option<Term>) -> bool {
    match spec.durability {
        Durability::Quorum { .. } | Durability::Preferred { .. } => true,
        Durability::Async { .. } => outlives >= Some(term),
    }
}

/// From when on the ballot of a node counts; none where promises alone fence the old primary.
///
/// In `Async` mode nobody confirms commits, so the old primary goes on until its lease passed, and
/// that may rest on this node's last answer before it promised. `answered` is that moment,
/// `started` when this daemon began, or the voters last changed: what an earlier one answered is
/// not known any more, and a lease may still rest on a majority of those that were voters before.
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

/// The same for a node, given when it last answered each peer before it promised. Where nobody is
/// known to be appointed it may have supported any of them: a service that was taken out of the
/// configuration and put back may still run where that is not known yet, by the lease that it had.
pub fn counts_from(
    spec: &ServiceSpec,
    state: &ServiceState,
    answered: &BTreeMap<NodeId, Timestamp>,
    started: Timestamp,
) -> Option<Timestamp> {
    match &state.appointment {
        Some(appointment) => outlived(spec, answered.get(&appointment.primary).copied(), started),
        None => {
            let last = answered.values().max().copied();
            let before = started.max(last.unwrap_or(started)).plus(state.before.outlast);
            outlived(spec, last, started).map(|until| until.max(before))
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
    use crate::pairing::{Clustering, Kind, Pairing, Replication};
    use crate::spec::Timing;

    fn until(acks: &[(&str, u64)], standbys: &[&str], k: usize) -> Option<Timestamp> {
        until_among(&["a", "b", "c"], acks, standbys, k)
    }

    fn until_among(
        voters: &[&str],
        acks: &[(&str, u64)],
        standbys: &[&str],
        k: usize,
    ) -> Option<Timestamp> {
        let me = "a".into();
        let voters = voters.iter().map(|name| NodeId::from(*name)).collect();
        let rules = [CommitRule {
            primary: "a".into(),
            standbys: standbys.iter().map(|n| NodeId::from(*n)).collect(),
            acks: k,
        }];
        let acknowledged =
            acks.iter().map(|(node, at)| (NodeId::from(*node), Timestamp(*at))).collect();
        let now = Timestamp(2000);
        let acknowledged = &acknowledged;
        let proof = Proof { me: &me, voters: &voters, rules: &rules, now, acknowledged };
        valid_until(&proof, Duration::from_micros(1000))
    }

    #[test]
    fn the_newest_sufficient_proof_counts() {
        assert_eq!(until(&[("b", 10), ("c", 50)], &["b", "c"], 1), Some(Timestamp(1050)));
        assert_eq!(until(&[("b", 10)], &["b", "c"], 1), Some(Timestamp(1010)));
    }

    #[test]
    fn h31_the_commit_quorum_is_proof_enough_without_a_majority() {
        let five = ["a", "b", "c", "d", "e"];
        let standbys = ["b", "c", "d", "e"];
        // The leader and most voters are gone; b and c keep two of four from electing: acks 2.
        let held = until_among(&five, &[("b", 10), ("c", 20)], &standbys, 2);
        assert_eq!(held, Some(Timestamp(1010)), "three of five are a majority as well");
        let held = until_among(&five, &[("b", 10)], &["b"], 1);
        assert_eq!(
            held,
            Some(Timestamp(1010)),
            "two of five are none, but nobody elects without b"
        );
        let lost = until_among(&five, &[("d", 10)], &["b"], 1);
        assert_eq!(lost, None, "d confirms nothing");
        let alone = until_among(&five, &[("b", 10)], &[], 0);
        assert_eq!(alone, None, "no quorum confirms, so only a majority proves anything");
    }

    #[test]
    fn an_async_lease_rests_only_on_those_who_know_whom_they_support() {
        let spec = |durability| {
            let pair = Pairing::new(
                Kind::Postgres,
                Clustering::ActivePassive,
                Replication::PrimaryReplica,
            );
            let pairing = pair.unwrap_or_else(|_| unreachable!());
            ServiceSpec::new(pairing, durability, Timing::default())
        };
        let lossy = spec(Durability::Async { lag_bytes_max: 1, lag_max: Duration::MAX });
        assert!(supports(&lossy, Term(5), Some(Term(5))));
        assert!(supports(&lossy, Term(5), Some(Term(6))));
        assert!(!supports(&lossy, Term(5), Some(Term(4))), "knows an earlier primary only");
        assert!(!supports(&lossy, Term(5), None), "does not know that it must wait");
        assert!(supports(&spec(Durability::Quorum { acks: 1 }), Term(5), None));
    }

    #[test]
    fn what_may_run_from_before_it_was_taken_out_is_waited_out_by_its_own_lease() {
        let pair = Pairing::new(Kind::Command, Clustering::ActivePassive, Replication::None);
        let timing = Timing::of_command();
        let spec = ServiceSpec::of_command(pair.unwrap_or_else(|_| unreachable!()), timing);
        let answered = [("a".into(), Timestamp(5)), ("b".into(), Timestamp(9))].into();
        let mut state = ServiceState::default();
        let usual = timing.lease + timing.drift_margin;
        let until = counts_from(&spec, &state, &answered, Timestamp(1));
        assert_eq!(until, Some(Timestamp(9).plus(usual)));
        state.before.outlast = Duration::from_secs(10);
        let until = counts_from(&spec, &state, &answered, Timestamp(1));
        assert_eq!(until, Some(Timestamp(9).plus(Duration::from_secs(10))));
        let until = counts_from(&spec, &state, &answered, Timestamp(100));
        assert_eq!(until, Some(Timestamp(100).plus(Duration::from_secs(10))));
    }

    #[test]
    fn the_only_voter_has_a_lease_that_ends() {
        // It may be one of several before long, and then others may elect without it.
        assert_eq!(until_among(&["a"], &[], &[], 0), Some(Timestamp(3000)));
        // Nor does it hang on a peer that does not vote, one that joins or that just left.
        assert_eq!(until_among(&["a"], &[("b", 1)], &[], 0), Some(Timestamp(3000)));
        assert_eq!(until_among(&["a", "b"], &[], &[], 0), None);
    }

    #[test]
    fn nobody_heard_is_no_lease() {
        assert_eq!(until(&[], &["b", "c"], 1), None);
        assert_eq!(until(&[], &[], 0), None);
    }
}
