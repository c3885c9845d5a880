use super::super::between::{Answered, Examined};
use super::super::doctor::{certificate, clocks, cluster as look, service};
use super::super::wishes::spare;
use super::*;
use crate::api::explain::Severity;
use crate::telemetry::codes;

fn answered(unix_ms: u64, sent_unix_ms: u64, took_ms: u64) -> Answered<Examined> {
    Answered {
        node: "b".into(),
        answer: Ok(Examined { version: "1".into(), unix_ms, findings: Vec::new() }),
        sent_unix_ms,
        took: Duration::from_millis(took_ms),
    }
}

#[test]
fn a_clock_counts_as_apart_by_what_is_certain() {
    let severity = |unix_ms| clocks(&[answered(unix_ms, 10_000_000, 3000)])[0].severity;
    assert_eq!(severity(10_000_000), Severity::Good);
    assert_eq!(severity(10_003_900), Severity::Good, "the answer may have been given at the end");
    assert_eq!(severity(10_004_100), Severity::Warning);
    assert_eq!(severity(9_998_000), Severity::Warning);
    assert_eq!(severity(13_600_000), Severity::Bad);
}

#[test]
fn a_certificate_is_said_to_end_in_time() {
    let in_days = |days: i64| certificate(&"a".into(), Some(days * 86_400), 0).severity;
    assert_eq!(in_days(300), Severity::Good);
    assert_eq!(in_days(30), Severity::Warning);
    assert_eq!(in_days(3), Severity::Bad);
    assert_eq!(in_days(-1), Severity::Bad);
}

#[test]
fn a_cluster_on_its_last_majority_is_warned() {
    let mut seen = healthy("a");
    assert!(look(&seen).iter().all(|finding| finding.severity == Severity::Good));
    later(&mut seen, Duration::from_secs(4), &["c"]);
    assert!(look(&seen).iter().any(|finding| finding.what.contains("one more loss")));
    seen.leadership.leader = None;
    assert!(look(&seen).iter().any(|finding| finding.severity == Severity::Bad));
}

#[test]
fn what_the_owner_chose_is_advised_on() {
    let two = THREE.replace("[nodes.c]\naddress = \"10.0.0.3:7400\"\n", "");
    let advice = |seen: &Seen| -> Vec<String> {
        let findings = service(of(seen)).into_iter();
        findings.filter(|it| it.severity != Severity::Good).map(|it| it.what).collect()
    };
    assert_eq!(advice(&healthy("a")), Vec::<String>::new());
    let found = advice(&cluster(&two, "a"));
    assert!(found.iter().any(|it| it == "there is no automatic failover"), "{found:?}");
}

#[test]
fn a_copy_is_spared_only_if_writes_go_on_without_it() {
    let code = |seen: &Seen, node: &str| {
        spare(of(seen), &node.into(), "cannot").map_err(|problem| problem.code)
    };
    let mut seen = healthy("a");
    assert_eq!(code(&seen, "b"), Ok(()));
    assert_eq!(code(&seen, "a"), Err(codes::PRIMARY_NOT_TOUCHED));
    instance(&mut seen, "a", |own| {
        own.replicas.remove(&NodeId::from("c"));
    });
    assert_eq!(code(&seen, "b"), Err(codes::WOULD_LOSE_QUORUM));
    instance(&mut seen, "b", |own| own.data = Data::Quarantined { reason: "x".into() });
    assert_eq!(code(&seen, "b"), Ok(()), "it confirms nothing as it is");
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    assert_eq!(code(&seen, "b"), Err(codes::PRIMARY_NOT_TOUCHED), "nobody to copy from");
}
