use super::*;
use crate::config::unsafe_change;
use std::time::Duration;
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
        (work("= 12", "= 12\nlisten = 8080"), "services.work.listen does not go with partitions"),
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
