//! INV-15: a request gets to whoever owns its partition, and is held no longer than it has to be,
//! whatever breaks; and what breaks that is noticed.

#![allow(clippy::print_stdout, reason = "tests say what they measured")]

mod kit;

use tandem_sim::singleton::{Mutation, Options, What, World, partitions_of};

/// Seeds without a mutation.
const SEEDS: u64 = 16;
/// Within so many seeds each mutation is caught.
const MUTATED: u64 = 60;
/// Such as a door's gate of a partition turns away while its owner reads what it owns, at most: one
/// in each 0.1 s, and what was on its way when the first one came back.
const TURNED_AWAY: u64 = 6;

fn options(seed: u64) -> Options {
    Options { what: What::Divided(partitions_of(seed)), keyed: true, ..Options::default() }
}

#[test]
fn requests_get_to_their_owners_and_nobody_is_forgotten() {
    kit::nobody_fails(0..SEEDS, &options);
}

/// Its violation says so, whatever else may be violated on the way.
fn is_caught(mutation: Mutation, says: &'static str) {
    is_caught_from(0, mutation, says);
}

/// Looked for from a seed on that is near one which shows it.
fn is_caught_from(first: u64, mutation: Mutation, says: &'static str) {
    kit::is_caught(first..first + MUTATED, mutation, ("INV-15", says), &options);
}

#[test]
fn a_door_that_keeps_an_older_route_is_caught() {
    is_caught(Mutation::KeepOldRoute, "does not lead partition");
}

#[test]
fn a_door_that_leads_to_an_owner_which_shall_release_is_caught() {
    is_caught(Mutation::LeadToReleasing, "releasing true");
}

#[test]
fn a_door_that_leads_to_a_silent_node_is_caught() {
    is_caught(Mutation::LeadToSilent, "silent for");
}

#[test]
fn a_door_that_leads_to_a_copy_which_is_down_is_caught() {
    is_caught(Mutation::LeadToDown, ": Down");
}

#[test]
fn a_door_that_leads_to_a_copy_which_is_proven_gone_is_caught() {
    is_caught_from(30, Mutation::LeadToPassed, ": Passed");
}

#[test]
fn a_new_route_that_wakes_nobody_is_caught() {
    is_caught(Mutation::RouteWakesNobody, "is not woken");
}

#[test]
fn what_is_sent_again_at_once_to_who_turned_it_away_is_caught() {
    is_caught(Mutation::AskAtOnce, "which turned somebody away");
}

#[test]
fn a_gate_at_which_nobody_looks_again_is_caught() {
    is_caught(Mutation::GateSleeps, "is not woken");
}

#[test]
fn a_gate_that_stays_closed_once_one_was_taken_is_caught() {
    is_caught(Mutation::GateStays, "is not woken");
}

#[test]
fn a_gate_that_an_old_answer_opens_is_caught() {
    is_caught(Mutation::OldAnswerOpens, "which turned somebody away");
}

#[test]
fn a_gate_that_is_forgotten_while_its_owner_is_away_is_caught() {
    is_caught(Mutation::ForgetWhileAway, "which turned somebody away");
}

#[test]
fn a_door_that_does_not_hear_who_turns_away_while_it_leads_there_no_more_is_caught() {
    is_caught(Mutation::DeafWhileAway, "which turned somebody away");
}

#[test]
fn a_gate_that_opens_without_a_word_to_those_who_wait_is_caught() {
    is_caught(Mutation::OpensUnsaid, "is not woken");
}

#[test]
fn a_door_that_holds_for_ever_is_caught() {
    is_caught(Mutation::HoldForEver, "is held");
}

#[test]
fn a_copy_that_serves_what_it_does_not_own_is_caught() {
    is_caught(Mutation::ServeAnybodys, "does not own");
}

#[test]
fn a_copy_that_confirms_a_release_while_it_serves_is_caught() {
    is_caught(Mutation::ConfirmWhileBusy, "does not own");
}

#[test]
fn a_door_that_lets_wait_what_it_led_to_who_is_gone_is_caught() {
    is_caught(Mutation::CutNobody, "for a copy known gone");
}

#[test]
fn a_door_that_forgets_where_it_led_what_it_leads_nowhere_now_is_caught() {
    is_caught(Mutation::ForgetLed, "for a copy known gone");
}

#[test]
fn a_door_that_cuts_what_was_released_is_caught() {
    is_caught(Mutation::CutReleased, "which may be answered");
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
        // Three doors, and each partition is given once.
        let most = 3 * u64::from(partitions_of(seed)) * TURNED_AWAY;
        assert!(turned_away <= most, "seed {seed}: {turned_away} were turned away");
    }
}
