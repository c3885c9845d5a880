//! A command whose copies run side by side in a cluster of three real nodes, behind a door on each,
//! with clients that never pause: its process is killed, its node, its daemon is restarted; it is
//! restarted, drained, changed, made smaller and larger. What is planned loses no request
//! (INV-14), what is not loses none that may be sent twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "times are reported")]

mod app;
#[path = "../common/crowd.rs"]
mod crowd;
mod front;
#[path = "../common/http.rs"]
mod http;
#[allow(dead_code, reason = "shared with a test that needs more of it")]
#[path = "../common/machines.rs"]
mod machines;
mod patterns;
mod sessions;
mod traffic;

use app::Who;
use machines::Machines;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use traffic::{Asks, Traffic};

const NODES: [&str; 3] = ["a", "b", "c"];

/// The service as its owner writes it, and where it is.
struct Shop {
    listen: u16,
    port: u16,
    clustering: &'static str,
    door: &'static str,
}

impl Shop {
    fn new(clustering: &'static str, door: &'static str) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { listen: free(), port: free(), clustering, door }
    }

    fn door(&self, machines: &Machines, node: &str) -> SocketAddr {
        SocketAddr::new(machines.of(node).api.ip(), self.listen)
    }

    fn doors(&self, machines: &Machines, nodes: &[&str]) -> Vec<SocketAddr> {
        nodes.iter().map(|node| self.door(machines, node)).collect()
    }

    fn write(&self, machines: &Machines, mode: &str, more: &str) {
        machines.write_nodes(&NODES);
        let app = std::env::current_exe().unwrap();
        let text = format!(
            "\n[services.web]\nkind = \"command\"\nclustering = {:?}\n\
             replication = \"none\"\ndoor = {:?}\nslow_start = \"0s\"\n\
             command = [{:?}, \"--ignored\", \"--exact\", \"app::serve\"]\n\
             env = {{ MODE = \"{mode}\" }}\n\
             listen = {}\nport = {}\n\
             health = {{ http = \"/healthz\", interval = \"200ms\" }}\n{more}",
            self.clustering,
            self.door,
            app.display().to_string(),
            self.listen,
            self.port
        );
        let nodes = fs::read_to_string(machines.config_path()).unwrap();
        fs::write(machines.config_path(), nodes + &text).unwrap();
    }
}

fn web(status: &Value) -> Option<&Value> {
    status["services"].as_array()?.iter().find(|service| service["name"] == "web")
}

/// Waits until that many copies shall serve, and do, and nobody's turn is left.
async fn serve(machines: &Machines, at: &str, count: u64) {
    machines
        .until(at, &format!("{count} copies serve"), |status| {
            web(status).is_some_and(|web| {
                let copies = &web["copies"];
                let all = copies["wanted"] == count && copies["serving"] == count;
                all && copies["turn"].is_null()
            })
        })
        .await;
}

fn state(status: &Value, node: &str) -> String {
    let instances = web(status).and_then(|web| web["instances"].as_array());
    let own = instances.and_then(|all| all.iter().find(|it| it["node"] == node));
    own.and_then(|it| it["state"].as_str()).unwrap_or_default().to_owned()
}

