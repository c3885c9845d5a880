use super::*;
use crate::config::{Listen, Probe, daemon_restart, needs_restart, show, unsafe_change};
use std::time::Duration;
use tandem_core::spec::Durability;

/// Every key of a command.
const JOBS: &str = r#"
[services.jobs]
kind = "command"
clustering = "active-passive"
replication = "none"
command = ["/srv/app", "--port", "{port}"]
listen = 8080
port = 9000
run_as = "app"
cwd = "/srv"
env = { MODE = "x", "Lower.case" = "y" }
limits = { nofile = 4096, core = 0 }
stop = ["/srv/app", "stop"]
stop_max = "20s"
health = { http = "/healthz", interval = "1s", timeout = "500ms", fall = 4, rise = 2, grace = "3s" }
on_start = ["/srv/mount"]
on_stop = ["/srv/unmount", "{node}"]
hook_max = "7s"
log_max = "1MB"
lease = "2s"
hold_max = "4s"
drain_max = "3s"
sessions_max = 50
"#;

fn jobs(old: &str, new: &str) -> String {
    assert!(JOBS.contains(old), "{old:?}");
    format!("{GOOD}{}", JOBS.replacen(old, new, 1))
}

fn told(text: &str) -> Vec<String> {
    lines(&problems(text))
}

#[test]
fn every_key_of_a_command_is_read() {
    let config = parse(&jobs("", ""));
    assert_eq!(lines(&config.warnings), Vec::<String>::new());
    let it = &config.commands[&"jobs".into()];
    assert_eq!(it.command, ["/srv/app", "--port", "{port}"]);
    assert_eq!((it.listen, it.port), (Some(Listen { ip: None, port: 8080 }), Some(9000)));
    assert_eq!(it.env["Lower.case"], "y");
    assert_eq!((it.limits["nofile"], it.limits["core"], it.limits.len()), (4096, 0, 2));
    let health = it.health.as_ref().expect("health");
    assert_eq!(health.probe, Probe::Http("/healthz".into()));
    assert_eq!((health.fall, health.rise, health.grace.as_secs()), (4, 2, 3));
    assert_eq!((it.stop_max.as_secs(), it.hook_max.as_secs()), (20, 7));
    assert_eq!((it.log_bytes_max, it.sessions_max), (1 << 20, 50));
    assert_eq!(it.drain_max, Duration::from_secs(3));
    for (hold_max, drain_max) in [("4s", 2000), ("500ms", 500)] {
        let usual =
            parse(&jobs("drain_max = \"3s\"\n", "").replace("\"4s\"", &format!("\"{hold_max}\"")));
        let drains = usual.commands[&"jobs".into()].drain_max;
        assert_eq!(drains, Duration::from_millis(drain_max), "clients are held for {hold_max}");
    }
    let spec = &config.spec().services[&"jobs".into()];
    assert_eq!(spec.timing.lease, Duration::from_secs(2));
    assert_eq!(spec.timing.drift_margin, Duration::from_millis(200));
    assert!(matches!(spec.durability, Durability::Async { .. }), "a lease alone fences it");
    let shown = show(&config);
    let value = |key: &str| {
        let found = shown.iter().find(|it| it.key == format!("services.jobs.{key}"));
        found.unwrap_or_else(|| panic!("{key}")).value.clone().unwrap_or_default()
    };
    assert_eq!(value("env"), "Lower.case, MODE", "values are not shown");
    assert_eq!((value("health.http").as_str(), value("limits.core").as_str()), ("/healthz", "0"));
}

