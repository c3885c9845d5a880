use super::super::candidates::{failover_now, switchover_target};
use super::super::moves::failover::{Price, check};
use super::*;
use crate::api::explain::Safety;
use crate::telemetry::codes;
use crate::telemetry::problem::Code;

fn to(seen: &Seen, node: &str) -> Result<NodeId, Code> {
    switchover_target(of(seen), Some(&node.into())).map_err(|problem| problem.code)
}

fn best(seen: &Seen) -> Result<NodeId, Code> {
    switchover_target(of(seen), None).map_err(|problem| problem.code)
}

#[test]
fn a_target_that_cannot_take_over_is_refused_with_its_own_code() {
    let seen = healthy("a");
    assert_eq!(to(&seen, "b"), Ok("b".into()));
    assert_eq!(to(&seen, "x"), Err(codes::NO_SUCH_NODE));
    assert_eq!(to(&seen, "a"), Err(codes::ALREADY_SO));

    let witness = THREE
        .replace("address = \"10.0.0.3:7400\"", "address = \"10.0.0.3:7400\"\nrole = \"witness\"");
    assert_eq!(to(&cluster(&witness, "a"), "c"), Err(codes::WITNESS));

    let mut seen = healthy("a");
    instance(&mut seen, "b", |own| own.stream = Stream::None);
    assert_eq!(to(&seen, "b"), Err(codes::TARGET_NOT_ELIGIBLE));
    instance(&mut seen, "a", |own| own.flushed = Lsn(900 + (17 << 20)));
    assert_eq!(to(&seen, "c"), Err(codes::TARGET_LAGS));
}

#[test]
fn a_primary_that_does_not_serve_hands_nothing_over() {
    let mut seen = healthy("a");
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    assert_eq!(best(&seen), Err(codes::TARGET_NOT_ELIGIBLE));
}

#[test]
fn the_best_target_is_the_owners_favourite_then_one_in_the_old_zone_then_by_name() {
    let mut seen = healthy("a");
    instance(&mut seen, "c", |own| own.flushed = Lsn(950));
    assert_eq!(best(&seen), Ok("b".into()), "it will hold everything before the move is done");
    let zones = THREE.replace("[nodes.c]", "[nodes.c]\nzone = \"x\"");
    assert_eq!(best(&cluster(&zones, "a")), Ok("c".into()));
    let preferred = THREE.replace("[nodes.b]", "[nodes.b]\npriority = 200");
    let mut seen = cluster(&preferred, "a");
    instance(&mut seen, "c", |own| own.flushed = Lsn(950));
    assert_eq!(best(&seen), Ok("b".into()));
    let mut agreed = ClusterState::clone(&seen.agreed);
    agreed.draining.insert("b".into());
    seen.agreed = Arc::new(agreed);
    assert_eq!(best(&seen), Ok("c".into()), "b is being emptied");
}

#[test]
fn a_copy_that_does_not_start_is_not_counted_on() {
    let mut seen = healthy("a");
    for node in ["b", "c"] {
        instance(&mut seen, node, |own| own.process = Process::Stopped);
    }
    assert_eq!(failover_now(of(&seen)).safety, Safety::Safe, "they are started to vote");
    for node in ["b", "c"] {
        instance(&mut seen, node, |own| own.starts_failed = 2);
    }
    let now = failover_now(of(&seen));
    assert_eq!(now.safety, Safety::Impossible);
    let because = &now.candidates[0].because;
    assert!(because.starts_with("its last 2 starts failed"), "{because}");
}

#[test]
fn a_failover_is_safe_only_if_those_left_meet_every_quorum() {
    let mut seen = healthy("b");
    instance(&mut seen, "c", |own| own.flushed = Lsn(950));
    let now = failover_now(of(&seen));
    assert_eq!(now.safety, Safety::Safe);
    assert_eq!((now.would_choose, now.may_lose_bytes), (Some("c".into()), Some(0)));

    later(&mut seen, Duration::from_secs(4), &["a", "c"]);
    let now = failover_now(of(&seen));
    assert_eq!(now.safety, Safety::Unsafe, "c may hold a commit that b lacks");
    assert_eq!((now.would_choose, now.may_lose_bytes), (Some("b".into()), Some(100)));
    assert!(!now.candidates[1].eligible);

    instance(&mut seen, "b", |own| own.data = Data::Mixed);
    assert_eq!(failover_now(of(&seen)).safety, Safety::Impossible);
}

