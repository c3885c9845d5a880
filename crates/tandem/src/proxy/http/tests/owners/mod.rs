//! What belongs to a partition gets its owner, and waits where there is none.

mod gone;

use super::support::*;
use super::tls::{client, connect, issue};
use crate::proxy::balancer::{Balancer, BalancerConfig, Owned, OwnersSnapshot};
use crate::proxy::balancer::{Upstream, UpstreamTls};
use crate::runtime::supervisor::Supervisor;
use std::time::Duration;
use tandem_core::clustering::load_balanced::attempts::PACE;
use tandem_core::clustering::load_balanced::key::{Source, part};
use tandem_core::ids::{Epoch, PartitionId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

const PARTITIONS: u32 = 4;
const SHOP: &str = "17";

fn keyed(endpoints: &[&Endpoint]) -> BalancerConfig {
    let source = Source::Header("X-Shop".to_owned());
    let config = http(endpoints, |http| http.hash_key = Some(source));
    BalancerConfig { partitions: Some(PARTITIONS), ..config }
}

fn owned(by: &Endpoint, epoch: u64) -> Option<Owned> {
    Some(Owned { address: by.address, epoch: Epoch(epoch) })
}

/// The partition of the shop goes there, all others elsewhere.
fn routes(shop: Option<Owned>, rest: Option<Owned>) -> Vec<Option<Owned>> {
    let own = part(SHOP.as_bytes(), PARTITIONS);
    (0..PARTITIONS).map(|id| if id == own { shop } else { rest }).collect()
}

async fn two() -> (Supervisor, Endpoint, Endpoint, Balancer) {
    let supervisor = Supervisor::new();
    let a = Endpoint::start(&supervisor, 'a').await;
    let b = Endpoint::start(&supervisor, 'b').await;
    let balancer = Balancer::open(keyed(&[&a, &b]), &supervisor).unwrap();
    (supervisor, a, b, balancer)
}

async fn asks(balancer: &Balancer, path: &str, more: &str) -> Client {
    let mut client = Client::connect(balancer).await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nX-Shop: {SHOP}\r\n{more}\r\n");
    client.send(head).await;
    client
}

fn owners(balancer: &Balancer) -> OwnersSnapshot {
    balancer.snapshot().owners.unwrap()
}

fn held(balancer: &Balancer) -> u64 {
    let own = PartitionId(part(SHOP.as_bytes(), PARTITIONS));
    owners(balancer).held.get(&own).copied().unwrap_or(0)
}

#[tokio::test]
async fn a_request_goes_to_the_owner_of_its_key_and_says_as_what() {
    let (_supervisor, a, b, balancer) = two().await;
    balancer.route(routes(owned(&b, 9), owned(&a, 1)), &[]);
    let forged = "Tandem-Epoch: 99\r\nTandem-Partition: 99\r\n";
    let head = asks(&balancer, "/head", forged).await.response().await.unwrap().body;
    let own = part(SHOP.as_bytes(), PARTITIONS);
    assert!(head.contains(&format!("\r\nTandem-Partition: {own}\r\n")), "{head}");
    assert!(head.contains("\r\nTandem-Epoch: 9\r\n") && !head.contains("99"), "{head}");
    assert_eq!((a.requests(), b.requests()), (0, 1));
    assert_eq!((owners(&balancer).count, owners(&balancer).routed), (4, 4));
}

#[tokio::test]
async fn a_request_without_a_key_is_told_what_it_lacks() {
    let (_supervisor, a, b, balancer) = two().await;
    balancer.route(routes(owned(&b, 1), owned(&a, 1)), &[]);
    let mut client = Client::connect(&balancer).await;
    let refused = client.get("/").await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.body.contains("because the request has no key: send the header X-Shop"));
    // Its connection goes on.
    client.send(format!("GET / HTTP/1.1\r\nHost: shop\r\nX-Shop: {SHOP}\r\n\r\n")).await;
    assert_eq!(client.response().await.unwrap().body, "b");
    assert_eq!((a.requests(), b.requests()), (0, 1));
}

