//! A cluster as its owner makes it, with real processes on loopback addresses: init, token, join;
//! then its configuration and its members change while it serves, and at last it is recovered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "times are reported, never asserted")]

mod database;
#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "../common/machines.rs"]
mod machines;

use machines::{Machines, Said};
use nix::sys::signal::Signal;
use serde_json::Value;
use tandem::identity::Identity;

/// The whole life of a cluster: each part goes on where the one before it ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_made_changed_and_recovered() {
    let mut machines = Machines::new(&["a", "b", "c", "d"]);
    founded_by_joining(&mut machines).await;
    a_live_setting(&machines).await;
    a_setting_that_no_server_takes(&machines).await;
    unsafe_changes_are_refused(&machines).await;
    a_fourth_node_comes(&mut machines).await;
    a_leader_hands_on(&mut machines).await;
    a_dead_node_is_replaced(&mut machines).await;
    a_node_goes(&mut machines).await;
    let survivor = a_majority_is_lost(&mut machines).await;
    let names = who_was_alone_is_fenced_like_any_other(&mut machines, &survivor).await;
    a_service_ends(&machines, &names).await;
}

async fn founded_by_joining(machines: &mut Machines) {
    machines.write_config(&["a", "b", "c"], "");
    machines.init("a");
    machines.start("a");
    machines.reachable("a").await;
    for node in ["b", "c"] {
        let token = machines.token("a", node);
        let said = machines.join(node, &token);
        assert!(said.out.contains("start it: tandem node --config"), "{}", said.out);
        let again = machines.join_anew(node, &token);
        assert!(again.err.contains("the token is unknown, used, expired"), "{}", again.err);
        machines.start_joined(node);
    }
    let no_authority = machines.tandem("b", &["token", "d"]);
    assert!(no_authority.err.contains("ca.key"), "{}", no_authority.err);
    machines.serves("a", 3).await;
    machines.sql("a", "CREATE TABLE kept (id int)").await;
    a_login(machines);
    machines.took("founded by init and join");
}

/// Nobody can guess a password that is derived: the folder of any node tells it.
fn a_login(machines: &Machines) {
    let password = |node: &str, arguments: &[&str]| {
        let dir = machines.dir(node).display().to_string();
        Machines::run(&[&["password", "--dir", &dir], arguments].concat())
    };
    let app = password("a", &["orders"]).success().out;
    assert_eq!(password("b", &["orders"]).success().out, app);
    let identity = Identity::load(machines.dir("a")).unwrap();
    assert_eq!(app.trim(), identity.password(&"orders".into(), "app"));
    let line = password("c", &["orders", "--pgpass"]).success().out;
    assert!(line.starts_with("*:") && line.ends_with(&format!(":app:app:{app}")), "{line}");
    let told = password("a", &["orders", "--role", "superuser", "--json"]).success().out;
    let told: Value = serde_json::from_str(&told).unwrap();
    let run = machines.dir("a").join("services/orders/run").display().to_string();
    assert_eq!((&told["user"], &told["socket"]), (&"tandem".into(), &Value::from(run)));
    assert_ne!(told["password"], app.trim());
    let refused = password("a", &["order"]);
    assert!(refused.err.contains("there is no service order: "), "{refused:?}");
    let dir = machines.dir("a").join("services").display().to_string();
    let refused = Machines::run(&["password", "orders", "--dir", &dir]);
    assert!(refused.err.contains("TDM0301"), "{refused:?}");
    assert!(!machines.log("a").contains(app.trim()));
}

async fn a_live_setting(machines: &Machines) {
    machines.write_config(&["a", "b", "c"], "work_mem = \"7MB\"\n");
    let said = machines.apply("b").success();
    assert!(said.out.contains("configuration 2 is in force on every node"), "{}", said.out);
    assert_eq!(machines.sql("c", "SHOW work_mem").await, "7MB");
    for node in ["a", "b", "c"] {
        let file = machines.dir(node).join("agreed.toml");
        assert!(std::fs::read_to_string(file).unwrap().contains("7MB"), "{node}");
    }
    // What PostgreSQL reads only when it starts is agreed, and said to wait.
    machines.write_config(&["a", "b", "c"], "work_mem = \"7MB\"\nmax_connections = 120\n");
    let said = machines.apply("a").success();
    assert!(said.out.contains("must be restarted for max_connections"), "{}", said.out);
    machines
        .until("a", "an instance says that it waits", |status| {
            let instances = status["services"][0]["instances"].as_array().unwrap();
            instances.iter().any(|it| it["reason"] == "settings wait for a restart")
        })
        .await;
    let again = machines.apply("a");
    assert!(again.err.contains("TDM0607"), "{}", again.err);
    machines.took("changed live");
}

