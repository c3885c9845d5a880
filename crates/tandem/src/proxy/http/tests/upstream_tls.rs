//! Endpoints that are spoken to by TLS: who is believed, who is shown what, and new files.

use super::h2::server::{H2Server, shows};
use super::support::{Client, Endpoint, LIMIT, config, get, until};
use super::tls::issue;
use crate::proxy::balancer::{Balancer, BalancerConfig, Check, Question, Upstream, UpstreamTls};
use crate::proxy::http::{Certificate, HttpCheck, Protocol};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn before(address: SocketAddr, ca: &Path) -> BalancerConfig {
    let mut config = config(&[]);
    let host = address.ip().to_string();
    let port = address.port();
    config.upstreams = vec![Upstream { host, port, weight: 1, far: false, drain: false }];
    let (ca, server_name) = (ca.to_owned(), Some("shop.example".to_owned()));
    config.upstream_tls = Some(UpstreamTls { ca, server_name, certificate: None });
    config.hold_max = Duration::from_millis(300);
    config
}

/// A balancer with TLS of its own is an endpoint that speaks it.
fn encrypted(supervisor: &Supervisor, endpoint: &Endpoint, shown: &Certificate) -> Balancer {
    let mut config = config(&[endpoint]);
    config.http.as_mut().unwrap().certificates = vec![shown.clone()];
    Balancer::open(config, supervisor).unwrap()
}

#[tokio::test]
async fn an_endpoint_has_to_prove_its_name() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    let other = issue(dir.path(), "other", &["shop.example"]);
    let inner = encrypted(&supervisor, &endpoint, &shop);
    let address = inner.local_address();
    let good = before(address, &shop.chain);
    let balancer = Balancer::open(good.clone(), &supervisor).unwrap();
    for _ in 0..3 {
        assert_eq!(get(&balancer, "/").await.body, "a");
    }
    assert_eq!(inner.snapshot().accepted, 1, "its connection is used again");
    let mut misnamed = good.clone();
    misnamed.upstream_tls.as_mut().unwrap().server_name = Some("evil.example".to_owned());
    let mut unnamed = good.clone();
    unnamed.upstream_tls.as_mut().unwrap().server_name = None;
    let mut clear = good.clone();
    clear.upstream_tls = None;
    for (config, why) in [
        (before(address, &other.chain), "invalid peer certificate"),
        (misnamed, "not valid for name"),
        (unnamed, "not valid for name"),
    ] {
        let balancer = Balancer::open(config, &supervisor).unwrap();
        assert_eq!(get(&balancer, "/").await.status(), 503);
        let failure = balancer.snapshot().endpoints[0].failure.clone().unwrap();
        assert!(failure.contains(why), "{why}: {failure}");
    }
    let balancer = Balancer::open(clear, &supervisor).unwrap();
    assert!(matches!(get(&balancer, "/").await.status(), 502 | 503));
}

#[tokio::test]
async fn checks_of_connections_and_of_requests_speak_it_and_files_are_read_again() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    let inner = encrypted(&supervisor, &endpoint, &shop);
    let ca = dir.path().join("ca.crt");
    std::fs::copy(&shop.chain, &ca).unwrap();
    let mut asked = before(inner.local_address(), &ca);
    asked.check = Some(Check { interval: Duration::from_millis(20), timeout: LIMIT });
    let mut tcp = asked.clone();
    tcp.http = None;
    for config in [asked, tcp] {
        std::fs::copy(&shop.chain, &ca).unwrap();
        let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
        until(|| balancer.snapshot().endpoints[0].condition == Some(Condition::Up)).await;
        let other = issue(dir.path(), "other", &["shop.example"]);
        let renewed = std::fs::read(&other.chain).unwrap();
        std::fs::write(&ca, renewed).unwrap();
        balancer.configure(config.clone()).unwrap();
        until(|| balancer.snapshot().endpoints[0].condition == Some(Condition::Down)).await;
        // What is no certificate is not used.
        std::fs::write(&ca, "nothing").unwrap();
        balancer.configure(config.clone()).unwrap();
        let error = Balancer::open(config.clone(), &supervisor).unwrap_err().to_string();
        assert!(error.contains("ca.crt: "), "{error}");
        std::fs::copy(&shop.chain, &ca).unwrap();
        balancer.configure(config).unwrap();
        until(|| balancer.snapshot().endpoints[0].condition == Some(Condition::Up)).await;
    }
}

