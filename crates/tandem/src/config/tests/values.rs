use super::*;
use crate::config::{Host, HostPort, Listen, ReadLag};
use std::net::IpAddr;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::spec::{Durability, NodeRole, Timing};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const FULL: &str = r#"
cluster = "shop-2"
[nodes.a]
address = "[fd00::1]:7400"
bind = "::"
api = "[::1]:7500"
zone = "eu/1"
priority = 200
[nodes.b]
address = "DB2.example.org:7400"
[nodes.w]
address = "127.0.0.3:7400"
role = "witness"
[services.orders]
kind = "postgres"
clustering = "load-balanced"
replication = "primary-replica"
durability = "async"
async_lag_max = "0B"
async_delay_max = "30s"
listen = "0.0.0.0:5000"
read_listen = 5001
read_lag_max = "10s"
read_balance = "hash"
port = 5002
hold_max = "0s"
held_max = 10
sessions_max = 20
bin_dir = "/usr/lib/postgresql/15/bin/"
data_dir = "/srv/pg"
ballast = "0B"
run_as = "pg"
hba = [" host all all ::1/128 scram-sha-256 "]
[services.orders.postgresql]
TimeZone = "UTC"
work_mem = "8MB"
jit = false
random_page_cost = 1.5
auto_explain.log_min_duration = 500
[services.orders.timing]
heartbeat = "50ms"
"#;

#[test]
fn a_full_file_becomes_these_values() {
    let config = parse(FULL);
    let a = &config.nodes[&"a".into()];
    assert_eq!(a.address, HostPort { host: Host::Ip(ip("fd00::1")), port: 7400 });
    assert_eq!(a.address.to_string(), "[fd00::1]:7400");
    assert_eq!((a.bind, a.api.to_string()), (ip("::"), "[::1]:7500".to_owned()));
    assert_eq!((a.zone.as_deref(), a.priority, a.role), (Some("eu/1"), 200, NodeRole::Data));
    let b = &config.nodes[&"b".into()];
    assert_eq!(b.address.host, Host::Name("db2.example.org".to_owned()));
    assert_eq!((b.bind, b.api.to_string()), (ip("0.0.0.0"), "127.0.0.1:7401".to_owned()));
    let w = &config.nodes[&"w".into()];
    assert_eq!((w.role, w.api.to_string()), (NodeRole::Witness, "127.0.0.3:7401".to_owned()));
    assert_eq!(w.listen_address().to_string(), "127.0.0.3:7400");
    let orders = &config.services[&"orders".into()];
    assert_eq!(
        orders.durability,
        Durability::Async { lag_bytes_max: 0, lag_max: Duration::from_secs(30) }
    );
    assert_eq!(orders.timing.heartbeat, Duration::from_millis(50));
    assert_eq!(orders.timing.lease, Timing::default().lease);
    assert_eq!(orders.listen, Listen { ip: Some(ip("0.0.0.0")), port: 5000 });
    assert_eq!(orders.read_listen, Some(Listen { ip: None, port: 5001 }));
    assert_eq!(orders.read_listen.map(|l| l.on(w).to_string()), Some("127.0.0.3:5001".to_owned()));
    assert_eq!(orders.instance_address(b).to_string(), "0.0.0.0:5002");
    assert_eq!(orders.read_lag_max, ReadLag::Time(Duration::from_secs(10)));
    assert_eq!(orders.read_policy, Policy::Hash);
    assert_eq!((orders.hold_max, orders.held_max, orders.sessions_max), (Duration::ZERO, 10, 20));
    assert_eq!(orders.hba, ["host all all ::1/128 scram-sha-256"]);
    assert_eq!((orders.run_as.as_deref(), orders.ballast_bytes), (Some("pg"), 0));
    assert_eq!(orders.bin_dir.as_deref(), Some("/usr/lib/postgresql/15/bin".as_ref()));
    let settings: Vec<_> = orders.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        settings,
        [
            "auto_explain.log_min_duration=500",
            "jit=off",
            "random_page_cost=1.5",
            "timezone=UTC",
            "work_mem=8MB"
        ]
    );
    let spec = config.spec();
    assert_eq!(spec.data_nodes().count(), 2);
    assert_eq!(spec.services[&"orders".into()].durability, orders.durability);
    assert_eq!(config.text, FULL);
}

#[test]
fn defaults_follow_the_number_of_data_nodes() {
    let durability = |text: &str| parse(text).services[&"orders".into()].durability;
    assert_eq!(durability(GOOD), Durability::Quorum { acks: 1 });
    let two = with("[nodes.c]", "[nodes.c]\nrole = \"witness\"");
    assert_eq!(durability(&two), Durability::Preferred { acks: 1 });
    let four = format!("{GOOD}[nodes.d]\naddress = \"d:7400\"\n[nodes.e]\naddress = \"e:7400\"\n");
    assert_eq!(durability(&four), Durability::Quorum { acks: 1 });
    assert!(problems(&four).is_empty());
}

#[test]
fn the_instance_port_depends_on_its_own_service_alone() {
    let port = |listen: u16| {
        let text = with("listen = 5432", &format!("listen = {listen}"));
        parse(&text).services[&"orders".into()].port
    };
    assert_eq!([port(5432), port(1), port(64_535), port(65_535)], [6432, 1001, 65_535, 64_535]);
}

#[test]
fn a_name_is_judged_alike_wherever_it_is_given() {
    for (text, good) in [
        ("orders-2", true),
        ("Big_Name", false),
        ("", false),
        ("2nd", false),
        ("a234567890123456789012345678901", true),
        ("a2345678901234567890123456789012", false),
    ] {
        assert_eq!(crate::config::name_flaw(text).is_none(), good, "{text}");
        let file = FULL.replace("[nodes.b]", &format!("[nodes.\"{text}\"]"));
        assert_eq!(Config::parse(&file, "tandem.toml").is_ok(), good, "{text}");
    }
}

#[test]
fn a_command_without_replication_is_told_to_say_none() {
    let file = "cluster = \"shop\"\n[nodes.a]\naddress = \"10.0.0.1:7400\"\n[services.x]\n\
                kind = \"command\"\nclustering = \"active-passive\"\nlisten = 5000\n";
    let problems = Config::parse(file, "tandem.toml").unwrap_err();
    let missing = problems.iter().find(|it| it.what.contains("replication is missing")).unwrap();
    assert!(missing.try_.contains("replication = \"none\""), "{}", missing.try_);
}
