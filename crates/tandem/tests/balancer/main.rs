//! A cluster that only balances, with real processes and no PostgreSQL: endpoints die, come back
//! and drop their clients, and the configuration changes under traffic.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "times are reported, never asserted")]

mod certificates;
mod http;
#[path = "../common/machines.rs"]
#[allow(dead_code, reason = "the other test needs more of it")]
mod machines;
mod traffic;
mod zones;

use machines::Machines;
use serde_json::Value;
use std::net::SocketAddr;
use traffic::{Clients, Endpoint, letter, letter_of};

const SERVICE: &str = "\n[services.cache]\nkind = \"tcp\"\nclustering = \"load-balanced\"\n\
    replication = \"none\"\nbalance = \"round-robin\"\nslow_start = \"0s\"\n\
    health = { interval = \"200ms\", fall = 2, rise = 1 }\nejection = { time = \"1s\" }\n";

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The whole life of a service: each part goes on where the one before it ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tcp_service_is_balanced_through_everything() {
    let mut machines = Machines::new(&NAMES);
    let mut endpoints = [Endpoint::start('x').await, Endpoint::start('y').await];
    founded(&mut machines, &endpoints).await;
    connections_are_spread(&machines, &endpoints).await;
    an_endpoint_dies_and_comes_back(&machines, &mut endpoints).await;
    an_endpoint_drops_everyone(&machines, &endpoints).await;
    changes_under_traffic_drop_nobody(&machines, &endpoints).await;
    an_endpoint_is_drained_by_a_word(&machines, &endpoints).await;
    the_door_moves(&machines, &endpoints).await;
    a_second_service_comes_and_goes(&machines, &endpoints).await;
    a_taken_address_is_said_until_it_is_free(&machines, &endpoints).await;
    a_node_stops_and_starts_with_what_was_agreed(&mut machines).await;
}

fn service(door: SocketAddr, upstreams: &str, more: &str) -> String {
    let port = door.port();
    format!("{SERVICE}listen = {port}\nupstreams = [{upstreams}]\n{more}")
}

fn both(endpoints: &[Endpoint; 2]) -> String {
    format!("\"{}\", \"{}\"", endpoints[0].address, endpoints[1].address)
}

fn write(machines: &Machines, text: &str) {
    machines.write_nodes(&NAMES);
    let nodes = std::fs::read_to_string(machines.config_path()).unwrap();
    std::fs::write(machines.config_path(), format!("{nodes}{text}")).unwrap();
}

fn door(machines: &Machines, node: &str) -> SocketAddr {
    machines.of(node).door
}

/// A port that no node listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn opens(machines: &Machines, node: &str, door: SocketAddr) {
    let is_open = || std::net::TcpStream::connect(door).is_ok();
    machines.wait("its door opens", node, is_open).await;
}

async fn closes(machines: &Machines, node: &str, door: SocketAddr) {
    let is_closed = || std::net::TcpStream::connect(door).is_err();
    machines.wait("its door closes", node, is_closed).await;
}

/// Applies it, and waits until every node says so.
async fn apply(machines: &Machines, text: &str) {
    write(machines, text);
    let said = machines.apply("a").success();
    let text = format!("{}{}", said.out, said.err);
    assert!(text.contains("every node") || !text.contains("wait"), "{text}");
}

fn upstream<'a>(status: &'a Value, endpoint: &Endpoint) -> &'a Value {
    let all = status["balanced"][0]["upstreams"].as_array().unwrap();
    let address = Value::from(endpoint.address.to_string());
    all.iter().find(|it| it["address"] == address).unwrap_or(&Value::Null)
}

async fn founded(machines: &mut Machines, endpoints: &[Endpoint; 2]) {
    write(machines, &service(door(machines, "a"), &both(endpoints), ""));
    let check = Machines::run(&["config", "check", &machines.config_path()]).success();
    assert!(check.out.contains("service cache: tcp, load-balanced × none"), "{}", check.out);
    found(machines, endpoints).await;
}

/// From what is written: three nodes, for which every endpoint is up.
async fn found(machines: &mut Machines, endpoints: &[Endpoint; 2]) {
    machines.found(&NAMES).await;
    for node in NAMES {
        machines
            .until(node, "both are up", |status| {
                let is_up = |it: &Endpoint| upstream(status, it)["state"] == "up";
                endpoints.iter().all(is_up)
            })
            .await;
    }
    machines.took("founded without PostgreSQL");
}

