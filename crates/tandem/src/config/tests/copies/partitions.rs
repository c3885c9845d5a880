use super::*;
use crate::config::valid::KeyDoor;
use crate::config::{needs_restart, show, unsafe_change};
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::spec::Seat;

const WORK: &str = r#"
[services.work]
kind = "command"
clustering = "active-active"
replication = "none"
command = ["/srv/worker"]
partitions = 12
release_max = "5s"
lease = "2s"
"#;

fn work(old: &str, new: &str) -> String {
    assert!(WORK.contains(old), "{old:?}");
    format!("{GOOD}{}", WORK.replacen(old, new, 1))
}

#[test]
fn a_divided_command_has_a_seat_on_each_data_node() {
    let config = parse(&work("", ""));
    let command = &config.commands[&"work".into()];
    let partitions = command.partitions.as_ref().expect("partitions");
    assert_eq!((partitions.count, partitions.release_max), (12, Duration::from_secs(5)));
    assert!(command.copies.is_none(), "each partition has one owner: no copy is any copy");
    let spec = config.spec();
    assert_eq!(spec.services[&"work".into()].partitions, Some(12));
    for node in spec.data_nodes() {
        let seat = &spec.services[&Seat::name(&"work".into(), node)];
        assert_eq!(seat.seat.as_ref().map(|seat| &seat.node), Some(node));
        assert_eq!(seat.timing.lease, Duration::from_secs(2));
    }
}

#[test]
fn what_makes_no_sense_is_told() {
    for (text, expected) in [
        (work("= 12", "= 0"), "services.work.partitions = 0 is out of range"),
        (work("= 12", "= 5000"), "services.work.partitions = 5000 is out of range"),
        (work("\"5s\"", "\"5h\""), "release_max = \"5h\" is out of range"),
        (work("partitions = 12", ""), "services.work.release_max has no effect"),
        (
            work("partitions = 12\nrelease_max = \"5s\"", "on_partitions = [\"/x\"]"),
            "services.work.on_partitions has no effect",
        ),
        (work("= 12", "= 12\non_partitions = [\"\"]"), "services.work.on_partitions.1 = "),
        (
            work("= 12", "= 12\nlisten = 8080\ndoor = \"http\""),
            "services.work.partition_key is missing",
        ),
        (
            work("= 12", "= 12\nlisten = 8080\npartition_key = { cookie = \"x\" }"),
            "services.work.partition_key does not go with door = \"tcp\"",
        ),
        (
            work("= 12", "= 12\npartition_key = \"source\""),
            "services.work.partition_key has no effect",
        ),
        (
            work("partitions = 12\nrelease_max = \"5s\"", "partition_key = \"source\""),
            "services.work.partition_key has no effect",
        ),
        (
            work("= 12", "= 12\nlisten = 8080\npartition_key = \"header:X\""),
            "services.work.partition_key = \"header:X\"",
        ),
        (
            work("= 12", "= 12\nlisten = 8080\nbalance = \"hash\""),
            "services.work.balance does not go with partitions",
        ),
        (work("= 12", "= 12\nreplicas = 2"), "services.work.replicas does not go with partitions"),
        (
            work("active-active", "load-balanced"),
            "services.work.partitions does not go with load-balanced",
        ),
    ] {
        let told = lines(&problems(&text));
        assert!(told.iter().any(|line| line.contains(expected)), "{expected}: {told:?}");
    }
}

const DOOR: &str = "= 12\nlisten = 8080\ndoor = \"http\"\nheld_max = 7\n\
     partition_key = { header = \"X-Shop\" }";

#[test]
fn a_door_leads_to_the_owner_of_a_key() {
    let config = parse(&work("= 12", DOOR));
    let partitions = config.commands[&"work".into()].partitions.clone().expect("partitions");
    let KeyDoor { key, door } = partitions.door.expect("door");
    assert_eq!(key, Source::Header("X-Shop".to_owned()));
    assert_eq!((door.held_max, door.sessions_max, door.ejects), (7, 10_000, false));
    assert!(door.http.is_some());
    let shown = show(&config);
    let value = |key: &str| {
        let found = shown.iter().find(|it| it.key == format!("services.work.{key}"));
        found.and_then(|it| it.value.clone())
    };
    assert_eq!(value("partition_key").as_deref(), Some("header X-Shop"));
    assert_eq!((value("door").as_deref(), value("balance")), (Some("http"), None));
    let tcp = parse(&work("= 12", "= 12\nlisten = 8080"));
    let partitions = tcp.commands[&"work".into()].partitions.clone().expect("partitions");
    assert_eq!(partitions.door.expect("door").key, Source::Address);
    let doorless = parse(&work("", ""));
    assert_eq!(doorless.commands[&"work".into()].partitions.clone().expect("parts").door, None);
}

#[test]
fn what_a_key_is_does_not_change_while_the_service_is_there() {
    let old = parse(&work("= 12", DOOR));
    let new = parse(&work("= 12", &DOOR.replace("X-Shop", "X-Other")));
    let told = lines(&unsafe_change(&old, &new));
    assert!(told.iter().any(|line| line.contains("partition_key would change")), "{told:?}");
    for (key, more) in [
        ("trusted", "trusted = [\"10.0.0.0/8\"]\n"),
        ("accept_proxy", "accept_proxy = true\n"),
        ("accept_proxy_from", "accept_proxy = true\naccept_proxy_from = [\"10.0.0.1\"]\n"),
    ] {
        let new = parse(&work("= 12", &format!("{DOOR}\n{more}")));
        let told = lines(&unsafe_change(&old, &new));
        assert!(told.iter().any(|it| it.contains(&format!("{key} would change"))), "{told:?}");
        let segment = |more: &str| {
            let by_path = DOOR.replace("{ header = \"X-Shop\" }", "{ path_segment = 1 }");
            parse(&work("= 12", &format!("{by_path}\n{more}")))
        };
        assert!(
            unsafe_change(&segment(""), &segment(more)).is_empty(),
            "nobody's word counts there"
        );
    }
    let held = parse(&work("= 12", &DOOR.replace("= 7", "= 8")));
    assert!(unsafe_change(&old, &held).is_empty());
    assert_eq!(lines(&needs_restart(&old, &held)), [""; 0], "its door changes while it runs");
}

#[test]
fn how_work_is_divided_does_not_change_while_it_is_worked_on() {
    let old = parse(&work("", ""));
    for (from, to, expected) in [
        ("= 12", "= 24", "partitions would change from 12 to 24"),
        ("partitions = 12\nrelease_max = \"5s\"\nlease = \"2s\"", "", "from 12 to none"),
    ] {
        let told = lines(&unsafe_change(&old, &parse(&work(from, to))));
        assert!(told.iter().any(|line| line.contains(expected)), "{expected}: {told:?}");
    }
    assert!(unsafe_change(&old, &parse(&work("\"5s\"", "\"9s\""))).is_empty());
}
