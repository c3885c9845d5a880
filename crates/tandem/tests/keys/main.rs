//! A command whose work is divided behind a door on each of three real nodes, with clients that
//! never pause: a node is emptied and filled again, killed and back. Requests go to the owner of
//! their key: what is planned loses none, though none may be sent twice; nobody but the owner
//! answers, and nothing is done twice (INV-13).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "times are reported")]

mod clients;
#[path = "../common/crowd.rs"]
mod crowd;
#[path = "../common/divided.rs"]
mod divided;
mod example;
#[path = "../common/http.rs"]
mod http;
#[allow(dead_code, reason = "shared with a test that needs more of it")]
#[path = "../common/machines.rs"]
mod machines;
mod worker;

use clients::{Clients, once};
use machines::Machines;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tandem_core::clustering::load_balanced::key::part;

const NODES: [&str; 3] = ["a", "b", "c"];
const PARTITIONS: u32 = 12;
const LIMIT: Duration = Duration::from_secs(30);

/// The service as its owner writes it, and where it is.
struct Work {
    listen: u16,
    port: u16,
    ledger: PathBuf,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Work {
    fn new(machines: &Machines) -> Self {
        let ledger = PathBuf::from(machines.config_path()).with_file_name("ledger");
        Self { listen: free_port(), port: free_port(), ledger }
    }

    fn text(&self) -> String {
        let worker = std::env::current_exe().unwrap();
        format!(
            "\n[services.work]\nkind = \"command\"\nclustering = \"active-active\"\n\
             replication = \"none\"\n\
             command = [\"{}\", \"--ignored\", \"--exact\", \"worker::serve\"]\n\
             env = {{ LEDGER = \"{}\" }}\npartitions = {PARTITIONS}\nrelease_max = \"5s\"\n\
             stop_max = \"1s\"\nlisten = {}\nport = {}\ndoor = \"http\"\n\
             partition_key = {{ header = \"X-Shop\" }}\nhold_max = \"15s\"\n\
             health = {{ tcp = true, interval = \"200ms\" }}\n",
            worker.display(),
            self.ledger.display(),
            self.listen,
            self.port
        )
    }

    fn door(&self, machines: &Machines, node: &str) -> SocketAddr {
        SocketAddr::new(machines.of(node).api.ip(), self.listen)
    }

    fn doors(&self, machines: &Machines, nodes: &[&str]) -> Vec<SocketAddr> {
        nodes.iter().map(|node| self.door(machines, node)).collect()
    }

    /// Whoever worked under a later epoch did so after all who did under an earlier one, each epoch
    /// is one process's or its successor's, and nothing was done twice.
    fn nobody_worked_twice(&self) {
        let text = fs::read_to_string(&self.ledger).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let (mut newest, mut done) = (BTreeMap::new(), BTreeSet::new());
        for line in whole.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, epoch, node, _pid, name] = words[..] else { panic!("{line:?}") };
            let (id, epoch): (u64, u64) = (id.parse().unwrap(), epoch.parse().unwrap());
            assert!(done.insert(name.to_owned()), "{line} again");
            let now = (epoch, node.to_owned());
            if let Some((before, by)) = newest.insert(id, now) {
                assert!(before <= epoch, "{line} after {before}");
                assert!(before < epoch || by == node, "{line}, and {by} owned it");
            }
        }
        println!("{} requests, and nobody worked on what another owned", done.len());
    }
}

