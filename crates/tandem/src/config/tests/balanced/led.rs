//! Doors to the copies of a command.

use super::*;
use crate::config::show;

const FRONT: &str = r#"
[services.front]
kind = "http"
clustering = "load-balanced"
replication = "none"
listen = 8000
upstreams = [{ service = "app" }]

[services.app]
kind = "command"
clustering = "load-balanced"
replication = "none"
command = ["/srv/app"]
port = 9100

[services.work]
kind = "command"
clustering = "active-active"
replication = "none"
partitions = 4
command = ["/srv/work"]
port = 9200
"#;

fn front(old: &str, new: &str) -> String {
    assert!(FRONT.contains(old), "{old:?}");
    format!("{GOOD}{}", FRONT.replacen(old, new, 1))
}

#[test]
fn a_door_may_lead_to_the_copies_of_a_command() {
    let config = parse(&front("", ""));
    assert_eq!(lines(&config.warnings), Vec::<String>::new());
    let it = &config.balanced[&"front".into()];
    assert_eq!(it.leads_to, Some("app".into()));
    assert!(it.upstreams.is_empty() && it.health.is_none(), "their own nodes ask them");
    let shown = show(&config);
    let value = |key: &str| {
        let found = shown.iter().find(|it| it.key == format!("services.front.{key}"));
        found.unwrap_or_else(|| panic!("{key}")).value.clone().unwrap_or_default()
    };
    assert_eq!(value("upstreams"), "the copies of app");
    assert_eq!(value("upstreams.1.service"), "app");
    let alone = front(
        "load-balanced\"\nreplication = \"none\"\ncommand",
        "active-passive\"\nreplication = \"none\"\ncommand",
    );
    assert_eq!(parse(&alone).balanced[&"front".into()].leads_to, Some("app".into()));
    assert_eq!(lines(&problems(&front("8000", "8000\nhealth = false"))), [""; 0]);
}

/// Whoever comes while sessions of before still have time is held at every door that leads there.
#[test]
fn what_one_copy_has_to_end_is_compared_with_each_door_to_it() {
    let alone = |port: &str, hold_max: &str| {
        let passive = "active-passive\"\nreplication = \"none\"\ncommand";
        let text = front("load-balanced\"\nreplication = \"none\"\ncommand", passive);
        let text = text.replace("port = 9100", port);
        text.replace("listen = 8000", &format!("listen = 8000\nhold_max = \"{hold_max}\""))
    };
    let drain_max = |text: &str| parse(text).commands[&"app".into()].drain_max.as_millis();
    let written = "port = 9100\ndrain_max = \"3s\"";
    assert_eq!(
        drain_max(&alone(written, "3s")),
        3000,
        "it has no `listen`, and a door all the same"
    );
    assert_eq!(drain_max(&alone("port = 9100", "3s")), 2000);
    assert_eq!(drain_max(&alone("port = 9100", "500ms")), 500);
    assert_eq!(drain_max(&alone("listen = 8100", "500ms")), 500, "its own holds for longer");
    for port in [written, "listen = 8100\nhold_max = \"4s\"\ndrain_max = \"3s\""] {
        let found = problems(&alone(port, "2s"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].what, "services.app.drain_max is more than hold_max of front");
    }
    // The door's own mistake is what is told.
    let found = problems(&alone(written, "none"));
    assert!(found.len() == 1 && found[0].what.contains("front.hold_max"), "{found:?}");
    let found = problems(&alone(written, "3s").replace("{ service = \"app\" }", "\"e:1\""));
    assert_eq!(found[0].what, "services.app.drain_max has no effect");
    let value = |text: &str| {
        let shown = show(&parse(text));
        let found = shown.iter().find(|it| it.key == "services.app.drain_max");
        found.and_then(|it| it.value.clone())
    };
    assert_eq!(value(&alone(written, "3s")).as_deref(), Some("3s"));
}

#[test]
fn what_no_door_can_lead_to_is_told() {
    let to = |words: &str| front("{ service = \"app\" }", words);
    for (text, expected, because) in [
        (to("{ service = \"ap\" }"), "service = \"ap\" cannot be led to", "no such service"),
        (to("{ service = \"front\" }"), "= \"front\" cannot be led to", "the service itself"),
        (to("{ service = \"work\" }"), "= \"work\" cannot be led to", "its work is divided"),
        (to("{ service = \"orders\" }"), "= \"orders\" cannot be led to", "PostgreSQL"),
        (front("port = 9100\n", ""), "= \"app\" cannot be led to", "it listens nowhere"),
        (to("{ service = \"app\", weight = 2 }"), "weight does not go with service", "nodes"),
        (to("{ service = \"app\", address = \"e:1\" }"), "address does not go with", "nodes"),
        (
            to("{ service = \"app\" }, \"10.0.0.1:1\""),
            "upstreams names a service and something else",
            "the copies of one command",
        ),
        (
            front("8000", "8000\nhealth = { interval = \"1s\" }"),
            "health does not go with the copies of a command",
            "their own nodes ask them",
        ),
        (to("{ service = \"A b\" }"), "service = \"A b\" cannot be used", ""),
    ] {
        let found = problems(&text);
        assert!(found.len() == 1, "{expected}: {found:?}");
        let (what, why) = (&found[0].what, &found[0].because);
        assert!(what.contains(expected) && why.contains(because), "{expected}: {what} {why}");
    }
    let found = problems(&to("{ service = \"ap\" }"));
    assert!(found[0].try_.contains("did you mean \"app\"?"), "{found:?}");
}
