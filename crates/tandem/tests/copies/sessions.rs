//! Copies that are active-active without partitions: a client's requests stay at one copy, through
//! whichever door they come, and go on at another while that one's node is dead. And a door that
//! spreads connections, each of which is short.

use super::{Machines, NODES, Shop, serve, started};
use crate::app::Who;
use crate::traffic::{Asks, Traffic, ask};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);
const CLIENTS: u8 = 12;
/// For what is under way where a copy is to end.
const DRAIN_MAX: Duration = Duration::from_millis(700);

/// Which node answers each client.
type Homes = BTreeMap<u8, String>;

/// Where each client is led; an error is a client that was told something wrong.
async fn homes(door: SocketAddr) -> Homes {
    let mut homes = Homes::new();
    for client in 1..=CLIENTS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 77, 1, client), 0))).unwrap();
        let mut connection = Some(socket.connect(door).await.unwrap());
        let who = ask(&mut connection, door, false).await.unwrap();
        homes.insert(client, who.node);
    }
    homes
}

/// Waits until every one of these doors leads clients where they should be.
async fn lead(shop: &Shop, machines: &Machines, doors: &[&str], is_so: impl Fn(&Homes) -> bool) {
    let limit = Instant::now() + LIMIT;
    for door in doors {
        loop {
            let homes = homes(shop.door(machines, door)).await;
            if is_so(&homes) {
                break;
            }
            assert!(Instant::now() < limit, "{door} leads to {homes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_requests_stay_where_they_are_and_go_on_elsewhere() {
    clients_stay_and_go_on_elsewhere("http").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_connections_stay_where_they_are_and_go_on_elsewhere() {
    clients_stay_and_go_on_elsewhere("tcp").await;
}

async fn clients_stay_and_go_on_elsewhere(door: &'static str) {
    let mut machines = Machines::new(&NODES);
    let shop = Shop::new("active-active", door);
    started(&mut machines, &shop).await;
    let before = homes(shop.door(&machines, "a")).await;
    println!("{before:?}");
    let used = |node: &str| before.values().any(|home| home == node);
    assert!(NODES.iter().filter(|node| used(node)).count() >= 2, "{before:?}");
    lead(&shop, &machines, &NODES, |homes| *homes == before).await;

    let dead = NODES.into_iter().rev().find(|node| *node != "a" && used(node)).unwrap();
    let rest: Vec<&str> = NODES.into_iter().filter(|node| *node != dead).collect();
    machines.kill(dead);
    let stay = |homes: &Homes| {
        homes.iter().all(|(client, home)| match &before[client] {
            of if of == dead => home != dead,
            of => home == of,
        })
    };
    for door in &rest {
        let homes = homes(shop.door(&machines, door)).await;
        assert!(stay(&homes), "{dead} is dead: {homes:?}, before {before:?}");
    }
    machines.start_joined(dead);
    machines.reachable(dead).await;
    serve(&machines, "a", 3).await;
    lead(&shop, &machines, &rest, |homes| *homes == before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_of_connections_loses_none_by_what_is_planned() {
    let mut machines = Machines::new(&NODES);
    let shop = Shop::new("load-balanced", "tcp");
    started(&mut machines, &shop).await;
    let traffic = Traffic::start(&shop.doors(&machines, &NODES), Asks::Singly);
    traffic.heard_of(3).await;
    let said = machines.tandem("b", &["restart", "web"]).success();
    assert!(said.out.contains("every copy of web was started anew"), "{said:?}");
    machines.tandem("a", &["drain", "c"]).success();
    serve(&machines, "a", 2).await;
    machines.tandem("a", &["undrain", "c"]).success();
    serve(&machines, "a", 3).await;
    shop.write(&machines, "second", "");
    machines.applies("a").await;
    traffic.heard(|by| by.keys().filter(|who| who.mode == "second").count() == 3).await;
    traffic.end("a restart, a drain, a change of connections").await;
    what_lasts_longer_than_a_drain_may_is_cut(&machines, &shop).await;
}

/// What it has under way has `drain_max` to end. This never would: then it is cut, and that is
/// said.
async fn what_lasts_longer_than_a_drain_may_is_cut(machines: &Machines, shop: &Shop) {
    shop.write(machines, "second", &format!("drain_max = \"{}ms\"\n", DRAIN_MAX.as_millis()));
    machines.applies("a").await;
    serve(machines, "a", 3).await;
    let mut client = begun_on("c", shop.door(machines, "a")).await;
    let asked = Instant::now();
    // Answers once the node is empty.
    let drain = machines.tandem("a", &["drain", "c"]).success();
    println!("{}", drain.out);
    let end = timeout(LIMIT, client.read(&mut [0; 100])).await.expect("it is cut");
    assert!(!matches!(end, Ok(1..)), "nothing more comes: {end:?}");
    assert!(asked.elapsed() >= DRAIN_MAX, "it had its time: {:?}", asked.elapsed());
    let said = "drain_max has passed, and 1 are cut";
    machines.wait("it is said", "c", || machines.log("c").contains(said)).await;
    machines.tandem("a", &["undrain", "c"]).success();
}

/// A connection through a door with a request on that node whose answer has begun and never ends.
pub async fn begun_on(node: &str, door: SocketAddr) -> TcpStream {
    let limit = Instant::now() + LIMIT;
    loop {
        let mut stream = TcpStream::connect(door).await.unwrap();
        let request = b"GET /for-ever HTTP/1.1\r\nHost: shop\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        while !text.ends_with('\n') || !text.contains("\r\n\r\n") || text.ends_with("\r\n") {
            let byte = timeout(LIMIT, stream.read_u8()).await.expect("its beginning").unwrap();
            text.push(char::from(byte));
        }
        let who = text.split_once("\r\n\r\n").and_then(|(_, body)| Who::parse(body)).unwrap();
        if who.node == node {
            return stream;
        }
        assert!(Instant::now() < limit, "{door} never leads to {node}");
    }
}