#[tokio::test]
async fn http2_is_agreed_on_or_not_spoken() {
    let supervisor = Supervisor::new();
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    for (protocol, works) in [(&b"h2"[..], true), (b"http/1.1", false)] {
        let server = H2Server::encrypted(&supervisor, shows(&shop, protocol)).await;
        let mut config = before(server.address, &shop.chain);
        config.http.as_mut().unwrap().upstream_protocol = Protocol::Http2;
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let mut client = Client::connect(&balancer).await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.until("\r\n\r\n").await.unwrap();
        assert_eq!(head.starts_with("HTTP/1.1 200 "), works, "{head}");
        if works {
            assert!(server.asked.lock().unwrap()[0].starts_with("HEAD https://a/ "));
        }
    }
}

#[tokio::test]
async fn each_endpoint_says_what_it_speaks() {
    let supervisor = Supervisor::new();
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    let server = H2Server::encrypted(&supervisor, shows(&shop, b"h2")).await;
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let mut old = config(&[&endpoint]);
    let http = old.http.as_mut().unwrap();
    (http.certificates, http.http2) = (vec![shop.clone()], false);
    let old = Balancer::open(old, &supervisor).unwrap();
    for address in [server.address, old.local_address()] {
        let mut config = before(address, &shop.chain);
        config.http.as_mut().unwrap().upstream_protocol = Protocol::Auto;
        config.check = Some(Check { interval: Duration::from_millis(20), timeout: LIMIT });
        let (path, host) = ("/".to_owned(), None);
        config.question = Some(Question::Http(HttpCheck { path, host, expect: (200, 200) }));
        let balancer = Balancer::open(config, &supervisor).unwrap();
        until(|| balancer.snapshot().endpoints[0].condition == Some(Condition::Up)).await;
        let mut client = Client::connect(&balancer).await;
        for _ in 0..5 {
            client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
            let head = client.until("\r\n\r\n").await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let end = if address == server.address { "\r\n\r\n" } else { "x" };
            client.until(end).await.unwrap();
        }
        assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
    }
    let posts = |head: &&String| head.starts_with("POST ");
    assert_eq!(server.asked.lock().unwrap().iter().filter(posts).count(), 5);
    assert_eq!(endpoint.bytes().matches("POST /echo HTTP/1.1").count(), 5);
}