async fn connections_are_spread(machines: &Machines, endpoints: &[Endpoint; 2]) {
    for node in NAMES {
        let mut letters = String::new();
        for _ in 0..6 {
            letters.push(letter(door(machines, node)).await.unwrap());
        }
        assert_eq!(letters.matches('x').count(), 3, "{node}: {letters}");
    }
    let page = machines.tandem("b", &["status"]).success().out;
    assert!(page.contains("cache  tcp load-balanced none  by round-robin  at b"), "{page}");
    assert!(page.contains(&endpoints[1].address.to_string()), "{page}");
    machines.took("spread");
}

async fn an_endpoint_dies_and_comes_back(machines: &Machines, endpoints: &mut [Endpoint; 2]) {
    let clients = Clients::start(&NAMES.map(|node| door(machines, node)), 2);
    endpoints[0].stop().await;
    machines
        .until("a", "it is seen to be down", |status| {
            let it = upstream(status, &endpoints[0]);
            it["state"] == "down" && it["reason"].as_str().unwrap().contains("refused")
        })
        .await;
    endpoints[0].restart().await;
    machines.until("a", "it is back", |it| upstream(it, &endpoints[0])["state"] == "up").await;
    let told = clients.stop().await;
    // Only what was open at the dead one may have ended, and no client was turned away.
    assert!(told.failed == 0 && told.done > 0, "{told:?}");
    machines.took("an endpoint died and came back");
}

async fn an_endpoint_drops_everyone(machines: &Machines, endpoints: &[Endpoint; 2]) {
    let count =
        || upstream(&machines.status("a").unwrap(), &endpoints[0])["ejected_total"].as_u64();
    let before = count();
    endpoints[0].drops(true);
    let mut dropped = 0;
    while upstream(&machines.status("a").unwrap(), &endpoints[0])["state"] != "ejected" {
        dropped += usize::from(letter(door(machines, "a")).await.is_none());
        assert!(dropped < 40, "{:#}", machines.status("a").unwrap());
    }
    endpoints[0].drops(false);
    machines.until("a", "it is back", |it| upstream(it, &endpoints[0])["state"] == "up").await;
    assert_eq!(count(), before.map(|before| before + 1));
    machines.took("an endpoint was ejected");
}

async fn changes_under_traffic_drop_nobody(machines: &Machines, endpoints: &[Endpoint; 2]) {
    let doors = NAMES.map(|node| door(machines, node));
    let mut kept = letter_of(doors[1]).await.unwrap();
    let clients = Clients::start(&doors, 2);
    let own = doors[0];
    let [x, y] = [0, 1].map(|at| endpoints[at].address);
    let steps = [
        service(own, &format!("\"{x}\", {{ address = \"{y}\", weight = 3 }}"), ""),
        service(own, &format!("{{ address = \"{x}\", drain = true }}, \"{y}\""), ""),
        service(own, &format!("\"{y}\""), "hold_max = \"5s\"\nsessions_max = 500\n"),
        service(own, &both(endpoints), "").replace("round-robin", "least-connections"),
        service(own, &both(endpoints), "send_proxy = \"v1\"\n"),
        service(own, &both(endpoints), ""),
    ];
    for (at, text) in steps.iter().enumerate() {
        apply(machines, text).await;
        if at == 1 {
            // Every node follows: what is drained gets nobody, wherever a client comes in.
            for node in NAMES {
                machines
                    .until(node, "it drains", |it| {
                        upstream(it, &endpoints[0])["state"] == "draining"
                    })
                    .await;
                for _ in 0..4 {
                    assert_eq!(letter(door(machines, node)).await, Some('y'));
                }
            }
        }
        if at == 4 {
            let said = traffic::header(doors[2]).await;
            assert!(said.starts_with("PROXY TCP4 127.0.0.1 "), "{said}");
        }
    }
    let told = clients.stop().await;
    assert!(told.cut == 0 && told.done > 50, "{told:?}");
    assert!(traffic::echoes(&mut kept).await, "a connection from before all of it still works");
    println!("{} requests during six changes", told.done);
    machines.took("changed under traffic");
}

