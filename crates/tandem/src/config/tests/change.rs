use super::*;
use crate::config::{needs_restart, unsafe_change};

fn refusals(new: &str) -> Vec<String> {
    lines(&unsafe_change(&good(), &parse(new)))
}

fn notes(old: &str, new: &str) -> Vec<String> {
    lines(&needs_restart(&parse(old), &parse(new)))
}

#[test]
fn the_same_file_changes_nothing() {
    assert!(unsafe_change(&good(), &good()).is_empty());
    assert!(needs_restart(&good(), &good()).is_empty());
}

#[test]
fn what_would_be_unsafe_is_refused() {
    let moved = GOOD.replace("10.0.0.1:", "10.0.1.1:").replace("10.0.0.2:", "10.0.1.2:");
    let nodes = "[nodes.b]\naddress = \"10.0.0.2:7400\"\n[nodes.c]\naddress = \"10.0.0.3:7400\"\n";
    let added = format!("{GOOD}[nodes.d]\naddress = \"d:7400\"\n[nodes.e]\naddress = \"e:7400\"\n");
    let alone = GOOD.replace(nodes, "").replace("listen", "durability = \"preferred\"\nlisten");
    let swapped = with("[nodes.c]\naddress = \"10.0.0.3", "[nodes.d]\naddress = \"10.0.0.4");
    for (new, expected) in [
        (
            with("\"shop\"", "\"mall\""),
            "TDM0240 error 1:11 +6: the cluster would be renamed from shop to mall",
        ),
        (moved, "TDM0240 error 4:11 +15: 2 nodes would change at once: a moves, b moves"),
        (alone, "TDM0240 error 3:2 +5: 2 nodes would change at once: b goes, c goes"),
        (added, "TDM0240 error 23:8 +1: 2 nodes would change at once: d comes, e comes"),
        (swapped, "TDM0240 error 8:8 +1: 2 nodes would change at once: d comes, c goes"),
        (
            with("[nodes.c]", "[nodes.c]\nrole = \"witness\""),
            "TDM0240 error 9:8 +9: the role of c would change",
        ),
        (
            with("active-passive", "load-balanced"),
            "TDM0240 error 13:14 +15: services.orders: clustering would change from postgres as \
             active-passive with primary-replica to postgres as load-balanced with primary-replica",
        ),
        (
            with("listen = 5432", "listen = 5433"),
            "TDM0240 error 11:11 +6: services.orders: port would change from 6432 to 6433",
        ),
        (
            with("listen = 5432", "listen = 5432\ndata_dir = \"/srv/x\""),
            "TDM0240 error 16:12 +8: services.orders: data_dir would change from the default to \
             /srv/x",
        ),
        (
            with("listen = 5432", "listen = 5432\nrun_as = \"pg\""),
            "TDM0240 error 16:10 +4: services.orders: run_as would change from the default to pg",
        ),
    ] {
        assert_eq!(refusals(&new), [expected]);
    }
}

#[test]
fn one_member_at_a_time_is_safe() {
    let added = format!("{GOOD}[nodes.d]\naddress = \"10.0.0.4:7400\"\n");
    assert!(refusals(&added).is_empty());
    assert!(unsafe_change(&parse(&added), &good()).is_empty());
    assert!(refusals(&with("10.0.0.1:", "10.0.1.1:")).is_empty());
    assert!(refusals(&with("listen = 5432", "listen = 5433\nport = 6432")).is_empty());
}

#[test]
fn a_lease_that_others_count_on_does_not_change() {
    let shorter = with("\"2s\"", "\"1500ms\"");
    assert!(refusals(&shorter).is_empty(), "with a quorum safety rests on promises");
    let asynchronous = |text: &str| text.replace("listen =", "durability = \"async\"\nlisten =");
    let found = unsafe_change(&parse(&asynchronous(GOOD)), &parse(&asynchronous(&shorter)));
    let expected = "TDM0240 error 23:9 +8: services.orders: lease would change from 2s to 1500ms";
    assert_eq!(lines(&found), [expected]);
    let found = unsafe_change(&parse(&asynchronous(&shorter)), &parse(&asynchronous(GOOD)));
    let expected = "TDM0240 error 23:9 +4: services.orders: lease would change from 1500ms to 2s";
    assert_eq!(lines(&found), [expected], "the primary may be the first to have the longer one");
    assert_eq!(unsafe_change(&good(), &parse(&asynchronous(&shorter))).len(), 1);
}

#[test]
fn what_restarts_or_gets_weaker_is_said() {
    for (new, expected) in [
        (
            with("max_connections = 200", "max_connections = 300\nwork_mem = \"8MB\""),
            "TDM0241 note 19:19 +3: the instances of orders must be restarted for max_connections",
        ),
        (
            with("max_connections = 200", ""),
            "TDM0241 note 18:18 +10: the instances of orders must be restarted for max_connections",
        ),
        (
            with("listen = 5432", "listen = 5433\nport = 6432"),
            "TDM0241 note 15:10 +4: the front door of orders moves on every node",
        ),
        (
            with("zone = \"x\"", "api = \"127.0.0.1:8000\""),
            "TDM0241 note 5:7 +16: the daemon of a must be restarted",
        ),
        (
            with("zone = \"x\"", "api = \"127.0.0.1:8000\"\nbind = \"127.0.0.1\""),
            "TDM0241 note 6:8 +11: the daemon of a must be restarted",
        ),
        (
            with("listen =", "bin_dir = \"/opt/pg/bin\"\nlisten ="),
            "TDM0241 note 15:11 +13: the instances of orders must be restarted for bin_dir",
        ),
        (
            with("listen =", "durability = \"preferred\"\nlisten ="),
            "TDM0242 warning 15:14 +11: services.orders: durability goes from quorum to preferred",
        ),
        (
            with("listen =", "held_max = 7\nlisten ="),
            "TDM0241 note 15:12 +1: the front doors of orders keep their old held_max until a \
             restart",
        ),
    ] {
        assert_eq!(notes(GOOD, &new), [expected]);
    }
    let renamed = GOOD.replace("services.orders", "services.bills");
    assert_eq!(
        notes(GOOD, &renamed),
        [
            "TDM0242 warning 11:2 +8: service orders ends",
            "TDM0241 note 11:11 +5: service bills begins once the daemons were restarted"
        ]
    );
    let two_acks = with("listen =", "durability = \"preferred\"\nacks = 2\nlisten =");
    let one_ack = two_acks.replace("acks = 2", "acks = 1");
    assert_eq!(
        notes(&two_acks, &one_ack),
        ["TDM0242 warning 16:8 +1: services.orders: acks goes from 2 to 1"]
    );
}

#[test]
fn the_order_of_restarts_depends_on_the_direction() {
    let advice = |from: &str, to: &str| {
        let with = |value: &str| parse(&with("= 200", &format!("= {value}")));
        needs_restart(&with(from), &with(to))[0].try_.clone()
    };
    assert!(advice("200", "300").starts_with("restart the standbys, then"));
    assert!(advice("300", "200").starts_with("restart the primary first"));
}
