//! What of a door's work waits for a copy that is proven gone.

use super::*;
use crate::clustering::active_active::led::Led;
use crate::clustering::active_active::routing::Route;

/// A door, whose places are called as their nodes are.
#[derive(Default)]
struct Door(Led<char>);

fn place(node: &NodeId) -> char {
    node.as_str().chars().next().unwrap()
}

impl Door {
    /// The places where all that was led there before this look is over.
    fn look(&mut self, case: &Case) -> String {
        let leads = case.routes().into_iter().filter_map(|route| match route {
            Route::To(node, _) => Some((place(&node), node)),
            Route::Held(_) => None,
        });
        case.seen(|view| self.0.look(view, leads)).into_iter().collect()
    }
}

/// All that a node has to release is released.
fn release(case: &mut Case, node: &str, partitions: impl IntoIterator<Item = u32>) {
    let table = case.state.services[&work()].partitions.as_ref().unwrap().since;
    case.own(node, |own| {
        own.seat.table = table;
        own.seat.released = partitions.into_iter().map(|id| (PartitionId(id), Epoch(1))).collect();
    });
    case.go();
}

#[test]
fn what_was_led_to_a_copy_that_is_proven_gone_is_over_once() {
    let (mut case, mut door) = (case(6), Door::default());
    assert_eq!(door.look(&case), "", "nobody owns anything");
    case.go();
    assert_eq!(door.look(&case), "");
    case.silent("b");
    assert_eq!(door.look(&case), "", "it may be at work yet");
    case.sit("b", 2, Earlier::MayRun);
    assert_eq!(door.look(&case), "", "it goes on under another term");
    case.sit("b", 3, Earlier::Gone);
    assert_eq!(door.look(&case), "b", "though nothing leads there now");
    assert_eq!(door.look(&case), "");
}

/// A door may miss all that was between: its node was away, or the look is late.
#[test]
fn what_is_led_to_a_copy_that_came_after_is_not_over() {
    let (mut case, mut door) = (case(6), Door::default());
    case.go();
    assert_eq!(door.look(&case), "");
    case.sit("b", 2, Earlier::Gone);
    case.go();
    assert!(case.routes().contains(&Route::To("b".into(), Epoch(2))), "{:?}", case.routes());
    assert_eq!(door.look(&case), "b", "what was led there before");
    assert_eq!(door.look(&case), "", "what is led there now");
    case.sit("b", 3, Earlier::Gone);
    assert_eq!(door.look(&case), "b", "that as well, once it is gone too");
}

#[test]
fn what_was_released_may_be_answered_yet() {
    let (mut case, mut door) = (case(6), Door::default());
    case.go();
    assert_eq!(door.look(&case), "");
    case.state.draining.insert("c".into());
    case.go();
    assert_eq!(door.look(&case), "", "it was asked back");
    release(&mut case, "c", [4, 5]);
    assert!(case.routes().iter().all(|it| !matches!(it, Route::To(to, _) if *to == "c".into())));
    assert_eq!(door.look(&case), "", "others own it now");
    // It owns nothing, so it may be taken out, and has no seat any more.
    let (expected, without) = (case.state.config_version, config(&["a", "b"], 6));
    case.state.apply(&Command::Configure { expected, config: without });
    assert!(!case.state.services.contains_key(&seat("c")));
    assert_eq!(door.look(&case), "");
}

#[test]
fn a_node_that_an_operator_says_is_lost_for_good_is_gone() {
    let (mut case, mut door) = (case(6), Door::default());
    case.go();
    assert_eq!(door.look(&case), "");
    case.state.services.remove(&seat("c"));
    assert_eq!(door.look(&case), "c", "its partitions are nobody's");
}

/// Its copies end in good order, and answer what they have.
#[test]
fn what_is_taken_out_as_a_whole_is_not_over() {
    let (mut case, mut door) = (case(6), Door::default());
    case.go();
    assert_eq!(door.look(&case), "");
    let all: Vec<ServiceId> = case.state.services.keys().cloned().collect();
    all.iter().for_each(|service| _ = case.state.services.remove(service));
    assert_eq!(door.look(&case), "");
}
