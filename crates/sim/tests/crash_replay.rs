//! Every story, cut after any effect on any node, still ends with a service in full.

use tandem_core::spec::Durability;
use tandem_sim::explore::{Placed, run_placed, small_world};
use tandem_sim::faults::Fault;

fn cut_everywhere(story: &[(u64, Fault)]) {
    let mut whole = small_world(Durability::Quorum { acks: 1 });
    for (at, fault) in story {
        whole.queue.push(*at, tandem_sim::event::Event::Fault(*fault));
    }
    whole.run();
    assert_eq!(whole.violation, None, "the story itself");
    assert!(whole.steps > 20, "{} steps", whole.steps);
    for step in 1..=whole.steps {
        let violation = run_placed(&[Placed { step, fault: None }], story);
        assert_eq!(violation, None, "cut before step {step} of {}", whole.steps);
    }
}

#[test]
fn a_founding_that_is_cut_converges() {
    cut_everywhere(&[]);
}

#[test]
fn a_failover_that_is_cut_converges() {
    cut_everywhere(&[(3_000_000, Fault::PostmasterDies { n: 3 })]);
}

#[test]
fn a_switchover_that_is_cut_converges() {
    cut_everywhere(&[(3_000_000, Fault::Switchover { to: 1 })]);
}

#[test]
fn a_rejoin_that_is_cut_converges() {
    cut_everywhere(&[(3_000_000, Fault::PowerOff { n: 3, back: 1_500_000 })]);
}

#[test]
fn a_rule_change_that_is_cut_converges() {
    cut_everywhere(&[(3_000_000, Fault::CutStream { a: 0, b: 1, mend: 1_500_000 })]);
}
