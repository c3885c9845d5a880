//! What is said about endpoints.

use super::super::{balanced, doctor};
use super::cluster;
use crate::api::balanced::UpstreamState;
use crate::api::explain::Severity;
use crate::proxy::CertificateEnd;
use crate::proxy::balancer::{EndpointSnapshot, Snapshot};
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::clustering::load_balanced::quantiles::{Histogram, Quantiles};
use tandem_core::time::Timestamp;

const BALANCED: &str = r#"
[services.cache]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6379
upstreams = ["10.0.0.11:6379", "cache2:6379"]
"#;

pub(super) fn endpoint(condition: Condition) -> EndpointSnapshot {
    EndpointSnapshot {
        address: ([10, 0, 0, 11], 6379).into(),
        upstream: "10.0.0.11:6379".to_owned(),
        condition: Some(condition),
        ejected_for: Some(Duration::from_millis(7_460)),
        weight: 1,
        far: false,
        share_percent: if condition.is_in_service() { 40 } else { 0 },
        in_flight: 3,
        latency_us: 250,
        quantiles: Some(Quantiles { p50_us: 200, p90_us: 300, p99_us: 4_000 }),
        rate_milli: 1_500,
        histogram: Histogram::default(),
        served: 9,
        failed: 4,
        retried: 3,
        ejected: 1,
        failure: Some("Connection refused".to_owned()),
        is_slow: false,
        cut: 0,
        is_full: false,
        cut_in: Some(Duration::from_millis(90_700)),
    }
}

pub(super) fn snapshot(endpoints: Vec<EndpointSnapshot>) -> Snapshot {
    Snapshot {
        http: None,
        service: "cache".into(),
        policy: "peak-ewma",
        sessions: 3,
        held: 0,
        accepted: 9,
        refused: 0,
        expired: 0,
        retried: 4,
        limited: [0, 0],
        certificates: Vec::new(),
        shown_to_endpoints: None,
        endpoints,
        unresolved: vec!["cache2".to_owned()],
        owners: None,
    }
}

#[test]
fn every_condition_has_its_reason() {
    let seen = cluster(&format!("{}{BALANCED}", super::THREE), "a");
    let told = |condition| {
        let of = balanced::all(&seen, &[snapshot(vec![endpoint(condition)])]).remove(0);
        let upstream = of.upstreams[0].clone();
        (upstream.state, upstream.reason.unwrap_or_default(), of.warnings.join("; "))
    };
    let unresolved = "cache2 cannot be looked up";
    let nobody =
        "no endpoint takes connections: clients wait up to 15s; cache2 cannot be looked up";
    for (condition, state, reason, warnings) in [
        (Condition::Up, UpstreamState::Up, "", unresolved),
        (
            Condition::Starting,
            UpstreamState::Starting,
            "comes back slowly: 40 % of its share",
            unresolved,
        ),
        (Condition::Down, UpstreamState::Down, "its checks fail: Connection refused", nobody),
        (
            Condition::Ejected(Timestamp(1)),
            UpstreamState::Ejected,
            "its work failed: Connection refused; tried again in 7.5 s",
            nobody,
        ),
        (Condition::Draining, UpstreamState::Draining, "3 are left, to be cut in 90s", nobody),
        (Condition::Unknown, UpstreamState::Unchecked, "not asked yet", nobody),
    ] {
        assert_eq!(told(condition), (state, reason.to_owned(), warnings.to_owned()));
    }
}

#[test]
fn what_is_listed_no_more_is_shown_with_its_numbers_until_it_has_nothing() {
    let seen = cluster(&format!("{}{BALANCED}", super::THREE), "a");
    let gone = EndpointSnapshot {
        condition: None,
        upstream: "cache2:6379".to_owned(),
        ..endpoint(Condition::Down)
    };
    let of = balanced::all(&seen, &[snapshot(vec![endpoint(Condition::Up), gone])]).remove(0);
    let [up, gone] = &of.upstreams[..] else { panic!("{of:?}") };
    assert_eq!((up.name.as_deref(), gone.name.as_deref()), (None, Some("cache2:6379")));
    assert_eq!(gone.state, UpstreamState::Removed);
    assert_eq!(gone.reason.as_deref(), Some("listed no more; 3 are left, to be cut in 90s"));
    assert_eq!(of.warnings, ["cache2 cannot be looked up"], "it is nobody to be missed");
    let quantiles = up.quantiles.unwrap();
    assert_eq!([quantiles.p50_ms, quantiles.p90_ms, quantiles.p99_ms], [0.2, 0.3, 4.0]);
    assert_eq!((up.rate_per_s, up.retried_total), (1.5, 3));
}

