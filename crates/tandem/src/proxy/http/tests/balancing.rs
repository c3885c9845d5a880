//! Who gets a request: in turn, by cookie, within bounds; and what closing and changing cost.

use super::support::*;
use crate::proxy::balancer::Balancer;
use crate::runtime::supervisor::Supervisor;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::clustering::load_balanced::retry::Limits as Retries;

pub async fn three() -> (Supervisor, Vec<Endpoint>) {
    let supervisor = Supervisor::new();
    let mut endpoints = Vec::new();
    for letter in ['a', 'b', 'c'] {
        endpoints.push(Endpoint::start(&supervisor, letter).await);
    }
    (supervisor, endpoints)
}

#[tokio::test]
async fn requests_of_one_connection_are_spread() {
    let (supervisor, endpoints) = three().await;
    let all: Vec<&Endpoint> = endpoints.iter().collect();
    let balancer = Balancer::open(config(&all), &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    let mut count = BTreeMap::new();
    for _ in 0..30 {
        *count.entry(client.get("/").await.unwrap().body).or_insert(0) += 1;
    }
    assert_eq!(count.into_values().collect::<Vec<i32>>(), [10, 10, 10]);
    assert!(endpoints.iter().all(|endpoint| endpoint.connections() == 1));
}

#[tokio::test]
async fn a_cookie_keeps_a_client_where_it_was_and_says_nothing_else() {
    let (supervisor, endpoints) = three().await;
    let all: Vec<&Endpoint> = endpoints.iter().collect();
    let config = http(&all, |http| {
        http.sticky = Some("place".to_owned());
        http.secret = [7; 32];
    });
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    let first = client.get("/").await.unwrap();
    let cookie = first.head.split("Set-Cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let port = endpoints[0].address.port().to_string();
    assert!(cookie.starts_with("place=") && !cookie.contains(&port), "{cookie}");
    assert!(first.head.contains("; Path=/; HttpOnly; SameSite=Lax\r\n"), "{first:?}");
    let ask = |cookie: &str| {
        format!("GET / HTTP/1.1\r\nHost: shop\r\nCookie: other=1; {cookie}; last=2\r\n\r\n")
    };
    for _ in 0..5 {
        client.send(ask(cookie)).await;
        let again = client.response().await.unwrap();
        assert_eq!(again.body, first.body);
        assert!(!again.head.contains("Set-Cookie"), "{again:?}");
    }
    // Another node, with the same secret.
    let other = Balancer::open(config, &supervisor).unwrap();
    for _ in 0..3 {
        let mut client = Client::connect(&other).await;
        client.send(ask(cookie)).await;
        assert_eq!(client.response().await.unwrap().body, first.body);
    }
    for forged in ["place=", "place=zzzzzzzzzzzzzzzz", "place=+123456789abcdef", "place=0000"] {
        client.send(ask(forged)).await;
        let response = client.response().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.head.contains("Set-Cookie: place="), "{forged} {response:?}");
    }
    // Its endpoint goes: it is given another place.
    let gone = endpoints.iter().position(|it| first.body == it.letter.to_string()).unwrap();
    endpoints[gone].stop.cancel();
    until(|| std::net::TcpStream::connect(endpoints[gone].address).is_err()).await;
    client.send(ask(cookie)).await;
    let moved = client.response().await.unwrap();
    assert_ne!(moved.body, first.body);
    assert!(moved.head.contains("Set-Cookie: place="), "{moved:?}");
}

#[tokio::test]
async fn an_endpoint_gets_no_more_at_once_than_it_may() {
    let (supervisor, endpoints) = three().await;
    let config = http(&[&endpoints[0]], |http| http.in_flight_max = 2);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&balancer).await;
        client.send("POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\n").await;
        busy.push(client);
    }
    until(|| endpoints[0].requests() == 2).await;
    let mut third = Client::connect(&balancer).await;
    third.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until(|| balancer.snapshot().held == 1).await;
    assert_eq!(balancer.snapshot().endpoints[0].in_flight, 2);
    busy[0].send("x").await;
    assert_eq!(busy[0].response().await.unwrap().body, "x");
    assert_eq!(third.response().await.unwrap().body, "a");
}

