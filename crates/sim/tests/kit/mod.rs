//! Runs seeds of a world of services: nobody fails without a mutation, and each mutation is caught
//! for its own reason.

use std::ops::Range;
use tandem_sim::runner::run_each;
use tandem_sim::singleton::{Mutation, Options, run, tell};

/// What a seed's world is made of.
pub type World<'a> = &'a (dyn Fn(u64) -> Options + Sync);

/// What a violation has to say: how it begins, and what else is in it.
pub type Says = (&'static str, &'static str);

/// Nothing is violated without a mutation; else the story of the first seed is told.
pub fn nobody_fails(seeds: Range<u64>, options: World<'_>) {
    let outcome = run_each(seeds, &|seed| run(seed, options(seed)), (2, 1), &|_| {});
    if let Some(failure) = outcome.failures.first() {
        let (_, lines) = tell(failure.seed, Options { trace: 200, ..options(failure.seed) });
        panic!("{failure:?}\n{}", lines.join("\n"));
    }
}

/// Some seed violates it as that mutation does, none before it violates anything else, and without
/// the mutation that seed violates nothing.
pub fn is_caught(seeds: Range<u64>, mutation: Mutation, says: Says, options: World<'_>) {
    let broken = |seed| Options { mutation: Some(mutation), ..options(seed) };
    let failures = seeds.filter_map(|seed| run(seed, broken(seed)));
    for failure in failures {
        println!("{mutation:?}: seed {}: {}", failure.seed, failure.violation);
        assert!(failure.violation.starts_with(says.0), "{failure:?}");
        if failure.violation.contains(says.1) {
            let seed = failure.seed;
            assert!(run(seed, options(seed)).is_none(), "seed {seed} fails anyway");
            return;
        }
    }
    panic!("{mutation:?} is not caught: {}", says.1);
}