async fn an_endpoint_is_drained_by_a_word(machines: &Machines, endpoints: &[Endpoint; 2]) {
    let mut kept = letter_of(door(machines, "a")).await.unwrap();
    let mut other = letter_of(door(machines, "a")).await.unwrap();
    let address = endpoints[0].address.to_string();
    let verb = |verb: &str, address: &str| {
        machines.tandem("a", &[verb, "--service", "cache", "--endpoint", address])
    };
    let said = verb("drain", &address).success().out;
    assert!(said.contains("gets no new connections; 1 are left on a"), "{said}");
    let again = verb("drain", &address);
    assert!(again.err.contains("TDM0607"), "{again:?}");
    let wrong = verb("drain", "10.9.9.9:1");
    assert!(wrong.err.contains(&address), "{wrong:?}");
    for node in NAMES {
        let drains = |it: &Value| upstream(it, &endpoints[0])["state"] == "draining";
        machines.until(node, "it drains", drains).await;
        assert_eq!(letter(door(machines, node)).await, Some('y'));
    }
    assert!(traffic::echoes(&mut kept).await && traffic::echoes(&mut other).await);
    verb("undrain", &address).success();
    let is_up = |it: &Value| upstream(it, &endpoints[0])["state"] == "up";
    machines.until("b", "it is used again", is_up).await;
    machines.took("drained by a word");
}

async fn the_door_moves(machines: &Machines, endpoints: &[Endpoint; 2]) {
    let old = door(machines, "a");
    let mut kept = letter_of(old).await.unwrap();
    let mut new = old;
    new.set_port(free_port());
    write(machines, &service(new, &both(endpoints), ""));
    let said = machines.apply("a").success();
    let text = format!("{}{}", said.out, said.err);
    assert!(text.contains("the front door of cache moves"), "{text}");
    opens(machines, "a", new).await;
    assert!(letter(new).await.is_some());
    assert!(traffic::echoes(&mut kept).await, "the old door's connections stay");
    closes(machines, "a", old).await;
    apply(machines, &service(old, &both(endpoints), "")).await;
    opens(machines, "a", old).await;
    machines.took("a door moved and came back");
}

async fn a_second_service_comes_and_goes(machines: &Machines, endpoints: &[Endpoint; 2]) {
    let first = service(door(machines, "a"), &both(endpoints), "");
    let mut door = self::door(machines, "b");
    door.set_port(free_port());
    let second = service(door, &format!("\"{}\"", endpoints[1].address), "");
    let second = second.replace("services.cache", "services.second");
    apply(machines, &format!("{first}{second}")).await;
    opens(machines, "b", door).await;
    assert_eq!(letter(door).await, Some('y'));
    let mut kept = letter_of(door).await.unwrap();
    apply(machines, &first).await;
    closes(machines, "b", door).await;
    assert!(traffic::echoes(&mut kept).await, "what is open may end by itself");
    machines.took("a service came and went");
}

async fn a_taken_address_is_said_until_it_is_free(machines: &Machines, endpoints: &[Endpoint; 2]) {
    let first = service(door(machines, "a"), &both(endpoints), "");
    let mut door = self::door(machines, "b");
    door.set_port(free_port());
    let taken = std::net::TcpListener::bind(door).unwrap();
    let second = service(door, &format!("\"{}\"", endpoints[1].address), "");
    let second = second.replace("services.cache", "services.second");
    write(machines, &format!("{first}{second}"));
    let (api, path) = (format!("http://{}", machines.of("a").api), machines.config_path());
    let applying =
        std::thread::spawn(move || Machines::run(&["--api", &api, "config", "apply", &path]));
    let said = |word: &str| machines.tandem("b", &[word]).success().out;
    let waits = "not in force on this node: service second: cannot listen on";
    machines.wait("status says so", "b", || said("status").contains(waits)).await;
    machines.wait("an event does", "b", || said("events").contains("config.held_up")).await;
    drop(taken);
    let applied = applying.join().unwrap().success().out;
    assert!(applied.contains("changes: services.second is new"), "{applied}");
    opens(machines, "b", door).await;
    machines.wait("it is over", "b", || said("events").contains("config.carried_out")).await;
    assert!(!said("status").contains("not in force"), "{}", said("status"));
    apply(machines, &first).await;
    closes(machines, "b", door).await;
    machines.took("an address was taken, and free again");
}

async fn a_node_stops_and_starts_with_what_was_agreed(machines: &mut Machines) {
    let door = self::door(machines, "c");
    machines.stop("c");
    closes(machines, "c", door).await;
    machines.start_joined("c");
    opens(machines, "c", door).await;
    assert!(letter(door).await.is_some());
    let metrics = traffic::metrics(machines.of("c").api).await;
    assert!(metrics.contains("tandem_upstream_up{service=\"cache\""), "{metrics}");
    machines.took("a node was restarted");
}
