use super::super::role::{lease_left, role_in};
use super::*;
use crate::api::role::RoleCheck;
use crate::api::status::InstanceRole;

fn check(seen: &Seen, acknowledged_ago_ms: u64) -> RoleCheck {
    let at = seen.now.minus(Duration::from_millis(acknowledged_ago_ms));
    let acknowledged =
        seen.config.nodes.keys().filter(|it| **it != seen.me).map(|it| (it.clone(), at)).collect();
    role_in(of(seen), &acknowledged)
}

#[test]
fn a_primary_serves_while_its_lease_is_proven() {
    let seen = healthy("a");
    let role = check(&seen, 100);
    assert_eq!((role.role, role.serves), (Some(InstanceRole::Primary), true));
    assert_eq!((role.lag_bytes, role.reason), (Some(0), None));
    let role = check(&seen, 1600);
    assert!(!role.serves, "H41: it was so, and no longer is");
    assert_eq!(role.reason.as_deref(), Some("its lease is not proven at this moment"));
    assert!(!role_in(of(&seen), &BTreeMap::new()).serves);
}

#[test]
fn a_primary_without_its_barrier_or_with_a_later_promise_does_not_serve() {
    let mut seen = healthy("a");
    instance(&mut seen, "a", |own| own.serving = None);
    assert!(!check(&seen, 0).serves);
    let mut seen = healthy("a");
    instance(&mut seen, "a", |own| own.promised = Term(2));
    assert!(!check(&seen, 0).serves);
}

#[test]
fn a_replica_serves_while_it_is_fed_and_its_lag_is_known_or_not() {
    let mut seen = healthy("b");
    let role = check(&seen, 0);
    assert_eq!((role.serves, role.lag_bytes), (true, Some(200)));
    later(&mut seen, Duration::from_millis(1500), &["a"]);
    assert_eq!(check(&seen, 0).lag_bytes, None, "the primary was not heard lately");
    instance(&mut seen, "b", |own| own.stream = Stream::None);
    assert!(!check(&seen, 0).serves);
}

#[test]
fn only_the_primary_has_a_lease() {
    let seen = healthy("b");
    assert_eq!(lease_left(of(&seen), &[("a".into(), seen.now)].into()), None);
}
