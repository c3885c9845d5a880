//! INV-15: a request gets to whoever owns its partition, and is held no longer than it has to be,
//! whatever breaks; and what breaks that is noticed.

#![allow(clippy::print_stdout, reason = "tests say what they measured")]

use tandem_sim::runner::run_each;
use tandem_sim::singleton::{Mutation, Options, What, World, partitions_of, run, tell};

/// Seeds without a mutation.
const SEEDS: u64 = 16;
/// Within so many seeds each mutation is caught.
const MUTATED: u64 = 60;

fn options(seed: u64) -> Options {
    Options { what: What::Divided(partitions_of(seed)), keyed: true, ..Options::default() }
}

#[test]
fn requests_get_to_their_owners_and_nobody_is_forgotten() {
    let outcome = run_each(0..SEEDS, &|seed| run(seed, options(seed)), (2, 1), &|_| {});
    if let Some(failure) = outcome.failures.first() {
        let (_, lines) = tell(failure.seed, Options { trace: 200, ..options(failure.seed) });
        panic!("{failure:?}\n{}", lines.join("\n"));
    }
}

fn is_caught(mutation: Mutation) {
    let broken = |seed| Options { mutation: Some(mutation), ..options(seed) };
    let failure = (0..MUTATED).find_map(|seed| run(seed, broken(seed)));
    let failure = failure.unwrap_or_else(|| panic!("{mutation:?} is not caught"));
    println!("{mutation:?}: seed {}: {}", failure.seed, failure.violation);
    assert!(failure.violation.starts_with("INV-15"), "{failure:?}");
    let seed = failure.seed;
    assert!(run(seed, options(seed)).is_none(), "seed {seed} fails anyway");
}

#[test]
fn a_door_that_keeps_an_older_route_is_caught() {
    is_caught(Mutation::KeepOldRoute);
}

#[test]
fn a_door_that_leads_to_an_owner_which_shall_release_is_caught() {
    is_caught(Mutation::LeadToReleasing);
}

#[test]
fn a_door_that_leads_to_a_silent_node_is_caught() {
    is_caught(Mutation::LeadToSilent);
}

#[test]
fn a_new_route_that_wakes_nobody_is_caught() {
    is_caught(Mutation::RouteWakesNobody);
}

#[test]
fn what_is_sent_again_at_once_to_who_turned_it_away_is_caught() {
    is_caught(Mutation::AskAtOnce);
}

#[test]
fn a_gate_at_which_nobody_looks_again_is_caught() {
    is_caught(Mutation::GateSleeps);
}

#[test]
fn a_gate_that_stays_closed_once_one_was_taken_is_caught() {
    is_caught(Mutation::GateStays);
}

#[test]
fn a_door_that_holds_for_ever_is_caught() {
    is_caught(Mutation::HoldForEver);
}

#[test]
fn a_copy_that_serves_what_it_does_not_own_is_caught() {
    is_caught(Mutation::ServeAnybodys);
}

#[test]
fn a_copy_that_confirms_a_release_while_it_serves_is_caught() {
    is_caught(Mutation::ConfirmWhileBusy);
}

/// Without faults everybody is served, and next to nobody is turned away.
#[test]
fn a_calm_world_serves() {
    for seed in 0..6 {
        let mut world = World::new(seed, Options { calm: true, ..options(seed) });
        world.run_until(20_000_000);
        assert_eq!(world.violation(), None, "seed {seed}");
        let (answered, turned_away) = world.answers();
        println!("seed {seed}: {answered} answered, {turned_away} turned away");
        assert!(answered > 20, "seed {seed}: {answered} were served");
    }
}