/// Who answers at some doors now: those of so many nodes. One that was slow a while ago is asked
/// again late.
async fn who(shop: &Shop, machines: &Machines, doors: &[&str], nodes: usize) -> BTreeSet<Who> {
    let traffic = Traffic::start(&shop.doors(machines, doors), Asks::Gets);
    traffic.heard_of(nodes).await;
    traffic.end("who answers").await.into_keys().collect()
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_serve_whatever_happens_to_one_of_them() {
    let mut machines = Machines::new(&NODES);
    let shop = Shop::new("load-balanced", "http");
    founded(&mut machines, &shop).await;
    an_instance_is_killed(&machines, &shop).await;
    all_are_restarted_in_turns(&machines, &shop).await;
    a_node_is_drained(&machines, &shop).await;
    a_change_counts_while_it_runs(&machines, &shop).await;
    a_daemon_is_restarted(&mut machines, &shop).await;
    fewer_then_a_lost_node_is_replaced(&mut machines, &shop).await;
    without_a_majority_it_goes_on(&mut machines, &shop).await;
    taken_out_it_ends(&machines, &shop).await;
}

async fn started(machines: &mut Machines, shop: &Shop) {
    shop.write(machines, "first", "");
    machines.found(&NODES).await;
    serve(machines, "a", 3).await;
}

async fn founded(machines: &mut Machines, shop: &Shop) {
    started(machines, shop).await;
    println!("{}", machines.tandem("b", &["status"]).success().out);
    println!("{}", machines.tandem("b", &["explain", "web"]).success().out);
    let all = who(shop, machines, &NODES, 3).await;
    let nodes: BTreeSet<&str> = all.iter().map(|it| it.node.as_str()).collect();
    assert_eq!(nodes, NODES.into());
}

async fn an_instance_is_killed(machines: &Machines, shop: &Shop) {
    let before = who(shop, machines, &["a"], 3).await;
    let victim = before.first().unwrap();
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::Gets);
    traffic.more(300).await;
    kill(Pid::from_raw(victim.pid), Signal::SIGKILL).unwrap();
    traffic.more(300).await;
    serve(machines, "a", 3).await;
    let is_new = |who: &Who| who.node == victim.node && who.pid != victim.pid;
    traffic.heard(|by| by.keys().any(is_new)).await;
    traffic.end("an instance is killed").await;
}

async fn all_are_restarted_in_turns(machines: &Machines, shop: &Shop) {
    serve(machines, "b", 3).await;
    let before = who(shop, machines, &NODES, 3).await;
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::All);
    traffic.more(100).await;
    let said = machines.tandem("b", &["restart", "web"]).success();
    println!("{}", said.out);
    assert!(said.out.contains("every copy of web was started anew"), "{said:?}");
    traffic.end("a rolling restart").await;
    let after = who(shop, machines, &NODES, 3).await;
    assert!(before.iter().all(|who| !is_alive(who.pid)), "{before:?}");
    assert_eq!(after.len(), 3, "{after:?}");
    let one = after.first().unwrap();
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::All);
    machines.tandem("b", &["restart", "web", "--node", &one.node]).success();
    traffic.end("a restart of one").await;
    assert!(!is_alive(one.pid));
}

async fn a_node_is_drained(machines: &Machines, shop: &Shop) {
    serve(machines, "a", 3).await;
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::All);
    traffic.more(100).await;
    let said = machines.tandem("a", &["drain", "c"]).success();
    println!("{}", said.out);
    assert_eq!(state(&machines.status("c").unwrap(), "c"), "absent");
    traffic.end("a drain").await;
    let left = who(shop, machines, &NODES, 2).await;
    assert!(left.iter().all(|who| who.node != "c"), "{left:?}");
    the_only_one_is_not_restarted(machines, shop).await;
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::All);
    machines.tandem("a", &["undrain", "c"]).success();
    serve(machines, "a", 3).await;
    traffic.heard(|by| by.keys().any(|who| who.node == "c")).await;
    traffic.end("an undrain").await;
}

/// With a and b left.
async fn the_only_one_is_not_restarted(machines: &Machines, shop: &Shop) {
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::All);
    machines.tandem("a", &["drain", "b"]).success();
    let refused = machines.tandem("a", &["restart", "web", "--node", "a"]);
    println!("{}", refused.err);
    assert!(refused.code != 0 && refused.err.contains("TDM0621"), "{refused:?}");
    machines.tandem("a", &["undrain", "b"]).success();
    serve(machines, "a", 2).await;
    traffic.end("the only one stays").await;
}

async fn a_change_counts_while_it_runs(machines: &Machines, shop: &Shop) {
    serve(machines, "a", 3).await;
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::All);
    shop.write(machines, "second", "");
    machines.applies("a").await;
    machines
        .until("a", "nothing waits", |status| {
            let web = web(status).unwrap();
            let instances = web["instances"].as_array().unwrap();
            instances.iter().all(|it| it["reason"].is_null() && it["state"] == "running")
        })
        .await;
    serve(machines, "a", 3).await;
    traffic.end("another environment").await;
    let after = who(shop, machines, &NODES, 3).await;
    assert!(after.iter().all(|who| who.mode == "second"), "{after:?}");
    assert_eq!(after.len(), 3, "{after:?}");
}

