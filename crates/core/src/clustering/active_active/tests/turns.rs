//! Copies that run as an earlier configuration said: whose turn it is, and that all come round.

use super::*;
use crate::clustering::active_active::seat::is_emptied_first;

fn changed(case: &mut Case) {
    for node in NAMES {
        case.own(node, |own| own.pending_restart = true);
    }
}

fn waits(case: &Case, node: &str) -> bool {
    is_emptied_first(&case.state, &Seat { of: work(), node: node.into() })
}

/// It says at once that it released what it was asked for.
fn releases(case: &mut Case, node: &str) {
    let table = case.state.services[&work()].partitions.clone().unwrap();
    let is_its = |owner: &Owner| owner.node == NodeId::from(node);
    for (id, it) in table.iter().filter(|(_, it)| it.releasing.is_some()) {
        if it.owner.as_ref().is_some_and(is_its) {
            released(case, node, id.0, it.epoch.0);
        }
    }
}

/// Until nothing is planned any more.
fn settle(case: &mut Case) {
    while !case.go().is_empty() {
        NAMES.iter().for_each(|node| releases(case, node));
    }
}

fn ends(case: &mut Case, node: &str) {
    assert!(!waits(case, node));
    case.own(node, |own| (own.process, own.serving) = (Process::Stopped, None));
}

fn is_back(case: &mut Case, node: &str) {
    case.own(node, |own| {
        (own.process, own.serving, own.pending_restart) =
            (Process::Primary, Some(own.promoted), false);
    });
}

#[test]
fn inv14_copies_that_are_out_of_date_are_emptied_and_start_anew_one_at_a_time() {
    let mut case = case(6);
    settle(&mut case);
    changed(&mut case);
    for (node, others) in [("a", "bcbbcc"), ("b", "acaacc"), ("c", "abaabb")] {
        assert!(waits(&case, node));
        settle(&mut case);
        let count = |name: char| case.owners().chars().filter(|it| *it == name).count();
        let counts = ['a', 'b', 'c'].map(count);
        let expected = ['a', 'b', 'c'].map(|name| others.chars().filter(|it| *it == name).count());
        assert_eq!(counts, expected, "{}", case.owners());
        ends(&mut case, node);
        assert_eq!(case.go(), "", "nobody else is emptied while it starts");
        case.own(node, |own| own.process = Process::Starting);
        assert_eq!(case.go(), "");
        is_back(&mut case, node);
    }
    settle(&mut case);
    let even = ['a', 'b', 'c'].map(|name| case.owners().chars().filter(|it| *it == name).count());
    assert_eq!(even, [2, 2, 2]);
}

#[test]
fn inv14_one_that_does_not_come_back_stops_the_round_and_a_silent_one_does_not() {
    let mut case = case(6);
    settle(&mut case);
    changed(&mut case);
    settle(&mut case);
    ends(&mut case, "a");
    case.own("a", |own| own.starts_failed = 5);
    settle(&mut case);
    assert!(["b", "c"].iter().all(|node| waits(&case, node)), "{}", case.owners());
    case.lose("a");
    settle(&mut case);
    assert!(!waits(&case, "b") && waits(&case, "c"), "{}", case.owners());
}

#[test]
fn inv14_what_nobody_could_take_waits_and_a_copy_that_is_alone_does_not() {
    let mut case = case(6);
    settle(&mut case);
    case.own("a", |own| own.pending_restart = true);
    for node in ["b", "c"] {
        case.own(node, |own| own.serving = None);
    }
    assert_eq!(case.go(), "", "the others do not work");
    assert!(waits(&case, "a"));
    for node in ["b", "c"] {
        case.state.apply(&Command::Drain { node: node.into(), draining: true });
    }
    assert!(!waits(&case, "a"), "nobody else may have it");
}

#[test]
fn a_copy_that_owns_nothing_is_given_nothing_until_it_has_started_anew() {
    let mut case = case(2);
    settle(&mut case);
    assert_eq!(case.owners(), "ab");
    changed(&mut case);
    assert!(!waits(&case, "c"));
    assert_eq!(case.go(), "", "first it is back");
    is_back(&mut case, "c");
    settle(&mut case);
    assert!(!waits(&case, "a"), "{}", case.owners());
    let reason = case.plan(&work()).reason.to_string();
    assert!(reason.contains("a: starts its copy anew, which is out of date"), "{reason}");
}
