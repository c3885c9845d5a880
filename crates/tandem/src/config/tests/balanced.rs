mod led;

use super::*;
use crate::config::{Host, ProxyVersion, Role, Upstream, needs_restart, show, unsafe_change};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;

/// Every key of a service that is balanced.
const CACHE: &str = r#"
[services.cache]
kind = "tcp"
clustering = "load-balanced"
replication = "none"
listen = 6379
upstreams = ["10.0.0.11:6379", { address = "cache2:6379", weight = 2, zone = "x", drain = true }]
balance = "least-connections"
health = { interval = "5s", timeout = "2s", fall = 4, rise = 5 }
ejection = { failures = 7, success_min = 60, window = "20s", time = "30s", share_max = 40 }
slow_start = "3s"
hold_max = "4s"
sessions_max = 50
connect_timeout = "300ms"
idle_timeout = "10min"
accept_proxy = true
send_proxy = "v2"
accept_proxy_from = ["10.0.0.0/8", "fd00::1"]
held_max = 40
connections_max = 30
drain_max = "20s"
"#;

fn file(cache: &str) -> String {
    format!("{GOOD}{cache}")
}

fn cache(old: &str, new: &str) -> String {
    assert!(CACHE.contains(old), "{old:?}");
    file(&CACHE.replacen(old, new, 1))
}

/// What is said about it: where and what, and the words of the first.
fn told(text: &str) -> (Vec<String>, String) {
    let found = problems(text);
    let words = found.first().map(|it| format!("{} / {}", it.because, it.try_));
    (lines(&found), words.unwrap_or_default())
}

#[test]
fn every_key_is_read() {
    let config = parse(&file(CACHE));
    assert_eq!(lines(&config.warnings), Vec::<String>::new());
    let service = &config.balanced[&"cache".into()];
    let [first, second] = &service.upstreams[..] else { panic!("{service:?}") };
    assert_eq!(first.address.to_string(), "10.0.0.11:6379");
    let Upstream { address, weight, zone, drain } = second;
    assert_eq!(address.host, Host::Name("cache2".into()));
    assert_eq!((*weight, zone.as_deref(), *drain), (2, Some("x"), true));
    assert_eq!(service.policy, Policy::LeastConnections);
    let health = service.health.expect("health");
    assert_eq!((health.interval.as_secs(), health.timeout.as_secs()), (5, 2));
    let limits = service.limits;
    assert_eq!((limits.fall, limits.rise, limits.failures), (4, 5, 7));
    assert_eq!((limits.success_percent_min, limits.ejected_percent_max), (60, 40));
    assert_eq!(limits.latency_times, 0, "nobody is out for being slow");
    let slow = parse(&cache("share_max = 40", "latency = 5"));
    assert_eq!(slow.balanced[&"cache".into()].limits.latency_times, 5);
    let seconds = [limits.window, limits.ejection, limits.ejection_max, limits.slow_start];
    assert_eq!(seconds.map(|it| it.as_secs()), [20, 30, 300, 3]);
    assert_eq!((service.hold_max.as_secs(), service.sessions_max), (4, 50));
    assert_eq!((service.held_max, service.connections_max), (40, Some(30)));
    assert_eq!(service.connect_timeout, Duration::from_millis(300));
    assert_eq!(service.idle_timeout.as_secs(), 600);
    assert_eq!(service.drain_max, Some(Duration::from_secs(20)));
    assert!(service.accept_proxy && service.send_proxy == Some(ProxyVersion::V2));
    let named = service.accept_proxy_from.as_ref().expect("proxies");
    assert_eq!(named, &["10.0.0.0/8", "fd00::1"]);
    let shown = show(&config);
    let value = |key: &str| {
        let found = shown.iter().find(|it| it.key == format!("services.cache.{key}"));
        found.unwrap_or_else(|| panic!("{key}")).value.clone().unwrap_or_default()
    };
    assert_eq!(value("upstreams"), "10.0.0.11:6379, cache2:6379");
    assert_eq!(value("upstreams.2.weight"), "2");
    assert_eq!(value("ejection.time"), "30s");
}

