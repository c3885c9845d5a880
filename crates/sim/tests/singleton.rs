//! INV-12: a singleton never runs twice, whatever breaks; and what breaks the proof is noticed.
//! INV-14: no session at its doors is cut by a plan before its time.

#![allow(clippy::print_stdout, reason = "tests say what they measured")]

mod kit;

use tandem_sim::singleton::{Mutation, Options, World};

/// Seeds without a mutation.
const SEEDS: u64 = 600;
/// Within so many seeds each mutation is caught.
const MUTATED: u64 = 4_000;

#[test]
fn a_singleton_never_runs_twice_and_comes_back() {
    kit::nobody_fails(0..SEEDS, &|_| Options::default());
}

fn is_caught(mutation: Mutation) {
    is_caught_by("INV-12", mutation);
}

fn is_caught_by(invariant: &'static str, mutation: Mutation) {
    kit::is_caught(0..MUTATED, mutation, (invariant, ""), &|_| Options::default());
}

#[test]
fn a_vote_that_does_not_wait_the_lease_out_is_caught() {
    is_caught(Mutation::VoteAtOnce);
}

#[test]
fn a_promise_that_is_not_kept_is_caught() {
    is_caught(Mutation::ForgetPromise);
}

#[test]
fn a_vote_while_the_copy_runs_is_caught() {
    is_caught(Mutation::VoteWhileItRuns);
}

#[test]
fn a_start_without_a_lease_is_caught() {
    is_caught(Mutation::StartWithoutLease);
}

#[test]
fn a_planned_end_that_waits_for_no_door_is_caught() {
    is_caught_by("INV-14", Mutation::StopBeforeDoors);
}

/// A world in which it has run for a while, and where.
fn running(seed: u64) -> (World, usize) {
    let mut world = World::new(seed, Options { calm: true, ..Options::default() });
    world.run_until(10_000_000);
    let runs = world.runs_on();
    assert_eq!(runs.len(), 1, "seed {seed}");
    (world, runs[0])
}

#[test]
fn a_dead_node_is_replaced_within_the_budget() {
    let mut worst = 0;
    for seed in 0..200 {
        let (mut world, holder) = running(seed);
        let killed = world.now;
        world.kill_node(holder);
        world.run_until(killed + 5_000_000);
        assert_eq!(world.violation(), None, "seed {seed}");
        let (started, n) = world.last_start.unwrap();
        assert!(n != holder && started > killed, "seed {seed}: nobody took over");
        worst = worst.max(started - killed);
    }
    // What is left of the 1.5 s is for the process to start.
    assert!(worst < 1_400_000, "took {} ms", worst / 1000);
}

#[test]
fn a_dead_process_is_back_at_once_where_it_was() {
    for seed in 0..50 {
        let (mut world, holder) = running(seed);
        let killed = world.now;
        world.kill_copy(holder);
        world.run_until(killed + 500_000);
        let (started, n) = world.last_start.unwrap();
        assert_eq!(n, holder, "seed {seed}");
        assert!(started > killed && started - killed < 100_000, "seed {seed}");
    }
}

/// Asked to end, it may take three seconds, its lease lasts 0.9.
#[test]
fn what_is_taken_out_ends_in_order_and_comes_back() {
    for seed in 0..100 {
        let (mut world, _) = running(seed);
        let taken_out = world.now;
        world.take_out(5_000_000);
        while world.violation().is_none() && !world.runs_on().is_empty() {
            let next = world.now + 50_000;
            assert!(next < taken_out + 8_000_000, "seed {seed}: it does not end");
            world.run_until(next);
        }
        assert_eq!(world.outlived, 0, "seed {seed}: its lease passed");
        world.run_until(taken_out + 15_000_000);
        assert_eq!(world.violation(), None, "seed {seed}");
        assert_eq!(world.runs_on().len(), 1, "seed {seed}: it is back");
    }
}

/// It is asked to end and cut off then; whoever has its name next waits for its lease, and no more.
fn taken_out_and_cut_off(seed: u64, mutation: Option<Mutation>) -> World {
    let mut world = World::new(seed, Options { calm: true, mutation, ..Options::default() });
    world.run_until(10_000_000);
    let holder = world.runs_on()[0];
    world.take_out(400_000);
    world.run_until(10_200_000);
    world.cut_off(holder);
    world.run_until(16_000_000);
    world
}

#[test]
fn what_is_taken_out_and_cut_off_ends_with_its_lease() {
    let (mut outlived, mut caught) = (0, 0);
    for seed in 0..100 {
        let world = taken_out_and_cut_off(seed, None);
        assert_eq!(world.violation(), None, "seed {seed}");
        outlived += world.outlived;
        let unproven = taken_out_and_cut_off(seed, Some(Mutation::LeaveUnproven));
        caught += u64::from(unproven.violation().is_some_and(|it| it.starts_with("INV-12")));
    }
    assert!(outlived > 20 && caught > 5, "{outlived} ended by it, {caught} would have run twice");
}

/// The holder was away while it was taken out, and still goes by what was agreed before.
#[test]
fn what_was_taken_out_is_not_started_by_who_was_away() {
    let starts = |seed, mutation| {
        let mut world = World::new(seed, Options { calm: true, mutation, ..Options::default() });
        world.run_until(10_000_000);
        let holder = world.runs_on()[0];
        world.cut_off(holder);
        // Before anybody has taken over, and for good.
        world.take_out(10_000_000_000);
        world.run_until(14_000_000);
        if !world.runs_on().is_empty() {
            // It was the leader: nobody took it out before another node took over.
            return None;
        }
        let healed = world.now;
        world.heal_links();
        world.run_until(healed + 5_000_000);
        assert_eq!(world.violation(), None, "seed {seed}");
        Some(world.last_start.is_some_and(|(at, _)| at > healed))
    };
    let wrong = Some(Mutation::SupportWhoWasAway);
    let told: Vec<_> = (0..100).filter_map(|seed| starts(seed, None)).collect();
    let caught = (0..100).filter_map(|seed| starts(seed, wrong)).filter(|starts| *starts).count();
    assert!(told.len() > 30 && caught > 5, "{} stories, {caught} caught", told.len());
    assert!(told.iter().all(|starts| !starts), "nobody starts it");
}
