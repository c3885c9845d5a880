//! Every story, cut after any effect on any node, still ends with a service in full: once by the
//! node's loss of power, once by the end of its daemon, whose server goes on.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use tandem_core::cluster::state::{Cause, ServiceState};
use tandem_core::spec::Durability;
use tandem_sim::event::Event;
use tandem_sim::explore::{Placed, What, end_of, small_world};
use tandem_sim::faults::Fault;
use tandem_sim::world::World;

fn agreed(world: &World) -> &ServiceState {
    &world.raft.last().services[&world.service]
}

fn primary(world: &World) -> &str {
    agreed(world).appointment.as_ref().map_or("nobody", |it| it.primary.as_str())
}

/// The whole story must end as `told` says; each cut of it must converge, and end in no lower term.
fn cut_everywhere(story: &[(u64, Fault)], told: impl Fn(&World)) {
    let mut whole = small_world(Durability::Quorum { acks: 1 });
    for (at, fault) in story {
        whole.queue.push(*at, Event::Fault(*fault));
    }
    whole.run();
    assert_eq!(whole.violation, None, "the story itself");
    told(&whole);
    for step in 1..=whole.steps {
        for what in [What::NodeDies, What::DaemonDies] {
            let end = end_of(&[Placed { step, what }], story);
            let place = format!("{what:?} before step {step} of {}", whole.steps);
            assert_eq!(end.violation, None, "{place}");
            assert!(agreed(&end).term().0 >= 1, "{place}");
            let rules = agreed(&end).appointment.as_ref().map(|it| it.rules.len());
            assert_eq!(rules, Some(1), "{place}");
        }
    }
}

/// Why each term was appointed.
fn causes(world: &World) -> Vec<Cause> {
    agreed(world).history.iter().map(|line| line.cause).collect()
}

#[test]
fn a_founding_that_is_cut_converges() {
    cut_everywhere(&[], |world| assert_eq!(causes(world), [Cause::Founded]));
}

#[test]
fn a_failover_that_is_cut_converges() {
    cut_everywhere(&[(3_000_000, Fault::PostmasterDies { n: 3 })], |world| {
        assert_eq!(causes(world), [Cause::Founded, Cause::PostmasterDied]);
        assert_ne!(agreed(world).history[0].primary, agreed(world).history[1].primary);
    });
}

#[test]
fn a_switchover_that_is_cut_converges() {
    cut_everywhere(&[(3_000_000, Fault::Switchover { to: 1 })], |world| {
        assert_eq!(causes(world), [Cause::Founded, Cause::Switchover]);
        assert_eq!(primary(world), "b");
    });
}

#[test]
fn a_rejoin_that_is_cut_converges() {
    cut_everywhere(&[(3_000_000, Fault::PowerOff { n: 3, back: 1_500_000 })], |world| {
        assert_eq!(agreed(world).history.len(), 2, "{:?}", causes(world));
        assert_ne!(agreed(world).history[0].primary.as_str(), primary(world), "it came back");
    });
}

#[test]
fn a_rule_change_that_is_cut_converges() {
    cut_everywhere(&[(3_000_000, Fault::CutStream { a: 0, b: 1, mend: 1_500_000 })], |world| {
        assert_eq!(causes(world), [Cause::Founded], "no failover");
        let rules = |state: &ServiceState| state.appointment.as_ref().map(|it| it.rules.clone());
        let mut sizes: Vec<usize> = world
            .raft
            .states
            .iter()
            .filter_map(|state| rules(state.services.get(&world.service)?))
            .filter(|rules| rules.len() == 1)
            .map(|rules| rules[0].standbys.len())
            .collect();
        sizes.dedup();
        assert!(sizes.ends_with(&[2, 1, 2]), "the rule changed and came back: {sizes:?}");
    });
}
