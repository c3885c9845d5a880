//! Connections that are encrypted on one side or on both.

use super::*;
use crate::proxy::balancer::UpstreamTls;
use crate::proxy::http::tests::tls::{Encrypted, client, connect, issue};
use std::path::Path;

/// A balancer that ends TLS in front of `endpoint`: so a client is tried, and an endpoint had.
pub(super) fn ends_tls(endpoint: &Endpoint, dir: &Path, name: &str) -> BalancerConfig {
    let shown = issue(dir, name, &["cache.example"]);
    BalancerConfig { certificates: vec![shown], ..config(&[endpoint]) }
}

async fn echoes(stream: &mut Encrypted) {
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let mut back = Vec::new();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        // Half closed: what is on its way still comes.
        write.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(writing, timeout(LIMIT, read.read_to_end(&mut back)));
    read.unwrap().expect("a clean end");
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
}

#[tokio::test]
async fn clients_are_shown_a_certificate_that_is_renewed_while_it_runs() {
    let (supervisor, a, _) = pair().await;
    let dir = tempfile::tempdir().unwrap();
    let config = ends_tls(&a, dir.path(), "cache");
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let shown = config.certificates[0].clone();
    let mut stream = connect(&balancer, &client(&[&shown]), "cache.example").await.unwrap();
    assert_eq!(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap(), b'a');
    echoes(&mut stream).await;
    let ends = balancer.snapshot().certificates;
    assert!(ends.len() == 1 && ends[0].file == shown.chain, "{ends:?}");
    // Somebody who speaks in clear is no client of it, and costs its endpoint nothing.
    let before = balancer.snapshot();
    let mut clear = TcpStream::connect(balancer.local_address()).await.unwrap();
    clear.write_all(b"hello, in clear, and long enough to be no record").await.unwrap();
    let mut all = Vec::new();
    let _ = timeout(LIMIT, clear.read_to_end(&mut all)).await.expect("an end");
    let after = until(&balancer, |it| it.refused == 1).await;
    assert_eq!(after.endpoints[0].served, before.endpoints[0].served);
    // A new one in the same files; the old one is believed no more.
    let old = client(&[&shown]);
    let renewed = issue(dir.path(), "cache", &["cache.example"]);
    balancer.configure(config).unwrap();
    assert!(connect(&balancer, &client(&[&renewed]), "cache.example").await.is_ok());
    assert!(connect(&balancer, &old, "cache.example").await.is_err());
}

#[tokio::test]
async fn endpoints_are_spoken_to_by_tls_and_have_to_prove_their_name() {
    let (supervisor, a, b) = pair().await;
    let dir = tempfile::tempdir().unwrap();
    let inner = ends_tls(&a, dir.path(), "inner");
    let ca = inner.certificates[0].chain.clone();
    let inner = Balancer::open(inner, &supervisor).unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), inner.local_address().port());
    let upstream = Upstream { host, port, weight: 1, far: false, drain: false };
    let tls = |name: &str| UpstreamTls {
        ca: ca.clone(),
        server_name: Some(name.to_owned()),
        certificate: None,
    };
    let encrypted = BalancerConfig {
        upstreams: vec![upstream],
        encrypts: true,
        upstream_tls: Some(tls("cache.example")),
        drain_max: Some(Duration::ZERO),
        ..config(&[])
    };
    let balancer = Balancer::open(encrypted.clone(), &supervisor).unwrap();
    let (from, mut stream) = ask(&balancer).await.unwrap();
    stream.write_all(b"!").await.unwrap();
    assert_eq!((from, timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap()), (b'a', b'!'));
    // Whoever has another name is refused, as if it could not be connected to.
    let wrong = BalancerConfig {
        upstream_tls: Some(tls("other.example")),
        hold_max: Duration::from_millis(150),
        ..encrypted.clone()
    };
    let other = Balancer::open(wrong, &supervisor).unwrap();
    assert_eq!(letter(&other).await, None);
    let failure = other.snapshot().endpoints[0].failure.clone().unwrap();
    assert!(failure.contains("not valid for name"), "{failure}");
    // A door that closes cuts it as one in clear.
    let closes = Balancer::open(encrypted.clone(), &supervisor).unwrap();
    let (_, mut cut) = ask(&closes).await.unwrap();
    assert!(!closes.close(Duration::from_millis(50)).await);
    assert!(super::drain::is_reset(&mut cut).await);
    // So does an endpoint that is listed no more.
    let upstreams = config(&[&b]).upstreams;
    balancer.configure(BalancerConfig { upstreams, ..encrypted }).unwrap();
    assert!(timeout(LIMIT, stream.read_u8()).await.unwrap().is_err());
}