/// The copy goes on with its keeper, and gets work from the other doors.
async fn a_daemon_is_restarted(machines: &mut Machines, shop: &Shop) {
    let before = who(shop, machines, &NODES, 3).await;
    let traffic = Traffic::start(&shop.doors(machines, &["a", "c"]), Asks::All);
    traffic.more(100).await;
    machines.stop("b");
    traffic.more(200).await;
    machines.start_joined("b");
    machines.reachable("b").await;
    serve(machines, "b", 3).await;
    traffic.end("a daemon is restarted").await;
    assert_eq!(who(shop, machines, &NODES, 3).await, before, "the same processes");
}

async fn fewer_then_a_lost_node_is_replaced(machines: &mut Machines, shop: &Shop) {
    let traffic = Traffic::start(&shop.doors(machines, &NODES), Asks::All);
    shop.write(machines, "second", "replicas = 2\n");
    machines.applies("a").await;
    serve(machines, "a", 2).await;
    machines
        .until("a", "the third one has ended", |status| {
            NODES.iter().filter(|node| state(status, node) == "absent").count() == 1
        })
        .await;
    traffic.end("fewer copies").await;
    println!("{}", machines.tandem("a", &["explain", "web"]).success().out);
    let all = who(shop, machines, &NODES, 2).await;
    let victim = all.iter().map(|who| who.node.as_str()).find(|node| *node != "a").unwrap();
    let rest: Vec<&str> = NODES.into_iter().filter(|node| *node != victim).collect();
    let traffic = Traffic::start(&shop.doors(machines, &rest), Asks::Gets);
    traffic.more(100).await;
    machines.kill(victim);
    serve(machines, "a", 2).await;
    machines
        .until("a", "it is replaced", |status| {
            rest.iter().all(|node| state(status, node) == "running")
        })
        .await;
    traffic.end("a node is killed").await;
    println!("{}", machines.tandem("a", &["explain", "web"]).success().out);
    machines.start_joined(victim);
    machines.reachable(victim).await;
    let traffic = Traffic::start(&shop.doors(machines, &rest), Asks::All);
    shop.write(machines, "second", "");
    machines.applies("a").await;
    serve(machines, "a", 3).await;
    traffic.end("more copies").await;
}

async fn without_a_majority_it_goes_on(machines: &mut Machines, shop: &Shop) {
    let before = who(shop, machines, &["a"], 3).await;
    machines.kill("b");
    machines.kill("c");
    let own = before.iter().find(|who| who.node == "a").unwrap();
    let traffic = Traffic::start(&shop.doors(machines, &["a"]), Asks::Gets);
    traffic.more(200).await;
    machines.until("a", "only a", |status| state(status, "b") == "unknown").await;
    let by = traffic.end("without a majority").await;
    assert!(by.contains_key(own), "{by:?} {own:?}");
    kill(Pid::from_raw(own.pid), Signal::SIGKILL).unwrap();
    machines.until("a", "it is back", |status| state(status, "a") == "running").await;
    let after = who(shop, machines, &["a"], 1).await;
    assert!(after.len() == 1 && !after.contains(own), "{after:?}");
    for node in ["b", "c"] {
        machines.start_joined(node);
        machines.reachable(node).await;
    }
    serve(machines, "a", 3).await;
}

async fn taken_out_it_ends(machines: &Machines, shop: &Shop) {
    let before = who(shop, machines, &NODES, 3).await;
    machines.write_nodes(&NODES);
    machines.applies("a").await;
    machines.wait("all have ended", "a", || !before.iter().any(|who| is_alive(who.pid))).await;
    shop.write(machines, "third", "");
    machines.applies("a").await;
    serve(machines, "a", 3).await;
    let after = who(shop, machines, &NODES, 3).await;
    assert!(after.iter().all(|who| who.mode == "third") && after.len() == 3, "{after:?}");
}
