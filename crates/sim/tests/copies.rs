//! INV-14: what is planned loses no request, whatever breaks; every copy that shall run does in the
//! end; and what breaks the proof is noticed.

#![allow(clippy::print_stdout, reason = "tests say what they measured")]

mod kit;

use tandem_sim::singleton::{Mutation, Options, What, World};

/// Seeds without a mutation.
const SEEDS: u64 = 60;
/// Within so many seeds each mutation is caught.
const MUTATED: u64 = 800;

fn options() -> Options {
    Options { what: What::Beside, ..Options::default() }
}

#[test]
fn what_is_planned_loses_no_request_and_all_serve_again() {
    kit::nobody_fails(0..SEEDS, &|_| options());
}

/// Looked for from a seed on that is near one which shows it: most coincidences are rare.
fn is_caught(mutation: Mutation, first: u64) {
    kit::is_caught(first..first + MUTATED, mutation, ("INV-14", ""), &|_| options());
}

#[test]
fn a_copy_that_does_not_wait_for_doors_is_caught() {
    is_caught(Mutation::StopAtOnce, 0);
}

#[test]
fn a_daemon_that_forgets_doors_when_it_is_restarted_is_caught() {
    is_caught(Mutation::ForgetDoors, 40);
}

#[test]
fn a_door_that_says_that_it_obeys_before_it_does_is_caught() {
    is_caught(Mutation::ObeyFirst, 120);
}

#[test]
fn a_door_that_does_not_say_what_it_has_is_caught() {
    is_caught(Mutation::ForgetInFlight, 0);
}

#[test]
fn a_plan_that_stops_the_last_one_is_caught() {
    is_caught(Mutation::StopTheLast, 30);
}

/// The only copy that is left is asked to start anew, long after the others died.
fn the_last_is_asked(seed: u64, mutation: Option<Mutation>) -> Option<String> {
    let mut world = World::new(seed, Options { calm: true, mutation, ..options() });
    world.run_until(10_000_000);
    world.kill_node(1);
    world.kill_node(2);
    world.run_until(14_000_000);
    world.ask_anew(0);
    world.run_until(20_000_000);
    world.violation().map(str::to_owned)
}

#[test]
fn what_was_said_long_ago_and_counts_is_caught() {
    for seed in 0..8 {
        assert_eq!(the_last_is_asked(seed, None), None, "seed {seed}");
    }
    let broken = (0..8).find_map(|seed| the_last_is_asked(seed, Some(Mutation::CountStale)));
    assert!(broken.is_some_and(|it| it.starts_with("INV-14")), "not caught");
}

#[test]
fn copies_that_start_anew_all_at_once_are_caught() {
    is_caught(Mutation::TurnOfAll, 0);
}

/// Without faults everything that is planned happens, and clients notice nothing.
#[test]
fn a_calm_world_serves() {
    let mut world = World::new(1, Options { calm: true, ..options() });
    world.run_until(20_000_000);
    assert_eq!(world.violation(), None);
    let (answered, stopped) = world.done();
    assert!(answered > 300, "{answered} were served");
    assert_eq!(stopped, 0);
}
