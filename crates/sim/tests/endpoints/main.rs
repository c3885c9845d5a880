//! Storms of endpoints before several doors that know nothing of each other: endpoints refuse,
//! drop, slow down, are drained and heal, from a seed and in virtual time; the decisions are the
//! shipped ones. A failure names its seed: `endpoints(seed, Mutation::None)`
//! repeats it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod door;
mod hanging;
mod world;
mod zones;

use door::{Health, Mutation};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection::{Group, Limits};
use tandem_core::clustering::load_balanced::retry::{self, Budget};
use tandem_core::time::Timestamp;
use world::World;

const SEEDS: u64 = 200;
const DOORS: usize = 3;
/// One step of virtual time.
const STEP: Duration = Duration::from_millis(20);
const STORM: Duration = Duration::from_secs(60);
/// What an endpoint may need to be itself again: the longest ejection, its slow start, checks.
const HEALING: Duration = Duration::from_secs(40);
/// When a story begins.
const BEGIN: Timestamp = Timestamp(1_000_000);
const QUIET: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits {
    fall: 2,
    rise: 2,
    failures: 5,
    success_percent_min: 50,
    latency_times: 5,
    window: Duration::from_secs(5),
    ejection: Duration::from_secs(5),
    ejection_max: Duration::from_secs(20),
    ejected_percent_max: 50,
    slow_start: Duration::from_secs(5),
};

const RETRIES: retry::Limits = retry::Limits { percent: 20, floor_per_second: 2 };

const POLICIES: [Policy; 5] =
    [Policy::PeakEwma, Policy::RoundRobin, Policy::LeastConnections, Policy::Random, Policy::Hash];

/// The whole story of a seed.
fn endpoints(seed: u64, mutation: Mutation) {
    let policy = POLICIES[usize::try_from(seed % 5).unwrap()];
    let mut world = World::new(seed, policy, mutation);
    let weights = world.weigh();
    world.run(STORM, true);
    world.heal();
    world.run(QUIET, false);
    let all = u64::from(weights.iter().sum::<u32>());
    for door in &world.doors {
        let case = format!("seed {seed} {policy:?} {weights:?}: {:?}", door.worked);
        assert_eq!(door.unserved, 0, "{case}: all is well and a client was not served");
        assert_eq!(door.attempts, door.clients, "{case}: all is well and something is tried again");
        // Whoever works gets work: nobody is forgotten after a storm.
        for (worked, weight) in door.worked.iter().zip(&weights) {
            let fair = door.clients * u64::from(*weight) / all;
            assert!(*worked * 2 >= fair, "{case}: starved");
            // Whoever has least to do is next, whatever its weight, where there is little to do.
            let is_even = policy == Policy::LeastConnections;
            assert!(is_even || *worked <= fair * 2, "{case}: more than its share");
        }
    }
}

#[test]
fn storms_of_endpoints_leave_nobody_without_work() {
    for seed in 0..SEEDS {
        endpoints(seed, Mutation::None);
    }
}

/// While one endpoint works every client reaches it, and with checks little is tried in vain.
#[test]
fn one_that_works_serves_everybody() {
    for seed in 0..SEEDS {
        let policy = POLICIES[usize::try_from(seed % 5).unwrap()];
        let mut world = World::new(seed, policy, Mutation::None);
        world.health.fill(Health::Refuses);
        world.health[0] = Health::Good;
        world.run(QUIET, false);
        for door in &world.doors {
            let case = format!("seed {seed} {policy:?}: {:?}", door.worked);
            assert_eq!(door.unserved, 0, "{case}");
            let vain = door.attempts - door.clients;
            // Without checks the bound of ejections leaves some that refuse in service.
            let size = door.worked.len() as u64;
            let most = if world.checks { door.clients / 5 } else { door.clients * (size - 1) };
            assert!(vain <= most, "{case}: {vain} of {} in vain", door.attempts);
        }
    }
}

/// Requests in a storm: what fails is tried again only as far as the budget goes.
fn requests(seed: u64, mutation: Mutation) {
    let policy = POLICIES[usize::try_from(seed % 5).unwrap()];
    let mut world = World::new(seed, policy, mutation);
    for door in &mut world.doors {
        door.budget = Some(Budget::new(RETRIES, BEGIN));
    }
    world.run(STORM, true);
    // Most of them refuse, so that nearly everything wants to be tried again.
    world.health.fill(Health::Refuses);
    world.run(QUIET, false);
    world.heal();
    world.run(QUIET, false);
    for door in &world.doors {
        assert_eq!(door.unserved, 0, "seed {seed} {policy:?}: all is well again");
    }
}

