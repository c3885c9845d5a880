//! Connections to endpoints of HTTP/2: who is blamed for what becomes of them, and who is not.

use super::client::{H2, get};
use super::server::H2Server;
use crate::proxy::balancer::{Balancer, BalancerConfig, Upstream};
use crate::proxy::http::h2::{Links, Opening};
use crate::proxy::http::tests::support::{Client, Endpoint, LIMIT, config, until};
use crate::proxy::http::{Protocol, Stream};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tandem_core::clustering::load_balanced::retry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

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

/// An endpoint that is told so gives up what it still does for a request.
#[tokio::test]
async fn a_response_that_ends_late_was_wanted() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    for _ in 0..3 {
        assert_eq!(client.get("/late-end").await.unwrap().body, "hello");
    }
    until(|| server.wanted.lock().unwrap().len() == 3).await;
    assert_eq!(*server.wanted.lock().unwrap(), [true; 3]);
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

/// A server that says something as soon as it is spoken to, and again when it is asked.
async fn says(supervisor: &Supervisor, first: Vec<u8>, then: Vec<u8>) -> H2Server {
    let mut server = H2Server::start(supervisor, 100).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    server.address = listener.local_addr().unwrap();
    let (own, connections) = (supervisor.clone(), Arc::clone(&server.connections));
    supervisor.spawn("h2 script", TaskKind::Session, async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let (first, then) = (first.clone(), then.clone());
            connections.fetch_add(1, Ordering::Relaxed);
            own.spawn("h2 script", TaskKind::Session, async move {
                let mut bytes = vec![0; 24];
                let _ = tcp.write_all(&first).await;
                let _ = tcp.read_exact(&mut bytes).await;
                let mut header = [0; 9];
                while tcp.read_exact(&mut header).await.is_ok() {
                    let [a, b, c, kind, ..] = header.map(usize::from);
                    bytes.resize(a << 16 | b << 8 | c, 0);
                    let _ = tcp.read_exact(&mut bytes).await;
                    if kind == 1 {
                        let _ = tcp.write_all(&then).await;
                    }
                }
            });
        }
    });
    server
}

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Of no stream was anything done.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn who_always_turns_away_is_blamed_and_others_get_what_it_did_not_do() {
    let supervisor = Supervisor::new();
    let good = H2Server::start(&supervisor, 100).await;
    let bad = says(&supervisor, SETTINGS.to_vec(), GOAWAY.to_vec()).await;
    let balancer = Balancer::open(before(&[&bad, &good]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    let post = || http::Request::post("http://a/").body(()).unwrap();
    for _ in 0..10 {
        assert_eq!(client.ask(post()).await.unwrap().status, 200);
    }
    let snapshot = balancer.snapshot();
    assert!(snapshot.endpoints[0].failed > 0, "{snapshot:?}");
    assert!(snapshot.endpoints[0].ejected > 0, "{snapshot:?}");
    assert_eq!(snapshot.endpoints[1].failed, 0);
    // Nobody else is there: it is told soon, and no connection is made for ever.
    let balancer = Balancer::open(before(&[&bad]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    assert!(client.ask(post()).await.unwrap().status >= 500);
}

#[tokio::test]
async fn a_connection_that_takes_no_more_closes_nobody_out() {
    let supervisor = Supervisor::new();
    let no_more = vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    let answer = vec![0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
    let then = [no_more, answer].concat();
    let server = says(&supervisor, SETTINGS.to_vec(), then).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    for _ in 0..5 {
        assert_eq!(client.ask(get("/")).await.unwrap().status, 200);
    }
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
    assert_eq!(server.connections.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn what_was_opened_by_what_no_longer_counts_is_opened_anew_but_not_for_ever() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    for (changes, works) in [(1, true), (u32::MAX, false)] {
        let (links, count) = (Links::default(), Arc::new(AtomicU32::new(0)));
        let opening = || {
            let (links, address) = (links.clone(), server.address);
            let at = count.fetch_add(1, Ordering::Relaxed);
            let connect = async move {
                if at < changes {
                    links.clear();
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                TcpStream::connect(address).await.map(Stream::Plain)
            };
            let (within, head_bytes_max) = (LIMIT, 16 * 1024);
            Opening { supervisor: supervisor.clone(), connect, within, head_bytes_max }
        };
        let opened = timeout(LIMIT, links.open(server.address, opening)).await.expect("an end");
        assert_eq!(opened.is_ok_and(|it| it.is_some()), works);
        assert_eq!(count.load(Ordering::Relaxed), if works { 2 } else { 3 });
    }
}