/// Waits until the examination says so.
async fn found(machines: &Machines, words: &str) {
    let is_so = |_: &Value| machines.tandem("a", &["doctor"]).out.contains(words);
    machines.until("a", words, is_so).await;
}

/// What found its way past every check is told, and a copy that does not start is not counted on.
async fn a_setting_that_no_server_takes(machines: &Machines) {
    let primary = machines.primary("a");
    let standby = if primary == "c" { "b" } else { "c" };
    let own = machines.dir(standby).join("services/orders/data/postgresql.conf");
    let before = std::fs::read_to_string(&own).unwrap();
    std::fs::write(&own, format!("work_men = 1MB\n{before}")).unwrap();
    machines.write_config(&["a", "b", "c"], "work_mem = \"8MB\"\n");
    let said = machines.apply("a").success();
    let words = format!("  waits: {standby}: orders: PostgreSQL does not take its settings");
    assert!(said.out.contains(&words) && said.out.contains("work_men"), "{}", said.out);
    let warned = machines.status("a").unwrap()["services"][0]["warnings"].to_string();
    assert!(warned.contains(&format!("wait on {standby}: see tandem doctor")), "{warned}");
    found(machines, "it does not take all of its settings").await;
    let restarted = machines.tandem("a", &["restart", "orders", "--node", standby]);
    assert!(restarted.code != 0 && restarted.err.contains("does not start"), "{restarted:?}");
    let explained = machines.tandem("a", &["explain", "orders", "--json"]).success().out;
    let explained: Value = serde_json::from_str(&explained).unwrap();
    let candidates = explained["failover_now"]["candidates"].as_array().unwrap();
    let it = candidates.iter().find(|it| it["node"] == *standby).unwrap();
    assert_eq!(it["eligible"], false, "{it}");
    assert!(it["because"].as_str().unwrap().contains("failed: see postgres.log"), "{it}");
    found(machines, "in a row before it answered").await;
    std::fs::write(&own, before).unwrap();
    machines.serves("a", 3).await;
    machines
        .until("a", "nothing waits", |status| {
            let warned = status["services"][0]["warnings"].to_string();
            !warned.contains("parts of configuration")
        })
        .await;
    machines.took("a server that takes no settings");
}

async fn unsafe_changes_are_refused(machines: &Machines) {
    let refused = |said: Said, words: &str| {
        assert!(said.code != 0 && said.err.contains(words), "{words}: {said:?}");
    };
    let version = |status: &Value| status["config_version"].as_u64().unwrap();
    let before = version(&machines.status("a").unwrap());
    machines.write_config(&["a", "d"], "");
    refused(machines.apply("a"), "TDM0240");
    machines.write_config(&["a", "b", "c"], "fsync = \"off\"\n");
    refused(machines.apply("a"), "TDM0613");
    // Whoever is asked, PostgreSQL is: one that it does not take keeps it from loading any.
    machines.write_config(&["a", "b", "c"], "work_mem = \"7MB\"\nmax_conections = 5\n");
    refused(machines.apply("b"), "did you mean max_connections?");
    machines.write_config(&["a", "b", "c"], "max_connections = \"many\"\n");
    refused(machines.apply("a"), "invalid value for parameter");
    let primary = machines.primary("a");
    let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|it| **it != primary).collect();
    machines.write_config(&others, "");
    refused(machines.apply("a"), "TDM0616");
    refused(machines.tandem("a", &["remove", &primary]), "TDM0616");
    refused(machines.tandem("a", &["remove", "nobody"]), "TDM0602");
    machines.write_config(&["a", "b", "c"], "work_mem = \"9MB\"\n");
    let path = machines.config_path();
    let stale = machines.tandem("a", &["config", "apply", &path, "--expect", "1"]);
    refused(stale, "TDM0610");
    // Nobody is there to be added.
    machines.write_config(&["a", "b", "c", "d"], "work_mem = \"8MB\"\n");
    let nobody = machines.apply("a");
    assert!(nobody.code == 3 && nobody.err.contains("TDM0620"), "{nobody:?}");
    refused(nobody, "did not become a voter");
    refused(machines.tandem("a", &["token", "Big_Name"]), "TDM0209");
    assert_eq!(version(&machines.status("a").unwrap()), before);
    machines.took("refused what is not safe");
}

async fn a_fourth_node_comes(machines: &mut Machines) {
    let token = machines.token("a", "d");
    let said = machines.join("d", &token);
    assert!(said.out.contains("does not name d yet"), "{}", said.out);
    machines.start("d");
    machines.apply("c").success();
    machines.serves("a", 4).await;
    machines.serves("d", 4).await;
    machines.took("added a node");
}