#[test]
fn a_worker_computes_a_partition_as_its_door_does() {
    for (key, count, wanted) in
        [("shop-17", 64, 58), ("shop-17", 4096, 570), ("", 7, 4), ("ü", 12, 9)]
    {
        assert_eq!(worker::partition(key, count), wanted, "{key}");
        assert_eq!(u64::from(part(key.as_bytes(), count as u32)), wanted, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_to_the_owner_of_their_key_whatever_moves() {
    let mut machines = Machines::new(&NODES);
    let mut work = Work::new(&machines);
    founded(&mut machines, &work).await;
    its_door_moves_while_it_runs(&machines, &mut work).await;
    a_request_without_a_key_is_told(&machines, &work).await;
    an_emptied_node_loses_nothing(&machines, &work).await;
    a_killed_node_loses_what_it_had_begun_at_most(&mut machines, &work).await;
    copies_are_told_another_number_of_partitions(&machines, &work).await;
    a_cut_off_door_says_so(&mut machines, &work).await;
}

/// Three nodes with that service.
async fn started(machines: &mut Machines, service: &str) {
    machines.write_nodes(&NODES);
    let nodes = fs::read_to_string(machines.config_path()).unwrap();
    fs::write(machines.config_path(), nodes + service).unwrap();
    machines.found(&NODES).await;
}

async fn founded(machines: &mut Machines, work: &Work) {
    started(machines, &work.text()).await;
    // Whoever comes early is held.
    let clients = Clients::start(&work.doors(machines, &NODES));
    clients.answered_by(&NODES).await;
    assert_eq!(clients.end("the first ones").await, [""; 0]);
    work.nobody_worked_twice();
    println!("{}", machines.tandem("b", &["status"]).success().out);
}

async fn a_request_without_a_key_is_told(machines: &Machines, work: &Work) {
    let request = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
    let (head, body) = once(work.door(machines, "a"), request).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(body.contains("send the header X-Shop"), "{body}");
}

/// How often a copy turned away what a door had sent it, over all doors.
async fn turned_away(machines: &Machines) -> u64 {
    let mut sum = 0;
    for node in NODES {
        let request = "GET /metrics HTTP/1.1\r\nHost: api\r\n\r\n";
        let (_, body) = once(machines.of(node).api, request).await;
        let own = body.lines().filter(|it| it.starts_with("tandem_door_misdirected_total{"));
        sum += own.filter_map(|it| it.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    }
    sum
}

/// No daemon is restarted.
async fn its_door_moves_while_it_runs(machines: &Machines, work: &mut Work) {
    let old = work.doors(machines, &NODES);
    let text = fs::read_to_string(machines.config_path()).unwrap();
    let before = format!("listen = {}\n", work.listen);
    work.listen = free_port();
    let after = format!("listen = {}\n", work.listen);
    fs::write(machines.config_path(), text.replace(&before, &after)).unwrap();
    machines.applies("a").await;
    let clients = Clients::start(&work.doors(machines, &NODES));
    clients.answered_by(&NODES).await;
    assert_eq!(clients.end("a door that moved").await, [""; 0]);
    let refused = || old.iter().all(|door| std::net::TcpStream::connect(door).is_err());
    machines.wait("the old doors are closed", "a", refused).await;
}

async fn an_emptied_node_loses_nothing(machines: &Machines, work: &Work) {
    let before = turned_away(machines).await;
    let clients = Clients::start(&work.doors(machines, &NODES));
    clients.more(100).await;
    machines.tandem("a", &["drain", "b"]).success();
    clients.answered_by(&["a", "c"]).await;
    machines.tandem("a", &["undrain", "b"]).success();
    clients.answered_by(&NODES).await;
    assert_eq!(clients.end("a node is emptied and filled").await, [""; 0]);
    work.nobody_worked_twice();
    // Doors hear of an owner before it does: what it turned away was answered all the same.
    let count = turned_away(machines).await - before;
    println!("{count} requests were turned away and sent again");
    assert!(count > 0, "the way of what is turned away was not gone");
}

async fn a_killed_node_loses_what_it_had_begun_at_most(machines: &mut Machines, work: &Work) {
    let doors = work.doors(machines, &["a", "b"]);
    let (clients, most) = (Clients::start(&doors), doors.len() * 4);
    clients.more(100).await;
    machines.kill("c");
    clients.answered_by(&["a", "b"]).await;
    let wrong = clients.end("a node is killed").await;
    // What it had may have been done: it is not sent twice, and each client had one there at most.
    assert!(wrong.len() <= most, "{wrong:#?}");
    assert!(wrong.iter().all(|why| why.contains("HTTP/1.1 502 ")), "{wrong:#?}");
    work.nobody_worked_twice();
    let clients = Clients::start(&doors);
    machines.start_joined("c");
    machines.reachable("c").await;
    clients.answered_by(&NODES).await;
    assert_eq!(clients.end("it is back").await, [""; 0]);
    work.nobody_worked_twice();
}

/// A copy that counts otherwise than the doors would be asked for what another one owns.
async fn copies_are_told_another_number_of_partitions(machines: &Machines, work: &Work) {
    let with = fs::read_to_string(machines.config_path()).unwrap();
    machines.write_nodes(&NODES);
    machines.applies("a").await;
    let is_gone = |status: &Value| status["services"].as_array().is_some_and(Vec::is_empty);
    machines.until("a", "the service is gone", is_gone).await;
    for node in NODES {
        let place = SocketAddr::new(machines.of(node).api.ip(), work.port);
        let is_gone = || std::net::TcpStream::connect(place).is_err();
        machines.wait("its copy has ended", node, is_gone).await;
    }
    // An epoch says nothing of what was done under another number.
    fs::rename(&work.ledger, work.ledger.with_extension("before")).unwrap();
    let (was, is) = (PARTITIONS, PARTITIONS * 2);
    let text = with.replace(&format!("partitions = {was}\n"), &format!("partitions = {is}\n"));
    assert_ne!(text, with);
    fs::write(machines.config_path(), text).unwrap();
    machines.applies("a").await;
    let works = |status: &Value| {
        let instances = status["services"][0]["instances"].as_array();
        instances.is_some_and(|all| all.len() == 3 && all.iter().all(|it| it["state"] == "running"))
    };
    machines.until("a", "its copies run", works).await;
    let key = (0..).map(|key: u32| key.to_string());
    let mut key = key.filter(|it| part(it.as_bytes(), was) != part(it.as_bytes(), is));
    let key = key.next().unwrap();
    let id = part(key.as_bytes(), is);
    // Nobody has come to that epoch.
    let request = format!(
        "POST /work HTTP/1.1\r\nHost: shop\r\nX-Shop: {key}\r\nTandem-Partition: {id}\r\n\
         Tandem-Epoch: 999999\r\nContent-Length: 1\r\n\r\nx"
    );
    for node in NODES {
        let copy = SocketAddr::new(machines.of(node).api.ip(), work.port);
        let (head, body) = once(copy, &request).await;
        assert!(head.starts_with("HTTP/1.1 421 "), "{node} counts otherwise: {head} {body}");
    }
    copies_turn_away_what_an_earlier_table_led_there(machines, work).await;
    work.nobody_worked_twice();
}

/// INV-15: as a door sends it that has not heard of another number: its node was cut off from some,
/// or its daemon frozen.
async fn copies_turn_away_what_an_earlier_table_led_there(machines: &Machines, work: &Work) {
    let is = PARTITIONS * 2;
    let is_shared_out = |status: &Value| {
        let nodes = status["services"][0]["partitions"]["nodes"].as_array();
        nodes.is_some_and(|all| all.iter().all(|it| it["owned"] == 8 && it["releasing"] == 0))
    };
    for node in NODES {
        machines.until(node, "all is shared out", is_shared_out).await;
        let path = "/v1/services/work/partitions";
        let own = format!("GET {path} HTTP/1.1\r\nHost: api\r\n\r\n");
        let (_, told) = once(machines.of(node).api, &own).await;
        let told: Value = serde_json::from_str(&told).unwrap();
        let (id, before) = (&told["partitions"][0]["id"], told["before"].as_u64().unwrap());
        assert!(before > 0, "{told}");
        let mut keys = (0..).map(|key: u32| key.to_string());
        let key = keys.find(|key| part(key.as_bytes(), is) == *id).unwrap();
        let copy = SocketAddr::new(machines.of(node).api.ip(), work.port);
        let ask = async |epoch: u64| {
            let name = format!("{node}-{epoch}");
            let length = name.len();
            let request = format!(
                "POST /work HTTP/1.1\r\nHost: shop\r\nX-Shop: {key}\r\nTandem-Partition: {id}\r\n\
                 Tandem-Epoch: {epoch}\r\nContent-Length: {length}\r\n\r\n{name}"
            );
            once(copy, &request).await.0
        };
        // Once it has taken over what it owns.
        let limit = Instant::now() + LIMIT;
        while !ask(before + 1).await.starts_with("HTTP/1.1 200 ") {
            assert!(Instant::now() < limit, "{node} does not work: {told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let head = ask(before).await;
        assert!(head.starts_with("HTTP/1.1 421 "), "{node} works for an earlier table: {head}");
    }
}

/// Without a majority nobody owns anything: what comes is held, and told when it passes its bound.
async fn a_cut_off_door_says_so(machines: &mut Machines, work: &Work) {
    machines.kill("b");
    machines.kill("c");
    let is_gone = |status: &Value| {
        let instances = status["services"][0]["instances"].as_array();
        let own = instances.and_then(|all| all.iter().find(|it| it["node"] == "a"));
        own.is_some_and(|own| own["state"] != "running")
    };
    machines.until("a", "its copy's lease has passed", is_gone).await;
    let request = "POST / HTTP/1.1\r\nHost: shop\r\nX-Shop: 1\r\nContent-Length: 0\r\n\r\n";
    let (head, body) = once(work.door(machines, "a"), request).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("Retry-After: 1"), "{head}");
    assert!(body.contains("no copy of service work that owns partition"), "{body}");
    work.nobody_worked_twice();
    println!("{}", machines.tandem("a", &["status"]).out);
}
