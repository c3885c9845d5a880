//! Runs seeds, on several threads, and repeats a failing one to tell its story.

use crate::options::Options;
use crate::world::World;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was violated.
    pub violation: String,
    /// How many things had happened.
    pub step: u64,
    /// Virtual milliseconds.
    pub at_ms: u64,
}

/// Runs one seed; its failure, if any.
pub fn run(seed: u64, options: Options) -> Option<Failure> {
    let mut world = World::new(seed, options);
    world.run();
    failure(seed, &world)
}

/// The same, with the last lines of what happened.
pub fn tell(seed: u64, options: Options, lines: usize) -> (Option<Failure>, Vec<String>) {
    let mut world = World::new(seed, Options { trace: lines, ..options });
    world.run();
    (failure(seed, &world), world.trace.lines())
}

fn failure(seed: u64, world: &World) -> Option<Failure> {
    let violation = world.violation.clone()?;
    Some(Failure { seed, violation, step: world.events, at_ms: world.now / 1000 })
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many ran without a violation.
    pub passed: u64,
    /// Those that did not, in the order of their seeds.
    pub failures: Vec<Failure>,
}

/// Runs many seeds on `threads` threads; stops after `failures_max` failures.
pub fn run_many(
    seeds: std::ops::Range<u64>,
    options: Options,
    limits: (usize, usize),
    progress: &(dyn Fn(u64) + Sync),
) -> Outcome {
    run_each(seeds, &|seed| run(seed, options), limits, progress)
}

/// The same for any world.
pub fn run_each(
    seeds: std::ops::Range<u64>,
    run: &(dyn Fn(u64) -> Option<Failure> + Sync),
    (threads, failures_max): (usize, usize),
    progress: &(dyn Fn(u64) + Sync),
) -> Outcome {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let outcome = Mutex::new(Outcome::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let failure = run(seed);
                    let mut all = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    match failure {
                        None => all.passed += 1,
                        Some(failure) => all.failures.push(failure),
                    }
                    stop.fetch_or(all.failures.len() >= failures_max, Ordering::Relaxed);
                    progress(all.passed + all.failures.len() as u64);
                }
            });
        }
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.failures.sort_by_key(|failure| failure.seed);
    outcome
}
