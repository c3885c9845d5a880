//! Where doors lead, and what they say to copies that withdraw.

use super::super::door::{DoorView, Look, look};
use super::super::takes_work;
use super::*;

impl Case {
    fn look(&self, me: &str, now: Timestamp) -> Look {
        let (me, service, suspicion) = (me.into(), service(), self.spec.timing.suspicion);
        look(&DoorView { me: &me, service: &service, facts: &self.facts, suspicion }, now)
    }
}

#[test]
fn inv14_a_door_obeys_a_withdrawal_once_it_leads_nobody_there() {
    let mut case = Case::new(&["a", "b", "c"], None);
    let look = case.look("a", NOW);
    assert_eq!(look.takers, set(&["a", "b", "c"]));
    assert!(look.uses(|_| Some(7)).is_empty(), "nobody waits for it");
    case.own("b", |own| own.withdrawn = Some(Timestamp(5)));
    let look = case.look("a", NOW);
    assert_eq!(look.takers, set(&["a", "c"]));
    let said = DoorUse { obeys: Timestamp(5), in_flight: 7 };
    assert_eq!(look.uses(|_| Some(7)), [("b".into(), said)].into());
    assert!(look.uses(|_| None).is_empty(), "it does not know what it has there");
}

/// Whatever is known of whom: nobody is led to where a withdrawal is obeyed.
#[test]
fn inv14_over_all_small_cases_no_door_leads_where_it_obeys() {
    for case in 0..8_usize.pow(3) {
        let mut world = Case::new(&["a", "b", "c"], None);
        for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
            let bits = case >> (3 * at) & 7;
            world.own(name, |own| {
                own.withdrawn = (bits & 1 == 1).then_some(Timestamp(3));
                own.serving = (bits & 2 == 2).then_some(Term(1));
            });
            if bits & 4 == 4 {
                world.lose(name, Duration::from_secs(2));
            }
        }
        let look = world.look("a", NOW);
        let uses = look.uses(|_| Some(0));
        assert!(look.takers.iter().all(|node| !uses.contains_key(node)), "{case}: {look:?}");
        let takes = |name: &str| {
            takes_work(&world.facts[&NodeId::from(name)].last_known().instances[&service()])
        };
        let all = ["a", "b", "c"].into_iter().any(takes);
        assert_eq!(look.takers.is_empty(), !all, "{case}: somebody takes work, {look:?}");
    }
}

#[test]
fn h41_old_words_count_only_where_nobody_else_takes_work() {
    let mut case = Case::new(&["a", "b"], None);
    case.lose("b", Duration::from_secs(2));
    assert_eq!(case.look("a", NOW).takers, set(&["a"]));
    case.own("a", |own| own.serving = None);
    assert_eq!(case.look("a", NOW).takers, set(&["b"]), "its daemon may be away");
}

#[test]
fn inv14_a_door_leads_first_to_those_who_hear_it() {
    let mut case = Case::new(&["a", "b", "c"], None);
    let link = |case: &mut Case, name: &str, link: Link| {
        let mut facts = case.facts[&NodeId::from(name)].last_known().clone();
        facts.links.insert("a".into(), link);
        case.facts.insert(name.into(), Observed::new(facts, NOW));
    };
    link(&mut case, "b", Link::Silent(Duration::from_millis(500)));
    assert_eq!(case.look("a", NOW).takers, set(&["a", "b", "c"]), "b counts its words still");
    link(&mut case, "b", Link::Refused(Duration::ZERO));
    assert_eq!(case.look("a", NOW).takers, set(&["a", "c"]), "b would not wait for this door");
    for name in ["b", "c"] {
        link(&mut case, name, Link::Silent(Duration::from_secs(3)));
    }
    case.own("a", |own| own.serving = None);
    assert_eq!(case.look("a", NOW).takers, set(&["b", "c"]), "nobody hears it");
}
