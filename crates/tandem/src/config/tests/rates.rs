use super::*;
use crate::config::show;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::clustering::load_balanced::rate::{Limit, Limits};

const WEB: &str = r#"
[services.web]
kind = "http"
clustering = "load-balanced"
replication = "none"
listen = 8080
upstreams = ["10.0.0.11:80"]
rate_limit = { per_client = "100/s", burst = 200, total = "6000/min", key = { cookie = "sid" } }
"#;

fn web(old: &str, new: &str) -> String {
    assert!(WEB.contains(old), "{old:?}");
    format!("{GOOD}{}", WEB.replacen(old, new, 1))
}

#[test]
fn rates_are_read_and_shown() {
    let config = parse(&web("", ""));
    let read = config.balanced[&"web".into()].rate_limit.clone().expect("a limit");
    let limit = |count, seconds, burst| {
        Some(Limit { count, per: std::time::Duration::from_secs(seconds), burst })
    };
    let limits = Limits { per_client: limit(100, 1, 200), total: limit(6000, 60, 6000) };
    assert_eq!((read.limits, read.key), (limits, Some(Source::Cookie("sid".to_owned()))));
    let shown = show(&config);
    let value = |key: &str| {
        let found = shown.iter().find(|it| it.key == format!("services.web.rate_limit{key}"));
        found.unwrap_or_else(|| panic!("{key}")).value.clone().unwrap_or_default()
    };
    let all = ["", ".per_client", ".burst", ".total", ".total_burst", ".key", ".key.cookie"];
    let expected = ["on", "100/s", "200", "6000/min", "6000", "cookie sid", "sid"];
    assert_eq!(all.map(value), expected);
    let off = parse(&web("rate_limit = {", "rate_limit = false # {"));
    assert_eq!(off.balanced[&"web".into()].rate_limit, None);
}

#[test]
fn what_is_no_rate_is_told_at_its_place() {
    let inner =
        "per_client = \"100/s\", burst = 200, total = \"6000/min\", key = { cookie = \"sid\" }";
    for (old, new, expected) in [
        ("100/s", "100", "TDM0207 error 30:29 +5: services.web.rate_limit.per_client"),
        ("100/s", "0/s", "TDM0207 error 30:29 +5: services.web.rate_limit.per_client"),
        ("100/s", "+1/s", "TDM0207 error 30:29 +6: services.web.rate_limit.per_client"),
        ("6000/min", "6/day", "TDM0207 error 30:59 +7: services.web.rate_limit.total"),
        ("burst = 200", "burst = 0", "TDM0208 error 30:46 +1: services.web.rate_limit.burst"),
        ("per_client = \"100/s\", ", "", "TDM0220 error 30:24 +3: services.web.rate_limit.burst"),
        (inner, "key = \"source\"", "TDM0205 error 30:1 +10: services.web.rate_limit limits noth"),
        (inner, "total = \"1/s\", key = \"source\"", "TDM0220 error 30:37 +8: services.web.rate_"),
        ("cookie = \"sid\"", "", "TDM0205 error 30:77 +4: services.web.rate_limit.key names no"),
        ("kind = \"http\"", "kind = \"tcp\"", "TDM0220 error 30:71 +3: services.web.rate_limit.k"),
    ] {
        let found = lines(&problems(&web(old, new)));
        assert!(found.iter().any(|line| line.starts_with(expected)), "{new}: {found:?}");
    }
}
