use super::*;
use crate::config::{Question, needs_restart, show, unsafe_change};
use tandem_core::clustering::load_balanced::retry;
use tandem_core::pairing::Kind;

/// Every key that only a service of kind http has.
const WEB: &str = r#"
[services.web]
kind = "http"
clustering = "load-balanced"
replication = "none"
listen = 8080
upstreams = ["10.0.0.11:80"]
health = { path = "/healthz?a=1", host = "shop.example:80", expect = "200-204" }
ejection = { errors = false }
idle_timeout = "2min"
head_timeout = "3s"
keep_alive = "4s"
answer_timeout = "5s"
total_timeout = "6s"
head_max = "8kB"
fields_max = 50
body_max = "10MB"
in_flight_max = 11
upstream_idle_max = 12
upstream_idle_timeout = "13s"
trusted = ["10.0.0.0/8", "fd00::1"]
sticky = "place"
certificates = [{ certificate = "/etc/shop.crt", key = "/etc/shop.key" }]
retry = { percent = 14, per_second = 15 }
"#;

fn web(old: &str, new: &str) -> String {
    assert!(WEB.contains(old), "{old:?}");
    format!("{GOOD}{}", WEB.replacen(old, new, 1))
}

#[test]
fn every_key_is_read() {
    let config = parse(&web("", ""));
    assert_eq!(lines(&config.warnings), Vec::<String>::new());
    assert_eq!(config.kind_of(&"web".into()), Some(Kind::Http));
    let service = &config.balanced[&"web".into()];
    assert_eq!(service.idle_timeout.as_secs(), 120);
    let http = service.http.as_ref().expect("http");
    let times = [http.head_timeout, http.keep_alive, http.answer_timeout];
    assert_eq!(times.map(|it| it.as_secs()), [3, 4, 5]);
    assert_eq!(http.total_timeout.map(|it| it.as_secs()), Some(6));
    assert_eq!((http.head_bytes_max, http.fields_max), (8 << 10, 50));
    assert_eq!((http.body_bytes_max, http.in_flight_max), (10 << 20, Some(11)));
    assert_eq!((http.upstream_idle_max, http.upstream_idle_timeout.as_secs()), (12, 13));
    assert_eq!(http.trusted, ["10.0.0.0/8", "fd00::1"]);
    assert_eq!(http.sticky.as_deref(), Some("place"));
    assert_eq!(http.retry, Some(retry::Limits { percent: 14, floor_per_second: 15 }));
    assert!(!http.errors_count);
    let [certificate] = &http.certificates[..] else { panic!("{http:?}") };
    let files = [&certificate.certificate, &certificate.key].map(|it| it.display().to_string());
    assert_eq!(files, ["/etc/shop.crt", "/etc/shop.key"]);
    let (path, host) = ("/healthz?a=1".to_owned(), Some("shop.example:80".to_owned()));
    assert_eq!(service.question, Some(Question { path, host, expect: (200, 204) }));
    let shown = show(&config);
    let value = |key: &str| {
        let found = shown.iter().find(|it| it.key == format!("services.web.{key}"));
        found.unwrap_or_else(|| panic!("{key}")).value.clone().unwrap_or_default()
    };
    assert_eq!(value("trusted"), "10.0.0.0/8, fd00::1");
    assert_eq!(value("health.expect"), "200-204");
    assert_eq!(value("retry.percent"), "14");
    assert_eq!(value("head_max"), "8kB");
    let off = parse(&web("retry = { percent = 14, per_second = 15 }", "retry = false"));
    let http = off.balanced[&"web".into()].http.as_ref().expect("http");
    assert_eq!(http.retry, None);
}

#[test]
fn how_endpoints_are_spoken_to_must_be_possible() {
    let first = |protocol: &str| {
        let text = web("sticky = \"place\"", &format!("upstream_protocol = \"{protocol}\""));
        lines(&problems(&text)).first().cloned().unwrap_or_default()
    };
    let expected = "TDM0220 error 44:21 +6: services.web.upstream_protocol is \"auto\" without";
    assert!(first("auto").starts_with(expected), "{}", first("auto"));
    assert!(first("h2").starts_with("TDM0207 error 44:21 +4: services.web"), "{}", first("h2"));
}