#[test]
fn connections_are_encrypted_on_either_side() {
    let tls = "certificates = [{ certificate = \"/etc/c.crt\", key = \"/etc/c.key\" }]\n\
               upstream_tls = { ca = \"/etc/ca.crt\", server_name = \"cache.internal\" }\n";
    let config = parse(&file(&format!("{CACHE}{tls}")));
    let service = &config.balanced[&"cache".into()];
    assert!(service.encrypts && service.certificates.len() == 1);
    assert_eq!(
        service.upstream_tls.as_ref().unwrap().server_name.as_deref(),
        Some("cache.internal")
    );
    let shown = show(&config);
    let value = |key: &str| {
        let found = shown.iter().find(|it| it.key == format!("services.cache.{key}"));
        found.and_then(|it| it.value.clone())
    };
    assert_eq!(value("upstream_tls").as_deref(), Some("on"));
    assert_eq!((value("upstream_tls.ca"), value("health.tls")), (Some("/etc/ca.crt".into()), None));
    assert_eq!(value("certificates.1.key").as_deref(), Some("/etc/c.key"));
    for (health, expected) in [
        ("tls = { ca = \"/c\" }", "health.tls has no effect beside upstream_tls"),
        (
            "postgres = { role = \"any\", user = \"m\" }",
            "health.postgres does not go with upstream_tls",
        ),
    ] {
        let text = cache("fall = 4", health);
        let (found, _) = told(&format!("{text}{tls}"));
        assert!(found.iter().any(|it| it.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn parts_can_be_switched_off_and_lists_of_tables_are_the_same() {
    let off = CACHE.lines().filter(|line| !line.starts_with(['h', 'e'])).collect::<Vec<_>>();
    let off = format!("{}\nhealth = false\nejection = false\n", off.join("\n"));
    let service = &parse(&file(&off)).balanced[&"cache".into()];
    assert_eq!((service.health, service.limits.failures), (None, 0));
    assert_eq!(service.limits.success_percent_min, 0);
    let tables = "\n[services.cache]\nkind = \"tcp\"\nclustering = \"load-balanced\"\n\
        replication = \"none\"\nlisten = 6379\n[[services.cache.upstreams]]\n\
        address = \"10.0.0.11:6379\"\n[[services.cache.upstreams]]\naddress = \"[fd00::1]:6379\"\n";
    assert_eq!(parse(&file(tables)).balanced[&"cache".into()].upstreams.len(), 2);
}

#[test]
fn a_cluster_may_have_nothing_but_such_services() {
    let start = GOOD.find("[services.orders]").expect("it");
    let config = parse(&format!("{}{CACHE}", &GOOD[..start]));
    assert!(config.services.is_empty() && config.balanced.len() == 1);
    assert!(config.spec().services.is_empty(), "nothing of it is agreed but the text");
}

#[test]
fn a_key_of_another_kind_is_told_where_it_belongs() {
    assert_eq!(
        told(&cache("slow_start", "durability")),
        (
            vec![
                "TDM0220 error 33:1 +10: services.cache.durability does not go with kind = \"tcp\""
                    .into()
            ],
            "`durability` belongs to a service of kind = \"postgres\" / remove it, or write kind = \
             \"postgres\" if that is what the service is"
                .into()
        )
    );
    for (text, expected) in [
        (
            cache("[services.cache]", "[services.cache.timing]\n[services.cache]"),
            "TDM0220 error 24:17 +6: services.cache.timing does not go with kind = \"tcp\"",
        ),
        (
            with("listen = 5432", "upstreams = []"),
            "TDM0220 error 15:1 +9: services.orders.upstreams does not go with kind = \"postgres\"",
        ),
        (
            with("listen = 5432", "health = { interval = \"1s\" }"),
            "TDM0220 error 15:1 +6: services.orders.health does not go with kind = \"postgres\"",
        ),
        (
            cache("slow_start", "slow_stert"),
            "TDM0203 error 33:1 +10: unknown key `services.cache.slow_stert`",
        ),
        (
            cache("fall = 4", "fal = 4"),
            "TDM0203 error 31:45 +3: unknown key `services.cache.health.fal`",
        ),
        (
            cache("weight = 2", "wieght = 2"),
            "TDM0203 error 29:59 +6: unknown key `services.cache.upstreams.2.wieght`",
        ),
    ] {
        assert_eq!(told(&text).0, [expected], "{text}");
    }
    // A kind that cannot be read is one mistake, not as many as there are keys.
    let (found, words) = told(&cache("\"tcp\"", "\"tpc\""));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(words.ends_with("did you mean \"tcp\"?"), "{words}");
}

#[test]
fn what_cannot_be_run_is_told_at_its_place() {
    for (old, new, expected) in [
        ("listen = 6379\n", "", "TDM0205 error 24:11 +5: services.cache.listen is missing"),
        ("listen = 6379", "listen = 0", "TDM0208 error 28:10 +1: services.cache.listen = 0 is out"),
        (
            "listen = 6379",
            "listen = 5432",
            "TDM0214 error 28:10 +4: services.cache.listen and services.orders.listen both listen",
        ),
        (
            "listen = 6379",
            "listen = 7400",
            "TDM0214 error 28:10 +4: services.cache.listen and nodes.a.address both listen",
        ),
        ("10.0.0.11:6379", "10.0.0.1:6379", "TDM0220 error 29:14 +15: services.cache.upstreams.1"),
        ("10.0.0.11:6379", "cache2:6379", "TDM0213 error 29:41 +13: services.cache.upstreams.2"),
        ("10.0.0.11:6379", "10.0.0.11", "TDM0207 error 29:14 +11: services.cache.upstreams.1"),
        ("\"10.0.0.11:6379\"", "6379", "TDM0206 error 29:14 +4: services.cache.upstreams is an"),
        ("address = \"cache2:6379\", ", "", "TDM0205 error 29:32 "),
        ("weight = 2", "weight = 0", "TDM0208 error 29:68 +1: services.cache.upstreams.2.weight"),
        ("zone = \"x\"", "zone = \"y\"", "TDM0233 warning 29:78 +3: services.cache.upstreams.2.z"),
        ("drain = true", "drain = 1", "TDM0206 error 29:91 +1: services.cache.upstreams.2.drain"),
        ("least-connections", "least-conections", "TDM0207 error 30:11 +18: services.cache.balan"),
        ("interval = \"5s\"", "interval = \"2s\"", "TDM0217 error 31:39 +4: services.cache.health"),
        ("fall = 4", "fall = 0", "TDM0208 error 31:52 +1: services.cache.health.fall = 0 is out"),
        ("failures = 7", "failures = true", "TDM0206 error 32:25 +4: services.cache.ejection.fai"),
        ("time = \"30s\"", "time = \"2h\"", "TDM0208 error 32:69 +4: services.cache.ejection.time"),
        ("share_max = 40", "latency = 1", "TDM0208 error 32:86 +1: services.cache.ejection.l"),
        ("share_max = 40", "share_max = 101", "TDM0208 error 32:88 +3: services.cache.ejection.s"),
        ("accept_proxy = true", "accept_proxy = 1", "TDM0206 error 38:16 +1: services.cache.acce"),
        ("fd00::1", "proxy", "TDM0207 error 40:36 +7: services.cache.accept_proxy_from = "),
        (
            "accept_proxy = true",
            "",
            "TDM0220 error 40:21 +25: services.cache.accept_proxy_from has",
        ),
        ("fd00::1", "::ffff:10.0.0.1", "TDM0207 error 40:36 +17: services.cache.accept_proxy_from"),
        (
            "[\"10.0.0.0/8\", \"fd00::1\"]",
            "[]",
            "TDM0220 error 40:21 +2: services.cache.accept_proxy_from names nobody",
        ),
        ("\"v2\"", "\"v3\"", "TDM0207 error 39:14 +4: services.cache.send_proxy = \"v3\" cannot"),
        ("held_max = 40", "held_max = 0", "TDM0208 error 41:12 +1: services.cache.held_max = 0"),
        ("connections_max = 30", "connections_max = 0", "TDM0208 error 42:19 +1: services.cach"),
        ("\"none\"", "\"primary-replica\"", "TDM0211 error 26:14 +15: tcp as load-balanced with"),
    ] {
        let (found, words) = told(&cache(old, new));
        assert_eq!(found.len(), 1, "{new}: {found:?}");
        assert!(found[0].starts_with(expected), "{new}: {found:?}");
        assert!(!words.starts_with(" /") && !words.ends_with("/ "), "{new}: {words}");
    }
    let off = cache("health = {", "health = true\nhelth = {");
    assert!(told(&off).0[0].contains("services.cache.health is a boolean, not a table or false"));
    let none = cache("[\"10.0.0.11:6379\", {", "[]\nx = [{");
    assert!(told(&none).0[0].contains("services.cache.upstreams has no endpoint"), "{none}");
}

#[test]
fn too_many_endpoints_are_refused() {
    let all: Vec<String> = (1..=1001).map(|n| format!("\"e{n}:1\"")).collect();
    let text = cache("[\"10.0.0.11:6379\", {", &format!("[{}, {{", all.join(", ")));
    let (found, _) = told(&text);
    assert!(found[0].contains("has more than 1000 endpoints"), "{found:?}");
}

#[test]
fn everything_changes_while_it_runs_but_the_kind() {
    let (old, new) = (parse(&file(CACHE)), parse(&cache("listen = 6379", "listen = 6380")));
    assert_eq!(lines(&unsafe_change(&old, &new)), Vec::<String>::new());
    assert_eq!(
        lines(&needs_restart(&old, &new)),
        ["TDM0242 warning 28:10 +4: the front door of cache moves on every node"]
    );
    for (from, to) in [
        ("10.0.0.11", "10.0.0.12"),
        ("weight = 2", "weight = 3"),
        ("least-connections", "hash"),
        ("drain = true", "drain = false"),
        ("sessions_max = 50", "sessions_max = 60"),
        ("hold_max = \"4s\"", "hold_max = \"5s\""),
    ] {
        let new = parse(&cache(from, to));
        assert!(unsafe_change(&old, &new).is_empty() && needs_restart(&old, &new).is_empty());
    }
    assert!(needs_restart(&good(), &old).is_empty(), "a new one begins at once");
    let ends = lines(&needs_restart(&old, &good()));
    assert_eq!(ends, ["TDM0242 warning 11:2 +8: service cache ends"]);
    let text = file(&CACHE.replace("services.cache", "services.orders"));
    let orders = text.find("[services.orders]").expect("it");
    let cache = text.rfind("[services.orders]").expect("it");
    let turned = parse(&format!("{}{}", &text[..orders], &text[cache..]));
    let refused = lines(&unsafe_change(&good(), &turned));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("services.orders: kind would change from postgres to tcp"));
}

#[test]
fn servers_of_postgresql_are_asked_for_their_role() {
    let with = |keys: &str| cache("rise = 5 }", &format!("rise = 5, postgres = {{ {keys} }} }}"));
    let config = parse(&with("role = \"primary\", user = \"monitor\""));
    let check = config.balanced[&"cache".into()].role.clone().expect("a check");
    assert_eq!((check.role, check.user.as_str()), (Role::Primary, "monitor"));
    assert_eq!((check.database.as_str(), check.password_file), ("postgres", None));
    let shown: Vec<String> = show(&config)
        .into_iter()
        .filter(|it| it.key.starts_with("services.cache.health.postgres"))
        .map(|it| format!("{}={}", it.key, it.value.unwrap_or_default()))
        .collect();
    assert_eq!(shown.len(), 5, "{shown:?}");
    assert!(shown.contains(&"services.cache.health.postgres.role=primary".to_owned()));
    let first = |keys: &str| told(&with(keys)).0.first().cloned().unwrap_or_default();
    assert!(first("user = \"monitor\"").contains("health.postgres.role is missing"));
    assert!(first("role = \"any\"").contains("health.postgres.user is missing"));
    assert!(first("role = \"master\", user = \"m\"").contains("role = \"master\" cannot be used"));
    assert!(first("role = \"any\", user = \"\"").contains("user = \"\" cannot be used"));
    let both = with("role = \"any\", user = \"m\"").replace("rise = 5,", "path = \"/\",");
    assert!(told(&both).0[0].contains("health.postgres does not go with path"), "{both}");
}
