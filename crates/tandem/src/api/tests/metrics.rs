//! The text that Prometheus reads.

use super::{serve, text};
use hyper::Method;
use std::collections::BTreeSet;

#[tokio::test]
async fn every_family_is_described_once_and_holds_its_samples() {
    let served = serve().await;
    let response = served.send(Method::GET, "/metrics", &[], "").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let page = text(response).await;
    let mut family = "";
    let mut seen = BTreeSet::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(seen.insert(family), "{family} twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let expected = match family {
                "tandem_upstream_duration_seconds" => "histogram",
                _ if family.ends_with("_total") => "counter",
                _ => "gauge",
            };
            assert_eq!(kind, format!("{family} {expected}"));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let parts = ["", "_bucket", "_sum", "_count"];
            assert!(parts.iter().any(|part| name == format!("{family}{part}")), "{line}");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    let of_all = |part: &str, value: &str| {
        let labels = r#"service="cache",upstream="10.0.0.11:6379""#;
        format!("tandem_upstream_duration_seconds_{part}{{{labels}}} {value}")
    };
    let bucket = |le: &str, count: u64| {
        let end = format!(r#"upstream="10.0.0.11:6379",le="{le}"}}"#);
        of_all("bucket", &count.to_string()).replace(r#"upstream="10.0.0.11:6379"}"#, &end)
    };
    for line in [
        r#"tandem_up{node="a",version="0.1.0 \"x\""} 1"#,
        r#"tandem_service_primary{service="orders",node="a"} 1"#,
        r#"tandem_service_primary{service="orders",node="b"} 0"#,
        r#"tandem_service_term{service="orders"} 4"#,
        r#"tandem_service_failovers_total{service="orders"} 2"#,
        r#"tandem_service_lease_seconds{service="orders"} 1.4"#,
        r#"tandem_copies_wanted{service="orders"} 3"#,
        r#"tandem_copies_serving{service="orders"} 2"#,
        r#"tandem_door_sessions{service="orders"} 7"#,
        r#"tandem_door_held{service="orders"} 1"#,
        r#"tandem_door_local_commits_total{service="orders"} 2"#,
        r#"tandem_door_cancels_total{service="orders"} 0"#,
        r#"tandem_instance_lag_bytes{service="orders",node="a"} 0"#,
        r#"tandem_peer_up{peer="c"} 0"#,
        r#"tandem_balancer_held{service="cache"} 1"#,
        r#"tandem_balancer_retried_total{service="cache"} 7"#,
        r#"tandem_balancer_limited_total{service="cache",rate="client"} 9"#,
        r#"tandem_upstream_up{service="cache",upstream="10.0.0.11:6379"} 1"#,
        r#"tandem_upstream_up{service="cache",upstream="10.0.0.12:6379"} 0"#,
        r#"tandem_upstream_up{service="orders",upstream="10.0.0.2:5432"} 1"#,
        r#"tandem_upstream_share_ratio{service="orders",upstream="10.0.0.2:5432"} 0.4"#,
        r#"tandem_upstream_latency_seconds{service="cache",upstream="10.0.0.11:6379"} 0.00025"#,
        r#"tandem_upstream_retried_total{service="cache",upstream="10.0.0.12:6379"} 6"#,
        &bucket("0.0005", 3),
        &bucket("10", 5),
        &bucket("+Inf", 6),
        &of_all("sum", "12.5"),
        &of_all("count", "6"),
        "process_resident_memory_bytes 20000000",
        "process_cpu_seconds_total 0.25",
    ] {
        assert!(page.lines().any(|seen| seen == line), "{line} is not in\n{page}");
    }
    let unknown = ["tandem_instance_lag_bytes{service=\"orders\",node=\"b\"}", "{peer=\"c\"} N"];
    assert!(unknown.iter().all(|series| !page.contains(series)), "not known is left out");
    served.stop().await;
}

/// One that is out beside one that is well.
#[tokio::test]
async fn each_endpoint_has_its_numbers() {
    let served = serve().await;
    let page = text(served.send(Method::GET, "/metrics", &[], "").await).await;
    for (name, well, out) in [
        ("up", "1", "0"),
        ("draining", "0", "0"),
        ("ejected", "0", "0"),
        ("share_ratio", "1", "0"),
        ("in_flight", "4", "0"),
        ("sessions_total", "900", "900"),
        ("failed_total", "0", "8"),
        ("retried_total", "0", "6"),
        ("ejected_total", "0", "1"),
        ("cut_total", "0", "5"),
    ] {
        for (host, value) in [("10.0.0.11", well), ("10.0.0.12", out)] {
            let labels = format!(r#"service="cache",upstream="{host}:6379""#);
            let line = format!("tandem_upstream_{name}{{{labels}}} {value}");
            assert!(page.lines().any(|seen| seen == line), "{line} is not in\n{page}");
        }
    }
    assert!(!page.contains("its checks fail"), "each wording of a reason would be a new series");
    served.stop().await;
}