#[tokio::test]
async fn what_nobody_owns_waits_and_what_somebody_owns_does_not() {
    let (_supervisor, a, _b, balancer) = two().await;
    let mut early = asks(&balancer, "/", "").await;
    until(|| held(&balancer) == 1).await;
    balancer.route(routes(None, owned(&a, 1)), &[]);
    let mut late = asks(&balancer, "/", "").await;
    until(|| held(&balancer) == 2).await;
    let other = (0..99).map(|key| key.to_string());
    let other = other
        .into_iter()
        .find(|key| part(key.as_bytes(), PARTITIONS) != part(SHOP.as_bytes(), PARTITIONS));
    let mut client = Client::connect(&balancer).await;
    let other = other.unwrap();
    client.send(format!("GET / HTTP/1.1\r\nHost: shop\r\nX-Shop: {other}\r\n\r\n")).await;
    assert_eq!(client.response().await.unwrap().body, "a", "others do not wait for it");
    assert_eq!(held(&balancer), 2);
    balancer.route(routes(owned(&a, 3), owned(&a, 1)), &[]);
    assert_eq!(early.response().await.unwrap().body, "a");
    assert_eq!(late.response().await.unwrap().body, "a");
    assert_eq!(held(&balancer), 0);
}

/// Its copy may be behind a cut; and a door by key has each of them for ever.
#[tokio::test]
async fn who_waits_for_an_owner_to_take_a_connection_goes_to_the_next_one_at_once() {
    let (supervisor, mut a, b) = super::faults::pair().await;
    let (address, _waiting, _socket) = unreachable().await;
    a.address = address;
    for counts_requests in [true, false] {
        let (connect_timeout, hold_max) = (LIMIT * 10, LIMIT * 10);
        let mut config = BalancerConfig { connect_timeout, hold_max, ..keyed(&[&a, &b]) };
        config.http = config.http.filter(|_| counts_requests);
        let balancer = Balancer::open(config, &supervisor).unwrap();
        balancer.route(routes(owned(&a, 1), owned(&a, 1)), &[]);
        let mut client = asks(&balancer, "/", "").await;
        until(|| balancer.snapshot().endpoints[0].in_flight == 1).await;
        balancer.route(routes(owned(&b, 2), owned(&b, 2)), &[]);
        assert_eq!(client.response().await.unwrap().body, "b", "{counts_requests}");
        assert_eq!(balancer.snapshot().endpoints[0].failed, 0, "it did nothing wrong");
    }
}