#[test]
fn in_async_mode_the_loss_is_known_in_bytes_and_in_time_or_said_to_be_unknown() {
    let text = THREE.replace("listen =", "durability = \"async\"\nlisten =");
    let mut seen = cluster(&text, "b");
    let numbers = |seen: &Seen| {
        let because = failover_now(of(seen)).because;
        ["lag_bytes", "lag_ms", "lag_ms_max"].map(|key| because.numbers[key].as_u64())
    };
    assert_eq!(numbers(&seen), [Some(100), None, Some(10_000)], "since when is not known");
    let trail = seen.trails.entry(orders()).or_default();
    for (flushed, seconds) in [(900, 10), (1000, 13)] {
        let flushed_at = Timestamp(seconds * 1_000_000);
        let own = primary(1, &["b", "c"]);
        trail.note(&"a".into(), 0, &InstanceFacts { flushed: Lsn(flushed), flushed_at, ..own });
    }
    assert_eq!(numbers(&seen), [Some(100), Some(3000), Some(10_000)]);
    instance(&mut seen, "b", |own| own.data_term = Term(0));
    instance(&mut seen, "c", |own| own.data_term = Term(0));
    assert_eq!(numbers(&seen), [None, None, Some(10_000)], "another log may have gone elsewhere");
}

#[test]
fn priority_only_breaks_ties_in_a_failover() {
    let text = THREE.replace("[nodes.b]", "[nodes.b]\npriority = 900");
    let mut seen = cluster(&text, "b");
    instance(&mut seen, "c", |own| own.flushed = Lsn(901));
    assert_eq!(failover_now(of(&seen)).would_choose, Some("c".into()), "H16");
}

#[test]
fn a_primary_that_serves_is_not_failed_over_by_accident() {
    let seen = healthy("b");
    let refused = check(of(&seen), None, false).unwrap_err();
    assert_eq!(refused.code, codes::PRIMARY_SERVES);
    assert!(refused.try_.contains("tandem switchover orders"), "{refused}");
    let named = check(of(&seen), Some(&"c".into()), false).map_err(|problem| problem.code);
    assert_eq!(named, Err(codes::PRIMARY_SERVES));
    assert!(check(of(&seen), None, true).is_ok(), "whoever insists");
    let mut silent = healthy("b");
    later(&mut silent, Duration::from_secs(4), &["a"]);
    instance(&mut silent, "b", |own| own.stream = Stream::None);
    instance(&mut silent, "c", |own| own.stream = Stream::None);
    assert!(check(of(&silent), None, false).is_ok());
}

#[test]
fn loss_must_be_accepted_by_name() {
    let mut seen = healthy("b");
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    assert_eq!(check(of(&seen), None, false), Ok(Price { safe: true, may_lose_bytes: Some(0) }));
    later(&mut seen, Duration::from_secs(4), &["a", "c"]);
    let code = |accept| check(of(&seen), None, accept).map_err(|problem| problem.code);
    assert_eq!(code(false), Err(codes::MAY_LOSE));
    assert_eq!(code(true), Ok(Price { safe: false, may_lose_bytes: Some(100) }));

    let mut seen = healthy("b");
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    instance(&mut seen, "c", |own| own.flushed = Lsn(950));
    let to_b = check(of(&seen), Some(&"b".into()), false).map_err(|problem| problem.code);
    assert_eq!(to_b, Err(codes::MAY_LOSE), "c holds more");
    let to_c = check(of(&seen), Some(&"c".into()), false);
    assert!(to_c.is_ok_and(|price| price.safe));
}