#[tokio::test]
async fn closing_ends_idle_connections_and_lets_requests_end() {
    let (supervisor, endpoints) = three().await;
    let balancer = Balancer::open(config(&[&endpoints[0]]), &supervisor).unwrap();
    let mut idle = Client::connect(&balancer).await;
    idle.get("/").await.unwrap();
    let mut busy = Client::connect(&balancer).await;
    busy.send("POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbo").await;
    until(|| endpoints[0].requests() == 2).await;
    let close = balancer.close(LIMIT);
    let clients = async {
        assert_eq!(idle.rest().await, "");
        busy.send("dy").await;
        busy.rest().await
    };
    let (drained, all) = tokio::join!(close, clients);
    assert!(drained);
    assert!(all.ends_with("Connection: close\r\n\r\nbody"), "{all}");
}

#[tokio::test]
async fn what_changes_counts_from_the_next_request_on_and_ends_no_connection() {
    let (supervisor, endpoints) = three().await;
    let before = config(&[&endpoints[0]]);
    let balancer = Balancer::open(before.clone(), &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.get("/").await.unwrap().body, "a");
    let listen = before.listen;
    let after = crate::proxy::BalancerConfig {
        listen,
        ..http(&[&endpoints[1]], |http| {
            http.body_bytes_max = 3;
            http.idle_max = 0;
        })
    };
    balancer.configure(after).unwrap();
    until(|| balancer.snapshot().endpoints[0].address == endpoints[1].address).await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.unwrap().body, "b");
    }
    assert_eq!(endpoints[1].connections(), 3, "none is kept");
    client.send("POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!(client.response().await.unwrap().status(), 413);
}

#[tokio::test]
async fn idle_connections_are_few_and_do_not_grow_old() {
    let (supervisor, endpoints) = three().await;
    let config = http(&[&endpoints[0]], |http| {
        http.idle_max = 2;
        http.idle_timeout = Duration::from_millis(300);
    });
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&balancer).await;
        client.send("POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\n").await;
        clients.push(client);
    }
    until(|| endpoints[0].requests() == 5).await;
    for client in &mut clients {
        client.send("x").await;
        client.response().await.unwrap();
    }
    until(|| endpoints[0].open() == 2).await;
    until(|| endpoints[0].open() == 0).await;
}

#[tokio::test]
async fn what_was_sent_before_a_client_knew_of_the_close_is_served() {
    let (supervisor, endpoints) = three().await;
    let balancer = Balancer::open(config(&[&endpoints[0]]), &supervisor).unwrap();
    let address = balancer.local_address();
    let mut idle = Client::connect(&balancer).await;
    idle.get("/").await.unwrap();
    // The system has accepted it, and nobody else has yet.
    let mut late = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut late, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    late.set_nonblocking(true).unwrap();
    let mut late = Client::of(tokio::net::TcpStream::from_std(late).unwrap());
    let clients = async {
        until(|| std::net::TcpStream::connect(address).is_err()).await;
        for response in [idle.get("/").await, late.response().await] {
            let response = response.expect("a response");
            assert!(response.head.contains("\r\nConnection: close\r\n"), "{response:?}");
        }
    };
    let (drained, ()) = tokio::join!(balancer.close(LIMIT), clients);
    assert!(drained);
}

#[tokio::test]
async fn a_full_endpoint_keeps_its_clients() {
    let (supervisor, endpoints) = three().await;
    let all: Vec<&Endpoint> = endpoints.iter().collect();
    let config = http(&all, |http| {
        http.sticky = Some("place".to_owned());
        http.in_flight_max = 1;
    });
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    let first = client.get("/").await.unwrap();
    let cookie = first.head.split("Set-Cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let mut busy = Client::connect(&balancer).await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n");
    busy.send(format!("{head}Content-Length: 1\r\n\r\n")).await;
    let at = endpoints.iter().find(|it| first.body == it.letter.to_string()).unwrap();
    until(|| at.requests() == 2).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")).await;
    until(|| balancer.snapshot().held == 1).await;
    assert_eq!(get(&balancer, "/").await.status(), 200, "others have other places");
    busy.send("x").await;
    assert_eq!(busy.response().await.unwrap().body, "x");
    let again = client.response().await.unwrap();
    assert_eq!(again.body, first.body);
    assert!(!again.head.contains("Set-Cookie"), "{again:?}");
}