#[test]
fn what_cannot_be_run_is_told() {
    for (text, expected) in [
        (
            jobs("\"/srv/app\", \"--port\", \"{port}\"", ""),
            "services.jobs.command names no program",
        ),
        (
            jobs("command = [\"/srv/app\", \"--port\", \"{port}\"]\n", ""),
            "services.jobs.command is missing",
        ),
        (jobs("MODE", "TANDEM_MODE"), "services.jobs.env.TANDEM_MODE = \"x\" cannot be used"),
        (jobs("/healthz", "healthz"), "services.jobs.health.http = \"healthz\" cannot be used"),
        (
            jobs("http = \"/healthz\"", "http = \"/\", tcp = true"),
            "services.jobs.health names 2 ways to ask",
        ),
        (jobs("http = \"/healthz\", ", ""), "services.jobs.health names 0 ways to ask"),
        (
            jobs("stop_max = \"20s\"", "stop_max = \"1h\""),
            "services.jobs.stop_max = \"1h\" is out of range",
        ),
        (
            jobs("lease = \"2s\"", "lease = \"100ms\""),
            "services.jobs.lease = \"100ms\" is out of range",
        ),
        (jobs("nofile = 4096", "nofile = -1"), "services.jobs.limits.nofile = -1 is out of range"),
        (
            jobs("port = 9000", "port = 8080"),
            "services.jobs.port and services.jobs.listen both listen on port 8080",
        ),
        (
            jobs("hold_max", "durability = 1\nhold_max"),
            "services.jobs.durability does not go with kind = \"command\"",
        ),
        (jobs("\"active-passive\"", "\"load-balanced\""), "services.jobs.lease has no effect"),
        (
            jobs("drain_max = \"3s\"", "drain_max = \"2min\""),
            "services.jobs.drain_max = \"2min\" is out of range",
        ),
        (
            jobs("drain_max = \"3s\"", "drain_max = \"5s\""),
            "services.jobs.drain_max is more than hold_max",
        ),
    ] {
        let found = told(&text);
        assert!(found.len() == 1 && found[0].ends_with(expected), "{expected}: {found:?}");
    }
    let no_port = jobs("listen = 8080\nport = 9000\n", "").replace("\"y\"", "\"{port}\"");
    let found = told(&no_port.replace("\"/srv\"", "\"/srv/{port}\""));
    for key in ["command.3", "env.Lower.case", "cwd", "health", "drain_max has no effect"] {
        assert!(found.iter().any(|it| it.contains(key)), "{key}: {found:?}");
    }
    // A keeper takes no longer line.
    let long = format!("\"{}\"", "a".repeat(4000));
    let many = [long.as_str(); 13].join(", ");
    let found = told(&jobs("\"--port\"", &many));
    assert!(found[0].contains("services.jobs.command and env are 52"), "{found:?}");
    assert_eq!(told(&jobs("\"--port\"", &[long.as_str(); 12].join(", "))), [""; 0]);
}

#[test]
fn a_lease_does_not_change_a_port_waits_for_a_restart_and_the_rest_counts_at_once() {
    let old = parse(&jobs("", ""));
    let longer = parse(&jobs("lease = \"2s\"", "lease = \"3s\""));
    assert_eq!(
        lines(&unsafe_change(&longer, &old)),
        ["TDM0240 error 42:9 +4: services.jobs: lease would change from 3s to 2s"]
    );
    assert_eq!(unsafe_change(&old, &longer).len(), 1, "either way one node has the shorter one");
    for (written, other) in [("\"4s\"", "\"5s\""), ("listen = 8080", "listen = 8081")] {
        let other = parse(&jobs(written, other));
        assert!(unsafe_change(&old, &other).is_empty());
        assert!(daemon_restart(&old, &other, &"a".into()).is_empty(), "{written}");
    }
    let other = parse(&jobs("port = 9000", "port = 9001"));
    let restart = needs_restart(&old, &other);
    assert!(
        restart[0].what.contains("jobs has the new port once the daemons were restarted"),
        "{restart:?}"
    );
    let other = parse(&jobs("MODE = \"x\"", "MODE = \"z\""));
    assert!(daemon_restart(&old, &other, &"a".into()).is_empty());
    assert!(needs_restart(&old, &other)[0].what.contains("the copy of service jobs is started"));
    let other = parse(&jobs("fall = 4", "fall = 5"));
    assert!(needs_restart(&old, &other).is_empty(), "the copy goes on");
    let without = parse(GOOD);
    assert!(needs_restart(&old, &without)[0].what.contains("service jobs ends"));
    assert!(daemon_restart(&without, &old, &"a".into()).is_empty(), "it begins at once");
    assert!(needs_restart(&without, &old).is_empty());
}