#[tokio::test]
async fn both_sides_are_encrypted_and_the_endpoint_is_told_who_the_client_is() {
    let (supervisor, a, _) = pair().await;
    let dir = tempfile::tempdir().unwrap();
    // It takes the header before TLS, as endpoints do, and refuses who has none.
    let inner = BalancerConfig { accept_proxy: true, ..ends_tls(&a, dir.path(), "inner") };
    let ca = inner.certificates[0].chain.clone();
    let inner = Balancer::open(inner, &supervisor).unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), inner.local_address().port());
    let upstream = Upstream { host, port, weight: 1, far: false, drain: false };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let server_name = Some("cache.example".to_owned());
        let outer = BalancerConfig {
            upstreams: vec![upstream.clone()],
            send_proxy: Some(version),
            encrypts: true,
            upstream_tls: Some(UpstreamTls { ca: ca.clone(), server_name, certificate: None }),
            check: Some(CHECK),
            ..ends_tls(&a, dir.path(), "outer")
        };
        let shown = outer.certificates[0].clone();
        let balancer = Balancer::open(outer, &supervisor).unwrap();
        // Its checks go as far as TLS: without the header they would not come there.
        until(&balancer, |it| it.endpoints[0].condition == Some(Condition::Up)).await;
        let mut stream = connect(&balancer, &client(&[&shown]), "cache.example").await.unwrap();
        assert_eq!(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap(), b'a');
        echoes(&mut stream).await;
    }
}

/// It came before anybody asked for that, and waits.
#[tokio::test]
async fn who_is_held_is_led_as_its_endpoint_wants_it_by_then() {
    let (supervisor, a, _) = pair().await;
    let dir = tempfile::tempdir().unwrap();
    let wants_header = BalancerConfig { accept_proxy: true, ..config(&[&a]) };
    let wants_header = Balancer::open(wants_header, &supervisor).unwrap();
    let ends_tls = ends_tls(&a, dir.path(), "inner");
    let ca = ends_tls.certificates[0].chain.clone();
    let wants_tls = Balancer::open(ends_tls, &supervisor).unwrap();
    let before = |inner: &Balancer| {
        let (host, port) = ("127.0.0.1".to_owned(), inner.local_address().port());
        let upstreams = vec![Upstream { host, port, weight: 1, far: false, drain: false }];
        BalancerConfig { upstreams, ..config(&[]) }
    };
    let says = BalancerConfig { send_proxy: Some(ProxyVersion::V2), ..before(&wants_header) };
    let server_name = Some("cache.example".to_owned());
    let speaks = BalancerConfig {
        encrypts: true,
        upstream_tls: Some(UpstreamTls { ca, server_name, certificate: None }),
        ..before(&wants_tls)
    };
    for wanted in [says, speaks] {
        let balancer = Balancer::open(config(&[]), &supervisor).unwrap();
        let mut held = TcpStream::connect(balancer.local_address()).await.unwrap();
        until(&balancer, |it| it.held == 1).await;
        balancer.configure(wanted).unwrap();
        assert_eq!(timeout(LIMIT, held.read_u8()).await.unwrap().unwrap(), b'a');
        held.write_all(b"!").await.unwrap();
        assert_eq!(timeout(LIMIT, held.read_u8()).await.unwrap().unwrap(), b'!');
    }
}
