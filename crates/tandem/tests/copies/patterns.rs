//! A command that comes to a cluster that runs, and changes its pattern there as its owner is told
//! to: taken out, then put back. No daemon is restarted for it.

use super::{Machines, NODES, Shop, is_alive, serve, state, web, who};
use crate::app::Who;
use crate::sessions::begun_on;
use crate::traffic::{Asks, Traffic};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use tandem::runtime::process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_comes_and_changes_its_pattern_while_the_cluster_runs() {
    let mut machines = Machines::new(&NODES);
    machines.write_nodes(&NODES);
    machines.found(&NODES).await;
    let is_founded = |status: &serde_json::Value| status["config_version"].as_u64() > Some(0);
    machines.until("b", "it is founded", is_founded).await;
    let shop = Shop::new("load-balanced", "http");
    let alone = it_comes_alone(&machines, &shop).await;
    let (shop, alone) = it_moves_to_another_port(&machines, shop, &alone).await;
    let beside = side_by_side(&machines, &shop, &alone).await;
    // Where its copies are found is part of what it is.
    let shop = Shop::new("load-balanced", "http");
    let alone = alone_again(&mut machines, &shop, &beside).await;
    let alone = what_an_earlier_daemon_left_is_ended_first(&mut machines, &shop, &alone).await;
    divided(&machines, &shop, &alone).await;
}

/// The service under a lease, by the pattern and its keys.
fn write(machines: &Machines, shop: &Shop, clustering: &str, keys: &str) {
    machines.write_nodes(&NODES);
    let app = std::env::current_exe().unwrap();
    let text = format!(
        "\n[services.web]\nkind = \"command\"\nclustering = \"{clustering}\"\n\
         replication = \"none\"\nport = {}\n\
         command = [{:?}, \"--ignored\", \"--exact\", \"app::serve\"]\n\
         env = {{ MODE = \"{clustering}\" }}\n\
         health = {{ http = \"/healthz\", interval = \"200ms\" }}\n{keys}",
        shop.port,
        app.display().to_string(),
    );
    let nodes = fs::read_to_string(machines.config_path()).unwrap();
    fs::write(machines.config_path(), nodes + &text).unwrap();
}

fn write_alone(machines: &Machines, shop: &Shop) {
    let keys = format!("listen = {}\nhold_max = \"20s\"\n", shop.listen);
    write(machines, shop, "active-passive", &keys);
}

/// Waits until nothing of it is left.
async fn taken_out(machines: &Machines, before: &BTreeSet<Who>) {
    machines.write_nodes(&NODES);
    machines.applies("a").await;
    machines.wait("it has ended", "a", || !before.iter().any(|who| is_alive(who.pid))).await;
}

/// Waits until one copy serves, and every door leads there.
async fn one_serves(machines: &Machines, shop: &Shop) -> BTreeSet<Who> {
    machines
        .until("a", "one copy serves", |status| {
            let running = NODES.iter().filter(|node| state(status, node) == "running").count();
            web(status).is_some_and(|web| web["phase"] == "active") && running == 1
        })
        .await;
    let all = who(shop, machines, &NODES, 1).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all
}

async fn it_comes_alone(machines: &Machines, shop: &Shop) -> BTreeSet<Who> {
    write_alone(machines, shop);
    let said = machines.apply("b").success();
    let words = said.out + &said.err;
    let waits_for_nothing =
        words.contains("in force on every node") && words.contains("waiting: []");
    assert!(waits_for_nothing && !words.contains("restart"), "it begins at once: {words}");
    let first = one_serves(machines, shop).await;
    let node = &first.first().unwrap().node;
    let to = NODES.into_iter().find(|it| it != node).unwrap();
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::Singly);
    traffic.more(50).await;
    machines.tandem("a", &["switchover", "web", "--to", to]).success();
    traffic.heard(|by| by.keys().any(|who| who.node == to)).await;
    machines.tandem("c", &["restart", "web", "--node", to]).success();
    traffic.end("an operator moves what came").await;
    one_serves(machines, shop).await
}

/// Doors of all nodes find a copy at the port with which it began: another one waits until it was
/// taken out.
async fn it_moves_to_another_port(
    machines: &Machines,
    shop: Shop,
    before: &BTreeSet<Who>,
) -> (Shop, BTreeSet<Who>) {
    let other = Shop { listen: shop.listen, ..Shop::new("load-balanced", "http") };
    write_alone(machines, &other);
    let said = machines.apply("c").success();
    let words = said.out + &said.err;
    assert!(words.contains("has the new port once the daemons were restarted"), "{words}");
    assert_eq!(one_serves(machines, &shop).await, *before, "where it was");
    taken_out(machines, before).await;
    write_alone(machines, &other);
    machines.applies("b").await;
    let after = one_serves(machines, &other).await;
    let pid = after.first().unwrap().pid;
    let told = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(told.contains(&format!("TANDEM_PORT={}", other.port)), "{told}");
    (other, after)
}