#[tokio::test]
async fn whose_word_is_believed_changes_with_the_next_request() {
    let (supervisor, endpoints) = three().await;
    let before = config(&[&endpoints[0]]);
    let balancer = Balancer::open(before.clone(), &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    let ask = "GET /head HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    let said = async |client: &mut Client| {
        client.send(ask).await;
        client.response().await.unwrap().body.contains("X-Forwarded-For: 192.0.2.1, 127.0.0.1")
    };
    assert!(!said(&mut client).await);
    let mut trusting = before.clone();
    trusting.http.as_mut().unwrap().trusted = vec!["127.0.0.0/8".parse().unwrap()];
    balancer.configure(trusting).unwrap();
    assert!(said(&mut client).await, "on the same connection, which was idle");
    balancer.configure(before).unwrap();
    assert!(!said(&mut client).await);
}

#[tokio::test]
async fn idle_strangers_make_room() {
    let (supervisor, endpoints) = three().await;
    for http2 in [false, true] {
        let mut config = http(&[&endpoints[0]], |http| {
            http.http2 = http2;
            http.keep_alive = LIMIT * 10;
        });
        config.sessions_max = 2;
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let mut strangers = [Client::connect(&balancer).await, Client::connect(&balancer).await];
        assert_eq!(strangers[0].rest().await, "", "the one that said nothing for longest");
        assert_eq!(get(&balancer, "/").await.body, "a");
    }
}

#[tokio::test]
async fn who_waits_longest_is_served_first_and_who_comes_waits_behind() {
    let (supervisor, endpoints) = three().await;
    let mut config = http(&[&endpoints[0]], |http| http.in_flight_max = 1);
    config.held_max = 3;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut busy = Client::connect(&balancer).await;
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    busy.send(head).await;
    until(|| endpoints[0].requests() == 1).await;
    let mut waiting = Vec::new();
    for nth in 1..=3_u64 {
        let mut client = Client::connect(&balancer).await;
        client.send(format!("GET /{nth} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        until(|| balancer.snapshot().held == nth).await;
        waiting.push(client);
    }
    let crowded = get(&balancer, "/").await;
    assert_eq!(crowded.status(), 503);
    assert!(crowded.body.contains("as many requests wait for service web as may"), "{crowded:?}");
    // One that has gone leaves its place to nobody but those behind.
    drop(waiting.remove(1));
    until(|| balancer.snapshot().held == 2).await;
    // It asks for more in the moment in which it makes room.
    busy.send("xGET /4 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for client in waiting.iter_mut().chain([&mut busy]) {
        client.response().await.unwrap();
    }
    assert_eq!(busy.response().await.unwrap().status(), 200);
    let bytes = endpoints[0].bytes();
    let order: Vec<&str> = bytes.split("GET /").skip(1).map(|rest| &rest[..1]).collect();
    assert_eq!(order, ["1", "3", "4"]);
    assert_eq!(balancer.snapshot().endpoints[0].in_flight, 0);
}

#[tokio::test]
async fn who_waits_goes_when_an_endpoint_may_have_more() {
    let (supervisor, endpoints) = three().await;
    let config = http(&[&endpoints[0]], |http| http.in_flight_max = 1);
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let mut busy = Client::connect(&balancer).await;
    busy.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n").await;
    until(|| endpoints[0].requests() == 1).await;
    let mut waits = Client::connect(&balancer).await;
    waits.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| balancer.snapshot().held == 1).await;
    let mut more = config;
    more.http.as_mut().unwrap().in_flight_max = 2;
    balancer.configure(more).unwrap();
    assert_eq!(waits.response().await.unwrap().body, "a");
}

/// They are held, however few retries there may be; none costs it more than it pays for.
#[tokio::test]
async fn who_is_held_asks_one_that_refuses_only_as_it_pays_for_that() {
    const CLIENTS: u64 = 100;
    let supervisor = Supervisor::new();
    let gone = Endpoint::start(&supervisor, 'a').await;
    let address = gone.address;
    gone.stop.cancel();
    until(|| std::net::TcpStream::connect(address).is_err()).await;
    let none = Retries { percent: 0, floor_per_second: 0 };
    let mut config = http(&[&gone], |http| http.retry = none);
    config.hold_max = LIMIT;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let begun = std::time::Instant::now();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(&balancer).await;
        client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        clients.push(client);
    }
    let asked = || balancer.snapshot().http.unwrap().over_budget;
    // They go on, for as long as it takes to see how fast.
    until(|| asked() >= CLIENTS + 25).await;
    let (asked, seconds) = (asked(), begun.elapsed().as_secs() + 1);
    assert!(asked <= CLIENTS + 10 + 10 * seconds, "{asked} connects in {seconds} s");
    let _back = Endpoint::at(&supervisor, 'a', address).await;
    for mut client in clients {
        assert_eq!(client.response().await.unwrap().body, "a");
    }
}