#[tokio::test]
async fn what_waits_for_too_long_or_in_too_long_a_line_is_told_so() {
    let supervisor = Supervisor::new();
    let a = Endpoint::start(&supervisor, 'a').await;
    let hold_max = Duration::from_millis(300);
    let config = BalancerConfig { hold_max, held_max: 1, ..keyed(&[&a]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    balancer.route(routes(None, owned(&a, 1)), &[]);
    let mut first = asks(&balancer, "/", "").await;
    until(|| held(&balancer) == 1).await;
    let crowded = asks(&balancer, "/", "").await.response().await.unwrap();
    assert_eq!(crowded.status(), 503);
    assert!(crowded.body.contains("as many requests wait"), "{}", crowded.body);
    let late = first.response().await.unwrap();
    assert_eq!(late.status(), 503);
    assert!(late.head.contains("\r\nRetry-After: 1\r\n"), "{}", late.head);
    let own = part(SHOP.as_bytes(), PARTITIONS);
    let said = format!("no copy of service web that owns partition {own} took the request within");
    assert!(late.body.contains(&said), "{}", late.body);
    assert_eq!(a.requests(), 0);
}

async fn posts(balancer: &Balancer, body: &str) -> Client {
    let mut client = Client::connect(balancer).await;
    let length = body.len();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: shop\r\nX-Shop: {SHOP}\r\nContent-Length: {length}\r\n\r\n"
    );
    client.send(format!("{head}{body}")).await;
    client
}

#[tokio::test]
async fn what_a_copy_turns_away_goes_to_the_next_owner_whole() {
    let (_supervisor, a, b, balancer) = two().await;
    a.always("/421");
    b.always("/echo");
    balancer.route(routes(owned(&a, 1), owned(&a, 1)), &[]);
    let mut client = posts(&balancer, "not to be lost").await;
    until(|| owners(&balancer).misdirected > 0).await;
    balancer.route(routes(owned(&b, 2), owned(&a, 1)), &[]);
    let answer = client.response().await.unwrap();
    assert_eq!((answer.status(), answer.body.as_str()), (200, "not to be lost"));
    let sent = b.bytes();
    assert!(sent.contains("Tandem-Epoch: 2") && !sent.contains("Tandem-Epoch: 1"), "{sent}");
    assert_eq!((b.requests(), balancer.snapshot().http.unwrap().statuses[3]), (1, 0));
}

#[tokio::test]
async fn a_copy_that_does_not_know_yet_what_it_owns_is_asked_again() {
    let (_supervisor, a, _b, balancer) = two().await;
    a.always("/421");
    balancer.route(routes(owned(&a, 1), owned(&a, 1)), &[]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(asks(&balancer, "/", "").await);
    }
    until(|| owners(&balancer).misdirected >= 20).await;
    // From here on one asks for all.
    let (begun, before) = (Instant::now(), owners(&balancer).misdirected);
    until(|| owners(&balancer).misdirected >= before + 3).await;
    assert!(begun.elapsed() >= PACE * 2, "{:?}", begun.elapsed());
    a.always("");
    for client in &mut clients {
        assert_eq!(client.response().await.unwrap().body, "a");
    }
    assert_eq!(held(&balancer), 0);
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_kept_is_turned_away_for_good() {
    let (_supervisor, a, b, balancer) = two().await;
    a.always("/421");
    balancer.route(routes(owned(&a, 1), owned(&b, 1)), &[]);
    let mut client = posts(&balancer, &"x".repeat(100_000)).await;
    assert_eq!(client.response().await.unwrap().status(), 421);
    assert_eq!(owners(&balancer).misdirected, 1);
}

#[tokio::test]
async fn a_connection_goes_to_the_owner_of_its_source_and_ends_when_that_is_another() {
    let supervisor = Supervisor::new();
    let a = Endpoint::start(&supervisor, 'a').await;
    let b = Endpoint::start(&supervisor, 'b').await;
    let config = BalancerConfig { http: None, ..keyed(&[&a, &b]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let own = part(b"127.0.0.1", PARTITIONS);
    let to = |shop: Option<Owned>| (0..PARTITIONS).map(|id| shop.filter(|_| id == own)).collect();
    balancer.route(to(owned(&a, 1)), &[]);
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.get("/").await.unwrap().body, "a");
    // It is asked back: its owner ends what it does there.
    balancer.route(to(None), &[]);
    assert_eq!(client.get("/").await.unwrap().body, "a");
    balancer.route(to(owned(&b, 2)), &[]);
    assert_eq!(client.rest().await, "");
    assert_eq!(get(&balancer, "/").await.body, "b");
}

/// Asks for a letter on a connection that stays.
async fn letter(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> char {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"a") && !answer.ends_with(b"b") {
        let read = timeout(LIMIT, stream.read_buf(&mut answer)).await.expect("an answer");
        assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    char::from(*answer.last().unwrap())
}

/// A connection to the first owner, which ends once `route` has named another.
async fn is_led_away(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), route: impl FnOnce()) {
    assert_eq!(letter(stream).await, 'a');
    route();
    let end = timeout(LIMIT, stream.read_u8()).await.expect("an end");
    assert!(end.is_err(), "{end:?}");
}

/// What is encrypted on either side is no other connection.
#[tokio::test]
async fn an_encrypted_connection_ends_as_well_when_its_owner_is_another() {
    let (supervisor, a, b, _) = two().await;
    let dir = tempfile::tempdir().unwrap();
    let shown = issue(dir.path(), "shop", &["shop.example"]);
    let clear = |endpoint| BalancerConfig { http: None, ..config(&[endpoint]) };
    let ends_tls = |endpoint| {
        let config = BalancerConfig { certificates: vec![shown.clone()], ..clear(endpoint) };
        Balancer::open(config, &supervisor).unwrap()
    };
    let inner = [ends_tls(&a), ends_tls(&b)];
    let own = part(b"127.0.0.1", PARTITIONS);
    for is_shown in [true, false] {
        let addresses = if is_shown {
            [a.address, b.address]
        } else {
            [inner[0].local_address(), inner[1].local_address()]
        };
        let upstream = |at: &std::net::SocketAddr| {
            let (host, port) = (at.ip().to_string(), at.port());
            Upstream { host, port, weight: 1, far: false, drain: false }
        };
        let mut config = BalancerConfig { http: None, ..keyed(&[]) };
        config.upstreams = addresses.iter().map(upstream).collect();
        if is_shown {
            config.certificates = vec![shown.clone()];
        } else {
            let (ca, server_name) = (shown.chain.clone(), Some("shop.example".to_owned()));
            config.upstream_tls = Some(UpstreamTls { ca, server_name, certificate: None });
            config.encrypts = true;
        }
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let to = |at: usize, epoch| {
            let shop = Owned { address: addresses[at], epoch: Epoch(epoch) };
            (0..PARTITIONS).map(|id| (id == own).then_some(shop)).collect()
        };
        balancer.route(to(0, 1), &[]);
        let route = || balancer.route(to(1, 2), &[]);
        if is_shown {
            let mut stream = connect(&balancer, &client(&[&shown]), "shop.example").await.unwrap();
            is_led_away(&mut stream, route).await;
            let mut stream = connect(&balancer, &client(&[&shown]), "shop.example").await.unwrap();
            assert_eq!(letter(&mut stream).await, 'b');
        } else {
            is_led_away(&mut Client::connect(&balancer).await.stream, route).await;
            assert_eq!(letter(&mut Client::connect(&balancer).await.stream).await, 'b');
        }
        assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
    }
}

/// Two readers of one request could find two keys, and two owners would work for one of them.
#[tokio::test]
async fn a_key_that_could_be_read_in_two_ways_is_refused() {
    let (_supervisor, a, b, balancer) = two().await;
    balancer.route(routes(owned(&b, 1), owned(&a, 1)), &[]);
    for (fields, why) in [
        ("X-Shop: one\r\nx-shop: two\r\n", "the header X-Shop is there twice"),
        ("X-Shop: one\r\nConnection: x-shop\r\n", "Connection takes the header X-Shop out"),
    ] {
        let mut client = Client::connect(&balancer).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")).await;
        let refused = client.response().await.unwrap();
        assert_eq!(refused.status(), 400, "{fields}");
        assert!(refused.body.contains(why) && refused.body.contains(": send "), "{}", refused.body);
        // Its connection goes on.
        assert_eq!(client.get("/").await.unwrap().status(), 400);
    }
    assert_eq!((a.requests(), b.requests()), (0, 0));
}

/// It had found somebody: what it waits from there on is another wait.
#[tokio::test]
async fn what_broke_after_a_long_answer_waits_for_the_next_owner_like_any_other() {
    let supervisor = Supervisor::new();
    let a = Endpoint::start(&supervisor, 'a').await;
    let b = Endpoint::start(&supervisor, 'b').await;
    let config = BalancerConfig { hold_max: Duration::from_millis(300), ..keyed(&[&a, &b]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    a.always("/never");
    balancer.route(routes(owned(&a, 1), owned(&a, 1)), &[]);
    let mut client = asks(&balancer, "/", "").await;
    until(|| a.requests() == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    balancer.route(routes(None, owned(&b, 1)), &[]);
    a.stop.cancel();
    until(|| held(&balancer) == 1).await;
    balancer.route(routes(owned(&b, 2), owned(&b, 1)), &[]);
    assert_eq!(client.response().await.unwrap().body, "b");
}

/// Where the number of partitions has changed, one key is in two of them, and has two owners.
#[tokio::test]
async fn routes_of_another_number_of_partitions_lead_nowhere() {
    let (_supervisor, a, b, balancer) = two().await;
    for count in [PARTITIONS * 2, PARTITIONS - 1] {
        balancer.route((0..count).map(|_| owned(&a, 1)).collect(), &[]);
        let mut client = asks(&balancer, "/", "").await;
        until(|| held(&balancer) == 1).await;
        assert_eq!(owners(&balancer).routed, 0);
        balancer.route(routes(owned(&b, 2), owned(&b, 2)), &[]);
        assert_eq!(client.response().await.unwrap().body, "b");
    }
    assert_eq!(a.requests(), 0);
}
