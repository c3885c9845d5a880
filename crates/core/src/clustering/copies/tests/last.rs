//! The last copy that serves, and what is not known yet.

use super::*;

#[test]
fn inv14_one_that_a_restarted_daemon_found_may_be_the_last_that_serves() {
    let mut case = Case::new(&["a", "b"], Some(1));
    case.state.copies.nodes = set(&["b"]);
    case.own("b", |own| own.serving = None);
    case.own("a", |own| own.serving = None);
    case.judged = Judged::NotYet;
    assert_eq!(case.next("a"), None, "clients may well be served by it");
    case.judged = Judged::Yes;
    assert_eq!(case.next("a"), Some(Action::Withdraw), "it serves nobody");
    let mut case = Case::new(&["a", "b"], None);
    case.own("a", |own| (own.serving, own.pending_restart) = (None, true));
    case.judged = Judged::NotYet;
    assert_eq!(case.next("a"), None, "it is not its turn");
}

#[test]
fn inv14_doors_that_were_not_heard_yet_are_waited_for() {
    let mut case = Case::new(&["a", "b", "c"], None);
    case.draining.insert("a".into());
    let link = |case: &mut Case, link: Link| {
        let mut facts = case.facts[&NodeId::from("a")].last_known().clone();
        facts.links.insert("c".into(), link);
        case.facts.insert("a".into(), Observed::new(facts, NOW));
    };
    for name in ["a", "b"] {
        case.says(name, |facts| {
            let door = BTreeMap::from([("a".into(), DoorUse { obeys: NOW, in_flight: 0 })]);
            facts.doors.insert(service(), door);
        });
    }
    case.own("a", |own| own.withdrawn = Some(NOW));
    case.facts.remove(&NodeId::from("c"));
    link(&mut case, Link::Never(Duration::from_secs(1)));
    assert_eq!(case.next("a"), None, "this daemon has just started");
    assert!(case.plan("a", NOW).reason.text().contains("1 doors do not know"), "of c");
    let late = NOW.plus(Duration::from_secs(10));
    let before = case.facts.clone();
    let facts = before[&NodeId::from("b")].last_known().clone();
    case.facts.insert("b".into(), Observed::new(facts, late));
    assert_eq!(case.plan("a", late).action, Some(Action::Stop), "drain_max has passed");
    case.facts = before;
    link(&mut case, Link::Refused(Duration::ZERO));
    assert_eq!(case.next("a"), Some(Action::Stop), "no daemon, no door");
    link(&mut case, Link::Never(LOST_AFTER));
    assert_eq!(case.next("a"), Some(Action::Stop), "it is lost");
    link(&mut case, Link::Never(Duration::from_secs(1)));
    let mut own = case.facts[&NodeId::from("a")].last_known().clone();
    own.doors.clear();
    case.facts.insert("a".into(), Observed::new(own, NOW));
    case.says("b", |facts| facts.doors.clear());
    assert_eq!(case.next("a"), Some(Action::Stop), "a service without doors");
}

#[test]
fn inv14_a_wish_does_not_stop_the_last_one_that_serves() {
    let mut case = Case::new(&["a", "b", "c"], None);
    case.wish = Wish::Restart;
    assert_eq!(case.next("a"), Some(Action::Withdraw));
    case.own("b", |own| own.serving = None);
    case.draining.insert("c".into());
    let next = case.plan("a", NOW);
    assert_eq!(next.action, None);
    assert_eq!(
        next.reason.text(),
        "an operator wants it to start anew, but no other copy serves, so it goes on"
    );
    case.own("a", |own| own.withdrawn = Some(NOW));
    assert_eq!(case.next("a"), Some(Action::Return), "the other one went meanwhile");
    case.own("a", |own| (own.serving, own.withdrawn) = (None, None));
    assert_eq!(case.next("a"), Some(Action::Withdraw), "it serves nobody");
    let mut alone = Case::new(&["a", "b"], Some(1));
    alone.state.copies.nodes = set(&["a"]);
    alone.wish = Wish::Restart;
    assert_eq!(alone.next("a"), Some(Action::Withdraw), "there never is another");
}

#[test]
fn inv14_a_round_leaves_the_only_one_that_serves_alone() {
    let mut case = Case::new(&["a", "b", "c"], None);
    for node in ["a", "b", "c"] {
        case.own(node, |own| own.pending_restart = true);
    }
    case.draining.insert("b".into());
    case.lose("c", LOST_AFTER);
    let decision = case.settle();
    assert_eq!(decision.command, None);
    assert_eq!(
        decision.reason.text(),
        "the copy of a is out of date, and waits until another one serves: it is the only one"
    );
    case.state.copies.turn = Some("a".into());
    assert_eq!(case.next("a"), None, "nor if the others went after it had its turn");
    case.state.copies.turn = None;
    case.draining.clear();
    case.settle();
    assert_eq!(case.turn(), Some("a"));
    let mut alone = Case::new(&["a", "b"], Some(1));
    alone.settle();
    alone.own("a", |own| own.pending_restart = true);
    alone.settle();
    assert_eq!(alone.turn(), Some("a"), "there never is another");
}

#[test]
fn who_was_not_heard_yet_is_not_lost_yet() {
    let mut case = Case::new(&["a", "b", "c"], Some(2));
    case.settle();
    let never = |case: &mut Case, age: Duration| {
        for name in ["a", "c"] {
            case.says(name, |facts| _ = facts.links.insert("b".into(), Link::Never(age)));
        }
        case.facts.remove(&NodeId::from("b"));
    };
    never(&mut case, Duration::from_secs(1));
    assert_eq!(case.settle().command, None, "every daemon has just started");
    never(&mut case, LOST_AFTER);
    assert_eq!(case.settle().reason.text(), "b is lost, so c takes over");
}

#[test]
fn drained_copies_are_not_counted() {
    let mut case = Case::new(&["a", "b", "c"], None);
    case.draining.insert("c".into());
    case.own("b", |own| own.withdrawn = Some(NOW));
    assert_eq!(case.settle().reason.text(), "1 of 2 copies serve");
}
