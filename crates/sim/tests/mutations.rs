//! What is broken on purpose is noticed within few seeds, and those seeds pass when it is not.

use tandem_sim::mutation::Mutation;
use tandem_sim::options::Options;
use tandem_sim::runner::{run, run_many};

/// Within so many seeds each mutation is caught.
const SEEDS: u64 = 600;

fn is_caught(mutation: Mutation) {
    let broken = Options { mutation: Some(mutation), ..Options::default() };
    let outcome = run_many(0..SEEDS, broken, (2, 1), &|_| {});
    let failure = outcome.failures.first().unwrap_or_else(|| panic!("{mutation:?} is not caught"));
    assert!(failure.violation.starts_with("INV-"), "{failure:?}");
    let whole = run(failure.seed, Options::default());
    assert!(whole.is_none(), "seed {} fails without a mutation: {whole:?}", failure.seed);
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
    is_caught(Mutation::PromoteBeforeFence);
}

#[test]
fn growing_and_shrinking_together_is_caught() {
    is_caught(Mutation::GrowAndShrink);
}