#[test]
fn a_certificate_is_told_before_it_ends() {
    let mut seen = cluster(&format!("{}{BALANCED}", super::THREE), "a");
    seen.unix_ms = 1_000 * 86_400_000;
    let told = |days: i64| {
        let file = "/etc/web.crt".into();
        let unix_s = (1_000 + days) * 86_400 + 60;
        let certificates = vec![CertificateEnd { file, unix_s, beside_unix_s: None }];
        let of = Snapshot {
            certificates,
            unresolved: Vec::new(),
            ..snapshot(vec![endpoint(Condition::Up)])
        };
        let of = balanced::all(&seen, &[of]).remove(0);
        let found = doctor::balanced::findings(&of, &"a".into(), seen.unix_ms);
        let found: Vec<_> = found.into_iter().map(|it| (it.severity, it.what)).collect();
        (of.warnings.join("; "), found)
    };
    let well = vec![(Severity::Good, "/etc/web.crt is valid for 90 days".to_owned())];
    assert_eq!(told(90), (String::new(), well));
    let (warning, found) = told(9);
    assert_eq!(warning, "certificate /etc/web.crt ends in 9 days");
    assert_eq!(found, [(Severity::Warning, warning)]);
    let (warning, found) = told(-2);
    assert_eq!(warning, "certificate /etc/web.crt has ended: clients refuse it");
    assert_eq!(found, [(Severity::Bad, warning)]);
    assert_eq!(told(2).1[0].0, Severity::Bad);
}

#[test]
fn whoever_refuses_a_certificate_is_named() {
    let mut seen = cluster(&format!("{}{BALANCED}", super::THREE), "a");
    seen.unix_ms = 1_000 * 86_400_000;
    let at = |days: i64| (1_000 + days) * 86_400 + 60;
    let told = |shown: Option<CertificateEnd>, asked: Option<CertificateEnd>| {
        let of = Snapshot {
            certificates: shown.into_iter().collect(),
            shown_to_endpoints: asked,
            unresolved: Vec::new(),
            ..snapshot(vec![endpoint(Condition::Up)])
        };
        let of = balanced::all(&seen, &[of]).remove(0);
        let found = doctor::balanced::findings(&of, &"a".into(), seen.unix_ms);
        let found: Vec<_> = found.into_iter().map(|it| (it.severity, it.what)).collect();
        (of.warnings.join("; "), found)
    };
    let file = || "/etc/own.crt".into();
    let ended = CertificateEnd { file: file(), unix_s: at(-2), beside_unix_s: None };
    let (warning, found) = told(None, Some(ended));
    let wanted = "certificate /etc/own.crt has ended: endpoints refuse it, and clients are held";
    assert_eq!((warning.as_str(), found[0].0), (wanted, Severity::Bad));
    // Of its chain: whoever trusts what is before it in the chain needs it no more.
    let old = CertificateEnd { file: file(), unix_s: at(90), beside_unix_s: Some(at(-2)) };
    let (warning, found) = told(Some(old), None);
    let wanted = "a certificate beside the first in /etc/own.crt has ended: who needs it refuses";
    assert_eq!(warning, wanted);
    assert_eq!(found[0], (Severity::Warning, warning));
    assert_eq!(found[1], (Severity::Good, "/etc/own.crt is valid for 90 days".to_owned()));
}

#[test]
fn who_is_ejected_for_being_slow_has_not_failed() {
    let seen = cluster(&format!("{}{BALANCED}", super::THREE), "a");
    let slow = EndpointSnapshot {
        failure: Some("it takes 50.0 ms, the others 2.0 ms".to_owned()),
        is_slow: true,
        ..endpoint(Condition::Ejected(Timestamp(1)))
    };
    let of = balanced::all(&seen, &[snapshot(vec![slow])]).remove(0);
    let wanted = "too slow: it takes 50.0 ms, the others 2.0 ms; tried again in 7.5 s";
    assert_eq!(of.upstreams[0].reason.as_deref(), Some(wanted));
}

#[test]
fn what_is_said_of_a_door_is_said_by_the_doctor() {
    let seen = cluster(&format!("{}{BALANCED}", super::THREE), "a");
    let of = balanced::all(&seen, &[snapshot(vec![endpoint(Condition::Down)])]).remove(0);
    let found = doctor::balanced::findings(&of, &"a".into(), 0);
    let found: Vec<_> = found.iter().map(|it| (it.severity, it.what.as_str())).collect();
    assert_eq!(found[0].0, Severity::Bad, "{found:?}");
    assert_eq!(found[1], (Severity::Warning, "cache2 cannot be looked up"));
}

#[test]
fn a_door_that_is_not_open_is_told() {
    let seen = cluster(&format!("{}{BALANCED}", super::THREE), "b");
    let of = balanced::all(&seen, &[]).remove(0);
    assert_eq!(of.warnings, ["its door on b is not open: see tandem doctor"]);
    assert_eq!(of.doors[2].listen, "10.0.0.3:6379");
}
