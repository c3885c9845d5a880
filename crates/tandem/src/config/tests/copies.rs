mod partitions;

use super::*;
use crate::config::reference::door_keys;
use crate::config::{daemon_restart, unsafe_change};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;

const WEB: &str = r#"
[services.web]
kind = "command"
clustering = "load-balanced"
replication = "none"
command = ["/srv/app", "--port", "{port}"]
listen = 8080
port = 9000
replicas = 2
drain_max = "5s"
door = "http"
balance = "least-connections"
slow_start = "1s"
sticky = "WEB"
retry = { percent = 10 }
health = { http = "/healthz" }
"#;

fn web(old: &str, new: &str) -> String {
    assert!(WEB.contains(old), "{old:?}");
    format!("{GOOD}{}", WEB.replacen(old, new, 1))
}

fn told(text: &str) -> Vec<String> {
    lines(&problems(text))
}

#[test]
fn copies_and_their_door_are_read() {
    let config = parse(&web("", ""));
    assert_eq!(lines(&config.warnings), Vec::<String>::new());
    let copies = config.commands[&"web".into()].copies.as_ref().expect("copies");
    assert_eq!((copies.replicas, copies.drain_max), (Some(2), Duration::from_secs(5)));
    let door = copies.door.as_ref().expect("a door");
    assert_eq!(door.policy, Policy::LeastConnections);
    assert_eq!(door.http.as_ref().and_then(|http| http.sticky.as_deref()), Some("WEB"));
    assert_eq!(door.limits.slow_start, Duration::from_secs(1));
    let spec = &config.spec().services[&"web".into()];
    assert_eq!(spec.copies.map(|copies| copies.replicas), Some(Some(2)));
}

#[test]
fn active_active_keeps_a_clients_sessions_together() {
    for door in ["", "door = \"http\"\n"] {
        let text = format!(
            "{GOOD}[services.web]\nkind = \"command\"\nclustering = \"active-active\"\n\
             replication = \"none\"\ncommand = [\"/srv/app\"]\nlisten = 8080\n{door}"
        );
        let config = parse(&text);
        let copies = config.commands[&"web".into()].copies.as_ref().expect("copies");
        assert_eq!(copies.door.as_ref().map(|door| door.policy), Some(Policy::Hash), "{door}");
        assert_eq!(copies.replicas, None, "everywhere");
    }
}

#[test]
fn what_makes_no_sense_is_told() {
    for (text, expected) in [
        (web("replicas = 2", "replicas = 0"), "services.web.replicas = 0 is out of range"),
        (web("replicas = 2", "replicas = 4"), "services.web.replicas = 4 is out of range"),
        (web("drain_max = \"5s\"", "drain_max = \"2h\""), "drain_max = \"2h\" is out of range"),
        (web("door = \"http\"", "door = \"htp\""), "did you mean"),
        (
            web("\"WEB\"", "\"WEB\"\nupstreams = []"),
            "upstreams does not go with kind = \"command\"",
        ),
        (
            web("\"WEB\"", "\"WEB\"\nsend_proxy = \"v2\"\nupstream_protocol = \"http2\""),
            "send_proxy goes with HTTP/1.1 only",
        ),
        (web("\"WEB\"", "\"WEB\"\nlease = \"2s\""), "services.web.lease has no effect"),
        (
            web("\"load-balanced\"", "\"active-active\""),
            "services.web.replicas does not go with active-active",
        ),
    ] {
        let found = problems(&text);
        let said = |it: &Problem| {
            let all = format!("{} {} {}", it.what, it.because, it.try_);
            all.contains(expected)
        };
        assert!(found.iter().any(said), "{expected}: {:?}", lines(&found));
    }
    let found = told(&web("\"load-balanced\"", "\"active-passive\""));
    let alone = found.iter().filter(|it| it.contains("does not go with active-passive")).count();
    assert_eq!(alone, 4, "{found:?}");
    let found = told(&web("listen = 8080\n", ""));
    assert!(found.iter().any(|it| it.contains("services.web.balance has no effect")), "{found:?}");
}

/// What has no effect is told: each key of a door where there is none, or leads to one copy only.
#[test]
fn keys_of_a_door_are_refused_where_they_have_no_effect() {
    const VALUES: &[(&str, &str)] = &[
        ("balance", "\"random\""),
        ("slow_start", "\"1s\""),
        ("held_max", "10"),
        ("rate_limit", "{ total = \"5/s\" }"),
        ("connect_timeout", "\"1s\""),
        ("accept_proxy", "true"),
        ("accept_proxy_from", "[\"10.0.0.1\"]\naccept_proxy = true"),
        ("send_proxy", "\"v2\""),
        ("upstream_tls", "{ ca = \"/ca\" }"),
        ("certificates", "[{ certificate = \"/c\", key = \"/k\" }]"),
        ("ejection", "false"),
        ("connections_max", "10"),
        ("idle_timeout", "\"1min\""),
    ];
    let front = [("hold_max", "\"1s\""), ("sessions_max", "10")];
    let keys: Vec<_> = door_keys().collect();
    let listed: Vec<_> = VALUES.iter().map(|(key, _)| *key).collect();
    assert_eq!(listed, keys, "every key of a door is tried here");
    let said = |pattern: &str, (key, value): (&str, &str)| {
        let text = format!(
            "{GOOD}[services.jobs]\nkind = \"command\"\nreplication = \"none\"\n\
             command = [\"/srv/jobs\"]\n{pattern}\n{key} = {value}\n"
        );
        told(&text).iter().any(|it| it.contains(&format!("services.jobs.{key} ")))
    };
    for pair in VALUES {
        assert!(said("clustering = \"active-passive\"\nlisten = 8080", *pair), "{pair:?}");
        assert!(!said("clustering = \"load-balanced\"\nlisten = 8080", *pair), "{pair:?}");
    }
    for pair in VALUES.iter().chain(&front) {
        assert!(said("clustering = \"load-balanced\"", *pair), "{pair:?}");
        assert!(said("clustering = \"active-active\"\npartitions = 4", *pair), "{pair:?}");
    }
    for pair in front {
        assert!(said("clustering = \"active-passive\"", pair), "{pair:?}");
        assert!(!said("clustering = \"active-passive\"\nlisten = 8080", pair), "{pair:?}");
    }
}

#[test]
fn copies_change_while_they_run_but_for_what_others_rest_on() {
    let old = parse(&web("", ""));
    for (written, other) in [
        ("\"/srv/app\"", "\"/srv/new\""),
        ("replicas = 2", "replicas = 1"),
        ("\"5s\"", "\"6s\""),
        ("listen = 8080", "listen = 8081"),
    ] {
        let new = parse(&web(written, other));
        assert!(unsafe_change(&old, &new).is_empty(), "{other}");
        assert!(daemon_restart(&old, &new, &"a".into()).is_empty(), "{other}");
    }
    let fewer = web("replicas = 2\n", "");
    let tcp = WEB.replace("door = \"http\"\n", "").replace("sticky = \"WEB\"\n", "");
    let tcp = format!("{GOOD}{}", tcp.replace("retry = { percent = 10 }\n", ""));
    for (new, expected) in [
        (web("port = 9000", "port = 9001"), "its copies would move from port 9000 to 9001"),
        (fewer.replace("load-balanced", "active-active"), "clustering would change"),
        (tcp, "door would change from http to tcp"),
    ] {
        let found = lines(&unsafe_change(&old, &parse(&new)));
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}
