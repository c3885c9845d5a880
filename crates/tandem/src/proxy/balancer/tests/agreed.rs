//! Where keys belong, whichever node's door they come through.

use super::super::group::{Group, Picked, Wanted, Wish};
use super::*;
use tandem_core::clustering::load_balanced::attempts::Attempts;
use tandem_core::clustering::load_balanced::ejection::Event;
use tandem_core::clustering::load_balanced::rendezvous;

#[tokio::test]
async fn a_key_belongs_to_one_endpoint_through_every_nodes_door() {
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    // Each node reaches the same three by ways of its own.
    let doors = [0_u16, 100, 200].map(|way| {
        let group = Group::new(&BalancerConfig { policy: Policy::Hash, ..config(&[]) });
        let places = || (7001..=7003).map(|port| (at(port + way), format!("n{port}").into()));
        group.agreed(places().collect());
        let wanted = |(address, _)| Wanted {
            upstream: "x:1".into(),
            address,
            weight: 1,
            far: false,
            drain: false,
        };
        group.replace(&places().map(wanted).collect::<Vec<Wanted>>());
        group
    });
    for key in 0..50_u64 {
        let key = Some(rendezvous::hash(&key.to_be_bytes()));
        let homes = doors.each_ref().map(|group| {
            let attempts = &Attempts::default();
            let wish = Wish { key, attempts, token: None, in_flight_max: 0, held_max: 10 };
            let Picked::Place(claim) = group.ask(wish) else { panic!("nobody serves") };
            claim.0.address.port() % 100
        });
        assert_eq!(homes, [homes[0]; 3], "{key:?}");
    }
}

/// What was known of the one before is not the other's.
#[tokio::test]
async fn what_is_there_by_another_name_is_another_endpoint() {
    let group = Group::new(&config(&[]));
    let address = SocketAddr::from(([192, 0, 2, 1], 7001));
    let lead = |name: &str| {
        group.agreed([(address, name.into())].into());
        let upstream = "x:1".into();
        group.replace(&[Wanted { upstream, address, weight: 1, far: false, drain: false }]);
    };
    let picked = || {
        let attempts = &Attempts::default();
        let wish = Wish { key: None, attempts, token: None, in_flight_max: 0, held_max: 10 };
        let Picked::Place(claim) = group.ask(wish) else { panic!("nobody serves") };
        claim
    };
    lead("a");
    let a = picked();
    lead("a");
    assert!(std::sync::Arc::ptr_eq(&picked().0, &a.0), "the same");
    lead("b");
    let b = picked();
    assert_ne!((a.0.token(), a.0.is_leaving()), (b.0.token(), false));
    assert!(a.0.is_leaving());
    group.note(&a.0, Event::Drained);
    assert_eq!(group.snapshot()[0].condition, Some(Condition::Up), "that is the other one's");
    lead("a");
    assert!(std::sync::Arc::ptr_eq(&picked().0, &a.0), "it is back, and has what it had");
}