#[test]
fn what_cannot_be_run_is_told_at_its_place() {
    for (old, new, expected) in [
        (
            "sticky = \"place\"",
            "sticky = \"pl ace\"",
            "TDM0207 error 44:10 +8: services.web.sticky",
        ),
        ("sticky = \"place\"", "sticky = \"\"", "TDM0207 error 44:10 +2: services.web.sticky"),
        ("10.0.0.0/8", "10.0.0.0/33", "TDM0207 error 43:12 +13: services.web.trusted"),
        ("fd00::1", "proxy.example", "TDM0207 error 43:26 +15: services.web.trusted"),
        ("\"/healthz?a=1\"", "\"healthz\"", "TDM0207 error 30:19 +9: services.web.health.path"),
        ("\"/healthz?a=1\"", "\"/a b\"", "TDM0207 error 30:19 +6: services.web.health.path"),
        ("shop.example:80", "shop/x", "TDM0207 error 30:42 +8: services.web.health.host"),
        ("200-204", "204-200", "TDM0207 error 30:70 +9: services.web.health.expect"),
        ("200-204", "2xx", "TDM0207 error 30:70 +5: services.web.health.expect"),
        ("200-204", "100", "TDM0207 error 30:70 +5: services.web.health.expect"),
        ("\"8kB\"", "\"8MB\"", "TDM0207 error 37:12 +5: services.web.head_max"),
        ("\"10MB\"", "\"much\"", "TDM0207 error 39:12 +6: services.web.body_max"),
        ("fields_max = 50", "fields_max = 500", "TDM0208 error 38:14 +3: services.web.fields_max"),
        ("in_flight_max = 11", "in_flight_max = 0", "TDM0208 error 40:17 +1: services.web.in_fl"),
        ("percent = 14", "percent = 101", "TDM0208 error 46:21 +3: services.web.retry.percent"),
        (
            ", key = \"/etc/shop.key\"",
            "",
            "TDM0205 error 45:17 +33: services.web.certificates.1.key is missing",
        ),
        (
            "{ certificate = \"/etc/shop.crt\", key = \"/etc/shop.key\" }",
            "\"/etc/shop.crt\"",
            "TDM0205 error 45:17 +15: services.web.certificates.1.key is missing",
        ),
        (
            "certificate = \"/etc/shop.crt\", key",
            "key",
            "TDM0205 error 45:17 +25: services.web.certificates.1.certificate is missing",
        ),
        ("\"/etc/shop.key\"", "\"shop.key\"", "TDM0207 error 45:56 +10: services.web.certif"),
        ("errors = false", "errors = 0", "TDM0206 error 31:23 +1: services.web.ejection.errors"),
        ("retry = {", "retry = 3 #", "TDM0206 error 46:9 +1: services.web.retry"),
        ("answer_timeout = \"5s\"", "answer_timeout = \"5ms\"", "TDM0208 error 35:18 +5: services"),
        (
            "sticky = \"place\"",
            "sticki = \"place\"",
            "TDM0203 error 44:1 +6: unknown key `services.web.sticki`",
        ),
        (
            "kind = \"http\"",
            "kind = \"tcp\"",
            "TDM0220 error 31:14 +6: services.web.ejection.errors does not go with kind = \"tcp\"",
        ),
    ] {
        let found = lines(&problems(&web(old, new)));
        assert!(!found.is_empty(), "{new}");
        assert!(found[0].starts_with(expected), "{new}: {found:?}");
        assert!(old.starts_with("kind") || found.len() == 1, "{new}: {found:?}");
    }
    let without = web("path = \"/healthz?a=1\", ", "");
    let found = lines(&problems(&without));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("services.web.health.host has no effect"), "{found:?}");
}

#[test]
fn everything_changes_while_it_runs_but_the_kind() {
    let old = parse(&web("", ""));
    for (from, to) in [
        ("in_flight_max = 11", "in_flight_max = 12"),
        ("sticky = \"place\"", "sticky = \"other\""),
        ("errors = false", "errors = true"),
        ("body_max = \"10MB\"", "body_max = \"20MB\""),
    ] {
        let new = parse(&web(from, to));
        assert!(unsafe_change(&old, &new).is_empty() && needs_restart(&old, &new).is_empty());
    }
    let tcp = "\n[services.web]\nkind = \"tcp\"\nclustering = \"load-balanced\"\n\
        replication = \"none\"\nlisten = 8080\nupstreams = [\"10.0.0.11:80\"]\n";
    let refused = lines(&unsafe_change(&old, &parse(&format!("{GOOD}{tcp}"))));
    assert!(refused[0].contains("services.web: kind would change from http to tcp"), "{refused:?}");
}
