//! What is broken on purpose is noticed within few seeds, and those seeds pass when it is not.

use std::time::Duration;
use tandem_core::spec::Durability;
use tandem_sim::mutation::Mutation;
use tandem_sim::options::{Options, Shape};
use tandem_sim::runner::{run, run_many};

/// Within so many seeds each mutation is caught.
const SEEDS: u64 = 600;

fn is_caught(mutation: Mutation) {
    is_caught_by(mutation, "INV-", Options::default());
}

fn is_caught_by(mutation: Mutation, checker: &str, options: Options) {
    is_caught_within(SEEDS, mutation, checker, options);
}

fn is_caught_within(seeds: u64, mutation: Mutation, checker: &str, options: Options) {
    let broken = Options { mutation: Some(mutation), ..options };
    let outcome = run_many(0..seeds, broken, (2, 1), &|_| {});
    let failure = outcome.failures.first().unwrap_or_else(|| panic!("{mutation:?} is not caught"));
    assert!(failure.violation.starts_with(checker), "{failure:?}");
    let whole = run(failure.seed, options);
    assert!(whole.is_none(), "seed {} fails without a mutation: {whole:?}", failure.seed);
}

/// Little may be lost, however long that took to write, and nobody changes that often enough to
/// hide it.
fn asynchronous() -> Options {
    let durability = Some(Durability::Async { lag_bytes_max: 5, lag_max: Duration::MAX });
    Options { durability, ..Options::default() }
}

#[test]
fn a_ballot_before_its_promise_is_caught() {
    is_caught_by(Mutation::BallotBeforePersist, "INV-2", Options::default());
}

#[test]
fn a_door_that_never_forgets_is_caught() {
    is_caught_by(Mutation::RouteForEver, "INV-7", Options::default());
}

#[test]
fn a_dropped_bound_is_caught() {
    is_caught_by(Mutation::DropBound, "INV-11", asynchronous());
}

#[test]
fn a_dropped_bound_in_time_is_caught() {
    let lag_max = Duration::from_millis(200);
    let durability = Some(Durability::Async { lag_bytes_max: 1000, lag_max });
    // One standby, and its stream cut long before the primary's end, while others still hear that.
    let shape = Some(Shape::TwoAndWitness);
    let options = Options { durability, shape, ..Options::default() };
    is_caught_within(6000, Mutation::DropTimeBound, "INV-11", options);
}

#[test]
fn a_lease_that_rests_on_strangers_is_caught() {
    // It takes a voter that applies late, and the new primary's end within one lease.
    is_caught_within(30_000, Mutation::SupportStrangers, "INV-", asynchronous());
}

#[test]
fn a_plan_that_rests_on_old_news_is_caught() {
    is_caught_by(Mutation::BelieveStale, "INV-8", Options::default());
}

#[test]
fn a_dropped_promise_is_caught() {
    is_caught(Mutation::DropPromise);
}

#[test]
fn quorums_that_do_not_meet_are_caught() {
    is_caught(Mutation::DropMeeting);
}

#[test]
fn a_promotion_before_the_fence_is_caught() {
    is_caught_by(Mutation::PromoteBeforeFence, "INV-1", Options::default());
}

/// H42: its daemon dies in between, and the next one finds a primary without a lease.
#[test]
fn a_lease_that_is_armed_after_the_promotion_is_caught() {
    is_caught_within(6000, Mutation::ArmAfterPromotion, "INV-3", Options::default());
}

#[test]
fn growing_and_shrinking_together_is_caught() {
    is_caught(Mutation::GrowAndShrink);
}

#[test]
fn a_commit_that_is_acknowledged_before_the_barrier_is_caught() {
    // The primary is cut off with a longer log, its successor's daemon dies before the row is
    // written and its node soon after, and one that lacks the commit outranks one that has it (H7).
    is_caught_within(3000, Mutation::AcknowledgeBeforeBarrier, "INV-11", Options::default());
}
