//! A copy that ends by a plan: the doors first.

use super::*;
use crate::clustering::active_passive::singleton::door::{DoorView, leads_to};
use crate::facts::DoorUse;
use crate::facts::withdrawal::{LOST_AFTER, Withdrawn};

const SUSPICION: Duration = Duration::from_secs(1);

/// The holder, which runs it and whose clients come through a door on each node.
struct Served {
    case: Case,
    wish: Wish,
    at: Timestamp,
}

fn served() -> Served {
    let mut it = Served { case: case(), wish: Wish::Agreed, at: NOW };
    for node in ["a", "b", "c"] {
        it.door(node, None);
    }
    it
}

impl Served {
    /// What a node's door says of the holder's copy.
    fn door(&mut self, node: &str, uses: Option<DoorUse>) {
        let uses = uses.map(|uses| (NodeId::from("a"), uses)).into_iter().collect();
        self.case.set_node(node, |facts| _ = facts.doors.insert("jobs".into(), uses));
    }

    fn obeys(&mut self, in_flight: u32) -> Option<DoorUse> {
        Some(DoorUse { obeys: self.own().withdrawn.unwrap(), in_flight })
    }

    fn own(&self) -> InstanceFacts {
        self.case.facts[&"a".into()].last_known().instances[&"jobs".into()].clone()
    }

    fn next(&self) -> (Option<Action>, String) {
        let (me, service, own) = ("a".into(), "jobs".into(), self.own());
        let view = SingletonView {
            me: &me,
            timing: Timing::of_command(),
            state: &self.case.state,
            own: &own,
            asked: None,
            lease: Some(self.at.plus(Duration::from_millis(800))),
            counts_from: None,
            retry_at: Timestamp(0),
            wish: self.wish,
            is_emptied_first: false,
            doors: self.case.doors(&me, &service),
        };
        let next = plan_copy(&view, self.at);
        (next.action, next.reason.to_string())
    }

    fn withdraws(&mut self) {
        assert_eq!(self.next().0, Some(Action::Withdraw));
        self.case.set("a", |own| own.withdrawn = Some(NOW));
    }

    fn moves_to(&mut self, to: &str) {
        let to = to.into();
        self.case.state.switchover = Some(Switchover { to, deadline_unix_ms: NOW_MS + 60_000 });
    }
}

#[test]
fn inv14_a_holder_that_moves_waits_for_every_door_and_what_is_under_way() {
    let mut it = served();
    it.moves_to("b");
    it.withdraws();
    let all = "b shall run it; 0 are not over, and 3 doors do not know of it yet";
    assert_eq!(it.next(), (None, all.to_string()));
    let (idle, busy) = (it.obeys(0), it.obeys(1));
    it.door("a", idle);
    it.door("b", busy);
    it.door("c", Some(DoorUse { obeys: Timestamp(1), in_flight: 0 }));
    let some = "b shall run it; 1 are not over, and 1 doors do not know of it yet";
    assert_eq!(it.next(), (None, some.to_string()), "an earlier withdrawal is none");
    it.door("c", idle);
    assert_eq!(it.next().0, None, "of b");
    it.door("b", idle);
    assert_eq!(it.next().0, Some(Action::Stop));
    it.door("b", busy);
    it.at = NOW.plus(DRAIN_MAX);
    for node in ["a", "b", "c"] {
        let facts = it.case.facts[&node.into()].last_known().clone();
        it.case.facts.insert(node.into(), Observed::new(facts, it.at));
    }
    let cut = "b shall run it; drain_max has passed, and 1 are cut";
    assert_eq!(it.next(), (Some(Action::Stop), cut.to_string()));
}

#[test]
fn a_move_that_is_given_up_returns_it_to_the_doors() {
    let mut it = served();
    it.moves_to("b");
    it.withdraws();
    it.case.state.switchover = None;
    assert_eq!(it.next(), (Some(Action::Return), "stays in term 1".to_string()));
}

#[test]
fn whatever_ends_it_by_plan_withdraws_it_first() {
    for wish in [Wish::Restart, Wish::Leave] {
        let mut it = served();
        it.wish = wish;
        assert_eq!(it.next().0, Some(Action::Withdraw), "{wish:?}");
    }
    let mut it = served();
    it.case.set("a", |own| own.pending_restart = true);
    assert_eq!(it.next().0, Some(Action::Withdraw));
}

#[test]
fn inv12_nothing_that_must_end_waits_for_a_door() {
    let mut it = served();
    it.moves_to("b");
    it.withdraws();
    it.case.set("a", |own| own.promised = Term(2));
    assert_eq!(it.next().0, Some(Action::Fence), "it has promised a later term");
    it.case.set("a", |own| own.promised = Term(1));
    it.case.state = appointed("b", 2);
    assert_eq!(it.next().0, Some(Action::Fence), "another one runs it");
}

#[test]
fn where_nobody_is_led_to_it_there_is_nothing_to_wait_for() {
    let mut it = served();
    it.wish = Wish::Restart;
    for node in ["a", "b", "c"] {
        it.case.set_node(node, |facts| facts.doors.clear());
    }
    assert_eq!(it.next().0, Some(Action::Stop), "there is no door");
}

#[test]
fn a_door_that_is_silent_or_lost_is_not_waited_for() {
    let mut it = served();
    it.moves_to("b");
    it.withdraws();
    let idle = it.obeys(0);
    it.door("a", idle);
    it.door("b", idle);
    it.case.lose("c", Link::Silent(Duration::from_millis(1100)));
    it.door("a", idle);
    assert_eq!(it.next().0, Some(Action::Stop), "its own door leads nobody to whom it hears not");
    it.case.facts.remove(&"c".into());
    let link = |it: &mut Served, age| {
        it.case.set_node("a", |facts| _ = facts.links.insert("c".into(), Link::Never(age)));
    };
    link(&mut it, Duration::from_secs(1));
    assert_eq!(it.next().0, None, "this daemon has just started");
    link(&mut it, LOST_AFTER);
    assert_eq!(it.next().0, Some(Action::Stop));
}

#[test]
fn inv14_a_door_holds_who_comes_while_the_holder_withdraws_and_says_what_it_has() {
    let mut it = served();
    let leads = |it: &Served, now| {
        let Case { state, facts, .. } = &it.case;
        let view = DoorView { service: &"jobs".into(), state, facts, suspicion: SUSPICION };
        leads_to(&view, now).map(|node| node.to_string())
    };
    assert_eq!(leads(&it, NOW).as_deref(), Some("a"));
    assert_eq!(leads(&it, NOW.plus(SUSPICION * 2)), None, "it has not been heard since");
    it.moves_to("b");
    it.withdraws();
    assert_eq!(leads(&it, NOW), None);
    let told = Withdrawn::of(&"jobs".into(), &it.case.facts).uses(|_| Some(3));
    assert_eq!(told, BTreeMap::from([("a".into(), DoorUse { obeys: NOW, in_flight: 3 })]));
    let unknown = Withdrawn::of(&"jobs".into(), &it.case.facts).uses(|_| None);
    assert!(unknown.is_empty(), "what is not counted is not told");
    it.case.state = appointed("b", 2);
    assert_eq!(leads(&it, NOW), None, "not to who ran it before, and b does not yet");
    it.case.set("b", |own| runs(own, 2));
    assert_eq!(leads(&it, NOW).as_deref(), Some("b"));
}
