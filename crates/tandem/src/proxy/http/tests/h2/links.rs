//! Connections to endpoints of HTTP/2: who is blamed for what becomes of them, and who is not.

use super::client::{H2, get};
use super::server::H2Server;
use crate::proxy::balancer::{Balancer, BalancerConfig, Upstream};
use crate::proxy::http::h2::{Links, Opening};
use crate::proxy::http::tests::support::{Client, Endpoint, LIMIT, config, until};
use crate::proxy::http::{Protocol, Stream};
use crate::runtime::supervisor::Supervisor;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tandem_core::clustering::load_balanced::retry;
use tokio::net::TcpStream;

pub fn before(servers: &[&H2Server]) -> BalancerConfig {
    let mut config = config(&[]);
    let http = config.http.as_mut().unwrap();
    http.upstream_protocol = Protocol::Http2;
    // A test asks for more than its share.
    http.retry = retry::Limits { percent: 100, floor_per_second: 100 };
    let upstream = |server: &&H2Server| Upstream {
        host: server.address.ip().to_string(),
        port: server.address.port(),
        weight: 1,
        far: false,
        drain: false,
    };
    config.upstreams = servers.iter().map(upstream).collect();
    config
}

#[tokio::test]
async fn what_cannot_be_written_for_http2_is_told_at_once_and_nobodys_fault() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let mut config = before(&[&server]);
    config.http.as_mut().unwrap().head_bytes_max = 200_000;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    // Longer than the crate that writes it lets one be.
    let long = format!("/{}", "a".repeat(70_000));
    client.send(format!("GET {long} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(client.response().await.unwrap().status(), 502);
    let mut client = Client::connect(&balancer).await;
    client.send("GET /a`b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().status(), 400);
    // Browsers leave it as it is behind the question mark.
    let client = H2::connect(&supervisor, &balancer).await;
    assert_eq!(client.ask(get("/empty?a=`")).await.unwrap().status, 204);
    assert_eq!(server.requests(), 1);
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
}

#[tokio::test]
async fn who_hangs_up_on_every_request_is_blamed_and_who_was_idle_is_not() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    // It has answered on its connection: that may have been closed for being idle.
    assert_eq!(client.ask(get("/")).await.unwrap().status, 200);
    let post = |path: &str| http::Request::post(format!("http://a{path}")).body(()).unwrap();
    assert_eq!(client.ask(post("/hang-up")).await.unwrap().status, 502);
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
    // Nothing was answered on this one.
    assert_eq!(client.ask(post("/hang-up")).await.unwrap().status, 502);
    assert_eq!(balancer.snapshot().endpoints[0].failed, 1);
    let failure = balancer.snapshot().endpoints[0].failure.clone().unwrap();
    assert!(failure.contains("closes connections"), "{failure}");
}

#[tokio::test]
async fn many_that_need_a_connection_each_blame_nobody() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 1).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    let mut busy = Vec::new();
    for _ in 0..60 {
        busy.push(client.send(get("/never"), &[]).await);
    }
    until(|| server.requests() == 60).await;
    let snapshot = balancer.snapshot();
    assert_eq!((snapshot.endpoints[0].failed, snapshot.http.unwrap().retried), (0, 0));
    assert_eq!(server.connections.load(Ordering::Relaxed), 60);
}

#[tokio::test]
async fn what_waits_while_the_protocol_changes_goes_by_the_new_one() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let mut config = config(&[&endpoint]);
    config.hold_max = LIMIT;
    let mut wrong = config.clone();
    wrong.http.as_mut().unwrap().upstream_protocol = Protocol::Http2;
    let balancer = Balancer::open(wrong, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    until(|| balancer.snapshot().endpoints[0].failed > 0).await;
    balancer.configure(config).unwrap();
    assert_eq!(client.response().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_opening_that_panics_keeps_nobody_from_another() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let links = Links::default();
    let opening = |is_good: bool, address: SocketAddr| Opening {
        supervisor: supervisor.clone(),
        connect: async move {
            assert!(is_good, "on purpose");
            TcpStream::connect(address).await.map(Stream::Plain)
        },
        within: Duration::from_secs(10),
        head_bytes_max: 16 * 1024,
    };
    let address = server.address;
    assert!(links.open(address, || opening(false, address)).await.is_err());
    assert!(links.open(address, || opening(true, address)).await.unwrap().is_some());
}