#[tokio::test]
async fn connections_made_by_what_no_longer_counts_carry_no_more_requests() {
    let supervisor = Supervisor::new();
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    let server = H2Server::encrypted(&supervisor, shows(&shop, b"h2")).await;
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let inner = encrypted(&supervisor, &endpoint, &shop);
    for (address, protocol) in
        [(server.address, Protocol::Http2), (inner.local_address(), Protocol::Http1)]
    {
        let mut config = before(address, &shop.chain);
        let http = config.http.as_mut().unwrap();
        (http.upstream_protocol, http.idle_timeout) = (protocol, LIMIT);
        let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
        let ask = async || {
            let mut client = Client::connect(&balancer).await;
            client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.until("\r\n\r\n").await.unwrap().split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!(ask().await, "200");
        // It has to prove another name from now on.
        let mut other = config.clone();
        other.upstream_tls.as_mut().unwrap().server_name = Some("other.example".to_owned());
        balancer.configure(other).unwrap();
        assert_eq!(ask().await, "503", "{protocol:?}");
        balancer.configure(config.clone()).unwrap();
        assert_eq!(ask().await, "200", "{protocol:?}");
        // Or the same name to somebody else, and something else has changed as well.
        let ca = dir.path().join("ca.crt");
        std::fs::copy(&shop.chain, &ca).unwrap();
        config.upstream_tls.as_mut().unwrap().ca.clone_from(&ca);
        balancer.configure(config.clone()).unwrap();
        assert_eq!(ask().await, "200", "{protocol:?}");
        std::fs::copy(&issue(dir.path(), "other", &["shop.example"]).chain, &ca).unwrap();
        config.idle_timeout += Duration::from_secs(1);
        balancer.configure(config).unwrap();
        assert_eq!(ask().await, "503", "{protocol:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_is_shown_a_certificate() {
    let supervisor = Supervisor::new();
    let dir = tempfile::tempdir().unwrap();
    let (shop, own) = (
        issue(dir.path(), "shop", &["shop.example"]),
        issue(dir.path(), "own", &["tandem.example"]),
    );
    let mut roots = rustls::RootCertStore::empty();
    {
        use rustls::pki_types::pem::PemObject as _;
        let own = rustls::pki_types::CertificateDer::from_pem_file(&own.chain).unwrap();
        roots.add(own).unwrap();
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        std::sync::Arc::new(roots),
        std::sync::Arc::clone(&provider),
    );
    let (chain, key) = {
        use rustls::pki_types::pem::PemObject as _;
        let chain = rustls::pki_types::CertificateDer::from_pem_file(&shop.chain).unwrap();
        (vec![chain], rustls::pki_types::PrivateKeyDer::from_pem_file(&shop.key).unwrap())
    };
    let mut asks = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    asks.alpn_protocols = vec![b"h2".to_vec()];
    let server = H2Server::encrypted(&supervisor, asks).await;
    let mut config = before(server.address, &shop.chain);
    config.http.as_mut().unwrap().upstream_protocol = Protocol::Http2;
    for (certificate, works) in [(None, false), (Some(own), true)] {
        config.upstream_tls.as_mut().unwrap().certificate = certificate;
        let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
        let mut client = Client::connect(&balancer).await;
        client.send("POST /empty HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        let status = client.response().await.unwrap().status();
        assert_eq!(status == 204, works, "{status}");
    }
}

/// Endpoints of TLS that take next to nothing ahead, and nothing at all for a while.
async fn pausing(supervisor: &Supervisor, tls: rustls::ServerConfig) -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(100).unwrap();
    let address = listener.local_addr().unwrap();
    let (tls, own) = (tokio_rustls::TlsAcceptor::from(Arc::new(tls)), supervisor.clone());
    supervisor.spawn("pausing endpoint", TaskKind::Session, async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            own.spawn("pausing session", TaskKind::Session, async move {
                let mut stream = tls.accept(tcp).await.unwrap();
                let mut bytes = Vec::new();
                while !bytes.windows(4).any(|it| it == b"\r\n\r\n") {
                    stream.read_buf(&mut bytes).await.unwrap();
                }
                // The balancer fills what lies between them meanwhile.
                tokio::time::sleep(Duration::from_millis(300)).await;
                while !bytes.ends_with(b"!") && stream.read_buf(&mut bytes).await.unwrap() > 0 {}
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
                let _ = stream.read_buf(&mut bytes).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn all_of_an_upload_gets_to_an_endpoint_that_pauses() {
    let supervisor = Supervisor::new();
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    let address = pausing(&supervisor, shows(&shop, b"http/1.1")).await;
    let mut config = before(address, &shop.chain);
    config.hold_max = LIMIT;
    (config.connect_timeout, config.idle_timeout) = (LIMIT, LIMIT);
    config.http.as_mut().unwrap().answer_timeout = LIMIT;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    // One of them ends where the socket is full, and what encrypts keeps the rest.
    let uploads = (1..60).map(async |count: usize| {
        let length = count * 48 * 1024;
        let mut client = Client::connect(&balancer).await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        client.send(head).await;
        client.send([vec![b'.'; length - 1], vec![b'!']].concat()).await;
        (length, client.response().await.unwrap().status())
    });
    for (length, status) in futures::future::join_all(uploads).await {
        assert_eq!(status, 200, "{length}");
    }
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
}
