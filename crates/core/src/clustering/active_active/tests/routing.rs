//! Where a door sends what belongs to a partition.

use super::*;
use crate::clustering::active_active::routing::{Held, Route, RoutingView, routes};

const SUSPICION: Duration = Duration::from_secs(1);

impl Case {
    /// What a door's node knows.
    pub(super) fn seen<T>(&self, look: impl FnOnce(&RoutingView<'_>) -> T) -> T {
        look(&RoutingView {
            service: &work(),
            nodes: &self.state.spec.nodes,
            services: &self.state.services,
            facts: &self.facts,
            suspicion: SUSPICION,
        })
    }

    pub(super) fn routes(&self) -> Vec<Route> {
        self.seen(|view| routes(view, NOW))
    }

    /// Each in a word: its owner, or why it is held.
    fn routed(&self) -> String {
        let word = |route: &Route| match route {
            Route::To(node, _) => node.to_string(),
            Route::Held(Held::Unowned) => "-".to_string(),
            Route::Held(Held::Releasing) => "r".to_string(),
            Route::Held(Held::Silent) => "?".to_string(),
            Route::Held(Held::Down) => "!".to_string(),
        };
        self.routes().iter().map(word).collect()
    }

    pub(super) fn silent(&mut self, node: &str) {
        let old = self.facts[&NodeId::from(node)].last_known().clone();
        self.facts.insert(node.into(), Observed::new(old, Timestamp(0)));
    }
}

#[test]
fn a_request_goes_to_the_owner_of_its_partition() {
    let mut case = case(6);
    assert_eq!(case.routed(), "------", "nobody owns anything");
    case.go();
    assert_eq!(case.routed(), "aabbcc");
    assert_eq!(case.routes()[5], Route::To("c".into(), Epoch(1)));
    let view = RoutingView {
        service: &"other".into(),
        nodes: &case.state.spec.nodes,
        services: &case.state.services,
        facts: &case.facts,
        suspicion: SUSPICION,
    };
    assert_eq!(routes(&view, NOW), []);
}

#[test]
fn what_moves_is_held_until_it_is_given_on() {
    let mut case = case(6);
    case.go();
    case.state.draining.insert("c".into());
    case.go();
    assert_eq!(case.routed(), "aabbrr");
    let table = case.state.services[&work()].partitions.as_ref().unwrap().since;
    case.own("c", |own| {
        own.seat.table = table;
        own.seat.released = [4, 5].map(|id| (PartitionId(id), Epoch(1))).into();
    });
    case.go();
    assert_eq!(case.routed(), "aabbab");
    assert_eq!(case.routes()[4], Route::To("a".into(), Epoch(2)));
}

#[test]
fn what_a_lost_node_owns_is_held() {
    let mut case = case(6);
    case.go();
    case.own("b", |own| own.serving = None);
    assert_eq!(case.routed(), "aa!!cc", "its copy is not well");
    case.own("b", |own| own.serving = Some(Term(1)));
    case.silent("b");
    assert_eq!(case.routed(), "aa??cc");
    // Proven gone: whatever its last word was.
    case.sit("b", 2, Earlier::Gone);
    assert_eq!(case.routed(), "aa--cc");
}

#[test]
fn a_node_that_is_cut_off_goes_by_what_it_knew_last() {
    let mut case = case(6);
    case.go();
    case.own("c", |own| own.process = Process::Stopped);
    case.silent("b");
    assert_eq!(case.routed(), "aa??!!");
    case.silent("c");
    assert_eq!(case.routed(), "aabb!!", "each says itself whether it owns what it is asked for");
}