/// Each node's driver of before makes room for another one.
async fn side_by_side(machines: &Machines, shop: &Shop, before: &BTreeSet<Who>) -> BTreeSet<Who> {
    taken_out(machines, before).await;
    shop.write(machines, "beside", "");
    machines.applies("a").await;
    serve(machines, "a", 3).await;
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::All);
    traffic.heard_of(3).await;
    let first = traffic.end("side by side").await;
    // Nothing of what was before ends one of them.
    machines.tandem("b", &["restart", "web"]).success();
    serve(machines, "a", 3).await;
    let all = who(shop, machines, &NODES, 3).await;
    assert!(all.len() == 3 && all.iter().all(|who| who.mode == "beside"), "{all:?}");
    assert!(all.iter().all(|who| !first.contains_key(who)), "started anew: {all:?}");
    all
}

/// INV-12: no lease bounds a copy of before, so nobody is alone as long as one may be left.
async fn alone_again(
    machines: &mut Machines,
    shop: &Shop,
    before: &BTreeSet<Who>,
) -> BTreeSet<Who> {
    machines.stop("c");
    let (left, rest): (BTreeSet<Who>, BTreeSet<Who>) =
        before.iter().cloned().partition(|who| who.node == "c");
    taken_out(machines, &rest).await;
    write_alone(machines, shop);
    let refused = machines.apply("a");
    println!("{}", refused.err);
    assert!(refused.code != 0 && refused.err.contains("c is not heard"), "{refused:?}");
    assert!(left.iter().all(|who| is_alive(who.pid)), "its keeper has it");
    machines.start_joined("c");
    // From its first word on.
    machines.wait("it is taken", "a", || machines.apply("a").code == 0).await;
    assert!(!left.iter().any(|who| is_alive(who.pid)), "it was ended first");
    machines.reachable("c").await;
    let one = one_serves(machines, shop).await;
    assert!(one.iter().all(|who| who.mode == "active-passive"), "{one:?}");
    one
}

/// Its daemon knew that it is out, and dies while what it serves has not ended; so does its keeper.
async fn what_an_earlier_daemon_left_is_ended_first(
    machines: &mut Machines,
    shop: &Shop,
    before: &BTreeSet<Who>,
) -> BTreeSet<Who> {
    taken_out(machines, before).await;
    shop.write(machines, "lasting", "drain_max = \"10min\"\n");
    machines.applies("a").await;
    serve(machines, "a", 3).await;
    let all = who(shop, machines, &NODES, 3).await;
    let (left, rest): (BTreeSet<Who>, BTreeSet<Who>) =
        all.into_iter().partition(|who| who.node == "c");
    let _lasts = begun_on("c", shop.door(machines, "b")).await;
    taken_out(machines, &rest).await;
    write_alone(machines, shop);
    let refused = machines.apply("a");
    let says = refused.err.contains("c has not said yet that no copy of web is left there");
    assert!(refused.code != 0 && says, "{refused:?}");
    let pid = left.first().unwrap().pid;
    let keeper = process::read(pid).unwrap().parent;
    machines.freeze("c", Signal::SIGKILL);
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    machines.stopped("c");
    machines.start_joined("c");
    machines.wait("it is taken", "a", || machines.apply("a").code == 0).await;
    assert!(!process::is_alive(pid), "it was ended first");
    machines.reachable("c").await;
    one_serves(machines, shop).await
}

async fn divided(machines: &Machines, shop: &Shop, before: &BTreeSet<Who>) {
    taken_out(machines, before).await;
    write(machines, shop, "active-active", "partitions = 6\n");
    machines.applies("a").await;
    machines
        .until("b", "each node owns its share", |status| {
            let nodes = web(status).and_then(|web| web["partitions"]["nodes"].as_array());
            let owned = |it: &serde_json::Value| it["owned_ids"].as_array().map_or(0, Vec::len);
            nodes.is_some_and(|all| all.len() == 3 && all.iter().all(|it| owned(it) == 2))
        })
        .await;
    let running =
        |status: &serde_json::Value| NODES.iter().all(|node| state(status, node) == "running");
    machines.until("b", "each has a copy", running).await;
}
