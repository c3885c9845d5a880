//! Rates of requests, and how much of what nobody takes is kept.

mod under_way;
mod whose;

use super::support::*;
use super::tls::{client, issue};
use crate::proxy::balancer::{Balancer, BalancerConfig};
use crate::proxy::balancer::{ProxyVersion, Upstream};
use crate::runtime::supervisor::Supervisor;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::clustering::load_balanced::rate::{Limit, Limits};

const HOUR: Duration = Duration::from_secs(3600);

fn limited(endpoint: &Endpoint, key: Source) -> BalancerConfig {
    let limit = |count| Some(Limit { count, per: HOUR, burst: count });
    BalancerConfig {
        rates: Limits { per_client: limit(3), total: limit(7) },
        ..http(&[endpoint], |http| {
            http.limit_key = key;
            http.trusted = vec!["127.0.0.0/8".parse().unwrap()];
        })
    }
}

async fn ask(client: &mut Client, fields: &str) -> Response {
    client.send(format!("GET / HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")).await;
    client.response().await.unwrap()
}

#[tokio::test]
async fn a_client_over_its_rate_is_told_when_to_come_back() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let config = limited(&endpoint, Source::Address);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    // The proxy before the door is not the client.
    let (one, two) = ("X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 192.0.2.2\r\n");
    for _ in 0..3 {
        assert_eq!(ask(&mut client, one).await.status(), 200);
    }
    let refused = ask(&mut client, one).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.head.contains("\r\nRetry-After: 1200\r\n"), "{refused:?}");
    assert!(refused.body.contains("more requests than service web takes"), "{refused:?}");
    assert_eq!(ask(&mut client, two).await.status(), 200, "on the same connection");
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "X-Forwarded-For: 192.0.2.3\r\n").await.status(), 200);
    }
    assert_eq!(ask(&mut client, two).await.status(), 429, "all together");
    let snapshot = balancer.snapshot();
    assert_eq!(snapshot.limited, [1, 1]);
    assert_eq!(snapshot.http.unwrap().statuses, [0, 7, 0, 2, 0]);
    assert_eq!(endpoint.requests(), 7, "it saw nothing of the others");
}

#[tokio::test]
async fn a_header_tells_clients_apart_and_who_has_none_is_its_address() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let config = limited(&endpoint, Source::Header("X-Key".to_owned()));
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "X-Key: k\r\n").await.status(), 200);
    }
    assert_eq!(ask(&mut client, "X-Key: k\r\n").await.status(), 429);
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "").await.status(), 200);
    }
    assert_eq!(ask(&mut client, "").await.status(), 429);
    // A body that nobody wants ends the connection after its answer.
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nX-Key: k\r\nContent-Length: 4\r\n\r\nbody";
    client.send(post).await;
    let refused = client.response().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.head.contains("\r\nConnection: close\r\n"), "{refused:?}");
}

/// What says who a client is, as written by hand.
fn said(version: ProxyVersion, host: u8) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => {
            format!("PROXY TCP4 192.0.2.{host} 198.51.100.1 5000 443\r\n").into_bytes()
        }
        ProxyVersion::V2 => {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
            header.extend_from_slice(&[192, 0, 2, host, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb]);
            header
        }
    }
}

#[tokio::test]
async fn a_client_is_whom_the_proxy_before_the_door_says_in_clear_and_with_tls() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let shown = issue(dir.path(), "shop", &["shop.example"]);
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        for is_encrypted in [false, true] {
            let limit = |count| Some(Limit { count, per: HOUR, burst: count });
            let config = BalancerConfig {
                accept_proxy: true,
                rates: Limits { per_client: limit(2), total: None },
                ..http(&[&endpoint], |http| {
                    http.certificates = if is_encrypted { vec![shown.clone()] } else { Vec::new() };
                })
            };
            let balancer = Balancer::open(config, &supervisor).unwrap();
            let case = format!("{version:?} {is_encrypted}");
            for (host, statuses) in [(7, [200, 200, 429]), (8, [200, 200, 429])] {
                for status in statuses {
                    let all = through(&balancer, &said(version, host), is_encrypted, &shown).await;
                    assert!(all.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {all}");
                    let forwarded = format!("X-Forwarded-For: 192.0.2.{host}\r\n");
                    assert!(status == 429 || all.contains(&forwarded), "{case}: {all}");
                }
            }
            // Whoever says nothing is closed, whatever it speaks.
            let mut stranger = Client::connect(&balancer).await;
            stranger.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
            assert_eq!(stranger.rest().await, "", "{case}");
            assert_eq!(balancer.snapshot().refused, 1, "{case}");
        }
    }
}

/// What a request is answered that comes with a header before it.
async fn through(
    balancer: &Balancer,
    header: &[u8],
    is_encrypted: bool,
    shown: &crate::proxy::http::Certificate,
) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = b"GET /head HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let mut tcp = tokio::net::TcpStream::connect(balancer.local_address()).await.unwrap();
    tcp.write_all(header).await.unwrap();
    let mut all = String::new();
    if is_encrypted {
        let name = ServerName::try_from("shop.example").unwrap();
        let tls = tokio_rustls::TlsConnector::from(client(&[shown]));
        let mut stream = tls.connect(name, tcp).await.unwrap();
        stream.write_all(request).await.unwrap();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut all)).await.unwrap().unwrap();
    } else {
        tcp.write_all(request).await.unwrap();
        tokio::time::timeout(LIMIT, tcp.read_to_string(&mut all)).await.unwrap().unwrap();
    }
    all
}

#[tokio::test]
async fn an_endpoint_is_told_who_the_client_is_and_a_connection_is_one_clients() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        // A door that takes the header is an endpoint that wants it.
        let inner = BalancerConfig { accept_proxy: true, ..config(&[&endpoint]) };
        let inner = Balancer::open(inner, &supervisor).unwrap();
        let (host, port) = ("127.0.0.1".to_owned(), inner.local_address().port());
        let upstream = Upstream { host, port, weight: 1, far: false, drain: false };
        let outer = BalancerConfig {
            accept_proxy: true,
            send_proxy: Some(version),
            upstreams: vec![upstream],
            ..config(&[])
        };
        let balancer = Balancer::open(outer, &supervisor).unwrap();
        let mut clients = Vec::new();
        for host in [7, 8] {
            let mut client = Client::connect(&balancer).await;
            client.send(said(ProxyVersion::V1, host)).await;
            clients.push((host, client));
        }
        for _ in 0..3 {
            for (host, client) in &mut clients {
                let told = client.get("/head").await.unwrap();
                // The inner door adds whom the header says to what nobody is believed.
                let wanted = format!("X-Forwarded-For: 192.0.2.{host}\r\n");
                assert!(told.body.contains(&wanted), "{version:?}: {}", told.body);
            }
        }
        let snapshot = inner.snapshot();
        assert_eq!((snapshot.accepted, snapshot.refused), (2, 0), "one for each, used again");
    }
}
