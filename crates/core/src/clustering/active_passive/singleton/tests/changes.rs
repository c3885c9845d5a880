//! What the owner changes: members, the service itself; and moves that nobody asked for by name.

use super::*;
use crate::cluster::command::ServiceCommand;
use crate::clustering::members::keeps_voters;

#[test]
fn a_move_that_the_planner_asked_for_is_one_that_it_goes_on_with() {
    let mut case = case();
    case.draining.insert("a".into());
    let plan = case.whole_plan();
    let [Step::Propose(ServiceCommand::RequestSwitchover { to, deadline_unix_ms })] =
        plan.steps.as_slice()
    else {
        panic!("{plan:?}")
    };
    let switchover = Switchover { to: to.clone(), deadline_unix_ms: *deadline_unix_ms };
    case.state.switchover = Some(switchover);
    assert_eq!(case.plan(), (vec![], "a stops, so that b can run it".to_string()));
}

#[test]
fn a_holder_that_is_no_member_any_more_is_replaced() {
    let mut case = case();
    case.nodes.remove(&NodeId::from("a"));
    case.facts.remove(&NodeId::from("a"));
    assert_eq!(case.steps(), ["ask b to promise term 2", "ask c to promise term 2"]);
}

#[test]
fn a_copy_that_serves_is_not_moved_for_what_failed_before() {
    let mut case = case();
    case.set("a", |own| own.starts_failed = FAILURES_MAX);
    assert_eq!(case.steps(), [""; 0]);
    case.set("a", |own| own.serving = None);
    assert_eq!(case.steps(), ["ask a to promise term 2"]);
}

#[test]
fn the_voters_change_once_the_holder_knows_the_last_change_or_is_dead() {
    let mut case = case();
    case.set("a", |own| own.revision = Revision(3));
    let why = |case: &Case| {
        let why = case.with_view(|view| keeps_voters(view, NOW));
        why.map(|why| why.to_string()).unwrap_or_default()
    };
    assert_eq!(why(&case), "");
    case.state.revision = Revision(4);
    assert_eq!(why(&case), "a, where jobs runs, has not heard of the last change yet");
    case.lose("a", Link::Silent(Duration::from_secs(2)));
    assert_eq!(why(&case), "", "two of three do not hear it");
    case.set_node("c", |facts| {
        facts.links.insert("a".into(), Link::Up(Duration::ZERO));
    });
    assert!(why(&case).starts_with("a, where jobs runs, does not answer here, and others may"));
}

#[test]
fn a_ballot_from_before_it_was_taken_out_counts_no_longer() {
    let mut case = case();
    case.state = ServiceState::default();
    case.state.before.term = Term(4);
    case.state.before.revision = Revision(9);
    case.set("a", |own| own.process = Process::Stopped);
    for node in ["b", "c"] {
        case.vote(node, 5);
        case.set(node, |own| own.revision = Revision(9));
    }
    assert_eq!(case.steps(), ["ask a to promise term 5"]);
    for node in ["b", "c"] {
        case.set(node, |own| own.revision = Revision(10));
    }
    assert_eq!(case.steps(), ["propose to appoint a for term 5"]);
}

/// A daemon that was killed comes back to an earlier agreed state, of which it was the holder: it
/// may have supported the lease of the next one since.
#[test]
fn inv12_the_word_of_who_was_the_holder_is_no_ballot() {
    let mut case = case();
    case.state = appointed("a", 2);
    case.vote("b", 3);
    for (held, count) in [(Some(Term(1)), 1), (None, 2)] {
        case.set("c", |own| {
            own.promised = Term(3);
            own.ballot = Some(Ballot { term: Term(3), position: None, held });
        });
        assert_eq!(case.with_view(|view| election::ballots(view, Term(3)).len()), count);
    }
}

#[test]
fn inv14_what_owns_work_that_others_take_waits_for_them_before_it_starts_anew() {
    let outdated = |change: fn(&mut SingletonView<'_>, &mut InstanceFacts)| {
        own(|view, own| {
            runs(own, 1);
            (own.pending_restart, view.is_emptied_first) = (true, true);
            change(view, own);
        })
    };
    let waits = "wait: is out of date, and starts anew once others own its work; in term 1";
    assert_eq!(outdated(|_, _| {}), waits);
    let ends = "stop in good order";
    assert_eq!(outdated(|view, _| view.is_emptied_first = false), ends);
    assert_eq!(outdated(|view, _| view.wish = Wish::Restart), ends, "by name");
    assert_eq!(outdated(|_, own| own.serving = None), ends, "it is not well");
}