#[test]
fn retries_are_never_more_than_their_budget() {
    for seed in 0..SEEDS {
        requests(seed, Mutation::None);
    }
}

/// Without a budget everybody is still reached, at a slow pace, and nobody is asked twice before
/// all others were.
#[test]
fn one_that_works_serves_every_request_without_a_budget() {
    for seed in 0..SEEDS {
        let policy = POLICIES[usize::try_from(seed % 5).unwrap()];
        let mut world = World::new(seed, policy, Mutation::None);
        let none = retry::Limits { percent: 0, floor_per_second: 0 };
        for door in &mut world.doors {
            door.budget = Some(Budget::new(none, BEGIN));
        }
        world.health.fill(Health::Refuses);
        world.health[0] = Health::Good;
        world.run(QUIET, false);
        for door in &world.doors {
            assert_eq!(door.unserved, 0, "seed {seed} {policy:?}: {:?}", door.asked);
        }
    }
}

/// What fails at once looks quick and idle, and gets no more than its share for that, even where
/// nobody is ejected.
fn dropping(seed: u64, mutation: Mutation) {
    let policy = [Policy::PeakEwma, Policy::LeastConnections][usize::try_from(seed % 2).unwrap()];
    let mut world = World::new(seed, policy, mutation);
    for door in &mut world.doors {
        let size = door.worked.len();
        let limits = Limits { failures: 0, success_percent_min: 0, ..LIMITS };
        door.group = Group::new(&vec![1; size], limits, world.checks);
    }
    world.health[0] = Health::Drops;
    world.run(QUIET, false);
    for door in &world.doors {
        let fair = door.clients / door.worked.len() as u64;
        assert!(door.asked[0] <= fair, "seed {seed} {policy:?}: {:?}", door.asked);
    }
}

#[test]
fn what_fails_at_once_draws_no_work() {
    for seed in 0..SEEDS {
        dropping(seed, Mutation::None);
    }
}

/// What is slow gets little also where the choice does not ask how long things take; where all are
/// slow alike, nobody is out.
fn slow(seed: u64, mutation: Mutation) {
    let policy =
        [Policy::RoundRobin, Policy::Random, Policy::Hash][usize::try_from(seed % 3).unwrap()];
    let mut world = World::new(seed, policy, mutation);
    world.health[0] = Health::Slow(20);
    world.run(STORM, false);
    for door in &world.doors {
        let case = format!("seed {seed} {policy:?}: {:?}", door.asked);
        let size = door.worked.len() as u64;
        assert_eq!(door.unserved, 0, "{case}");
        assert!(size == 1 || door.asked[0] * 2 <= door.clients / size, "{case}");
    }
    let mut world = World::new(seed, policy, mutation);
    world.health.fill(Health::Slow(20));
    world.run(STORM, false);
    assert!(world.doors.iter().all(|door| door.out() == 0), "seed {seed}: all are alike");
}

#[test]
fn what_is_slow_gets_little() {
    for seed in 0..SEEDS {
        slow(seed, Mutation::None);
    }
}

/// Each of these would be found.
#[test]
fn mutations_are_found() {
    type Story = fn(u64, Mutation);
    let found = |story: Story, mutation| {
        (0..SEEDS).any(|seed| std::panic::catch_unwind(|| story(seed, mutation)).is_err())
    };
    assert!(found(endpoints, Mutation::LastIsEjected));
    assert!(found(endpoints, Mutation::AllAreEjected));
    assert!(found(endpoints, Mutation::PeaksNeverFade));
    assert!(found(requests, Mutation::NoBudget));
    assert!(found(requests, Mutation::ForgetsAttempts));
    assert!(found(dropping, Mutation::FailuresAreQuick));
    assert!(found(zones::zones, Mutation::NobodyIsFar));
    assert!(found(zones::zones, Mutation::StaysNear));
    assert!(found(slow, Mutation::NobodyIsSlow));
    assert!(found(slow, Mutation::SlowIsAbsolute));
}