async fn a_leader_hands_on(machines: &mut Machines) {
    let leader = machines.status("a").unwrap()["leader"].as_str().unwrap().to_owned();
    machines.stop(&leader);
    assert!(machines.log(&leader).contains("handed the leadership on"));
    machines.start(&leader);
    machines.serves(&leader, 4).await;
    machines.took("restarted the leader's daemon");
}

async fn a_dead_node_is_replaced(machines: &mut Machines) {
    machines.kill("d");
    machines.tandem("a", &["remove", "d"]).success();
    machines.start("d");
    machines.ends("d", "d was removed from the cluster by configuration").await;
    machines.instance_gone("d").await;
    machines.kill("d");
    machines.empty("d");
    let token = machines.token("a", "d");
    machines.join("d", &token);
    machines.start("d");
    machines.apply("a").success();
    machines.serves("a", 4).await;
    machines.took("replaced a dead node");
}

async fn a_node_goes(machines: &mut Machines) {
    let primary = machines.primary("a");
    let gone = if primary == "c" { "b" } else { "c" };
    machines.tandem("a", &["remove", gone]).success();
    machines
        .until("a", "it is not named any more", |status| {
            let nodes = status["nodes"].as_array().unwrap();
            nodes.len() == 3 && nodes.iter().all(|it| it["name"] != gone)
        })
        .await;
    machines.ends(gone, "was removed from the cluster by configuration").await;
    machines.instance_gone(gone).await;
    machines.sql("a", "INSERT INTO kept VALUES (1)").await;
    machines.kill(gone);
    machines.start(gone);
    machines.ends(gone, "was removed from the cluster by configuration").await;
    machines.serves("a", 3).await;
    machines.took("removed a node");
}

async fn a_majority_is_lost(machines: &mut Machines) -> String {
    let primary = machines.primary("a");
    let names = machines.members("a");
    let survivor = names.iter().find(|it| **it != primary).unwrap().clone();
    let running = machines.recover(&survivor, &["--accept-loss"]);
    assert!(
        running.code != 0 && running.err.contains("the daemon of this node runs"),
        "{running:?}"
    );
    for node in &names {
        machines.kill(node);
    }
    let said = machines.recover(&survivor, &[]).success();
    assert!(said.out.contains("nothing was changed"), "{}", said.out);
    let said = machines.recover(&survivor, &["--accept-loss"]).success();
    assert!(said.out.contains("may be lost"), "{}", said.out);
    machines.copy_authority("a", &survivor);
    machines.start(&survivor);
    machines.reachable(&survivor).await;
    machines
        .until(&survivor, "it is alone", |status| status["nodes"].as_array().unwrap().len() == 1)
        .await;
    machines.failover(&survivor).await;
    machines.serves(&survivor, 1).await;
    machines.sql(&survivor, "INSERT INTO kept VALUES (2)").await;
    assert_eq!(machines.sql(&survivor, "SELECT count(*)::text FROM kept").await, "2");
    machines.took("recovered the last one");
    survivor
}

/// The lease of the only voter must not outlast the day on which there are others (INV-3).
async fn who_was_alone_is_fenced_like_any_other(
    machines: &mut Machines,
    alone: &str,
) -> Vec<String> {
    let mut names = vec![alone];
    for node in ["a", "b", "c", "d"].into_iter().filter(|it| *it != alone).take(2) {
        machines.kill(node);
        machines.empty(node);
        let token = machines.token(alone, node);
        machines.join(node, &token);
        names.push(node);
        // Before it starts: half a file is no configuration.
        machines.write_config(&names, "");
        machines.start(node);
        machines.applies(alone).await;
        machines.serves(alone, names.len()).await;
    }
    assert_eq!(machines.primary(alone), alone);
    machines.freeze(alone, Signal::SIGSTOP);
    machines.server_dead(alone).await;
    machines
        .until(names[1], "another serves", |status| {
            let primary = &status["services"][0]["primary"];
            primary.is_string() && primary != alone
        })
        .await;
    machines.freeze(alone, Signal::SIGCONT);
    machines.serves(alone, 3).await;
    machines.took("fenced who was alone once");
    names.into_iter().map(ToOwned::to_owned).collect()
}

/// Its server writes its shutdown checkpoint: no lease ran out on it.
async fn a_service_ends(machines: &Machines, names: &[String]) {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let primary = machines.primary(names[1]);
    machines.write_nodes(&names);
    machines.apply(&primary).success();
    machines.instance_gone(&primary).await;
    let log = machines.dir(&primary).join("services/orders/postgres.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.trim_end().ends_with("database system is shut down"), "{log}");
    assert!(!machines.log(&primary).contains("lease.expired"));
    machines.took("ended a service");
}
