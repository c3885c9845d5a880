//! Clients that speak TLS: certificates by name, renewed while it runs, refused if they are wrong.

use super::support::*;
use crate::proxy::balancer::Balancer;
use crate::proxy::http::Certificate;
use crate::runtime::supervisor::Supervisor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tandem_core::clustering::load_balanced::rate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Writes a certificate for these names and its key.
pub fn issue(dir: &Path, name: &str, names: &[&str]) -> Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (chain, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Certificate { chain, key }
}

/// A client that believes these certificates.
pub fn client(believed: &[&Certificate]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in believed {
        roots.add(CertificateDer::from_pem_file(&certificate.chain).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub type Encrypted = tokio_rustls::client::TlsStream<TcpStream>;

pub async fn connect(
    balancer: &Balancer,
    client: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<Encrypted> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let tcp = TcpStream::connect(balancer.local_address()).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::clone(client)).connect(name, tcp).await
}

/// What a client that believes these certificates is answered when it asks for a name.
async fn ask(balancer: &Balancer, believed: &[&Certificate], name: &str) -> Option<String> {
    Some(say(connect(balancer, &client(believed), name).await.ok()?).await)
}

async fn say(mut stream: Encrypted) -> String {
    let mut all = String::new();
    for path in ["/head", "/chunked"] {
        let last = if path == "/chunked" { "Connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    timeout(LIMIT, stream.read_to_string(&mut all)).await.unwrap().expect("a clean end");
    all
}

/// They connect, and no more: the door is full of them.
#[tokio::test]
async fn strangers_that_never_shake_hands_make_room() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    let mut config = http(&[&endpoint], |http| {
        http.certificates = vec![shop.clone()];
        http.head_timeout = LIMIT * 10;
    });
    config.sessions_max = 2;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut strangers = [Client::connect(&balancer).await, Client::connect(&balancer).await];
    assert_eq!(strangers[0].rest().await, "", "the one that came first");
    assert!(ask(&balancer, &[&shop], "shop.example").await.is_some());
}

#[tokio::test]
async fn each_name_has_its_certificate_and_they_are_renewed_while_it_runs() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example", "other.example"]);
    let stars = issue(dir.path(), "stars", &["*.stars.example"]);
    let config = http(&[&endpoint], |http| {
        http.certificates = vec![shop.clone(), stars.clone()];
        http.sticky = Some("place".to_owned());
    });
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    for (believed, name, works) in [
        (&shop, "shop.example", true),
        (&shop, "other.example", true),
        (&stars, "a.stars.example", true),
        (&shop, "a.stars.example", false),
        (&stars, "shop.example", false),
    ] {
        let all = ask(&balancer, &[believed], name).await;
        assert_eq!(all.is_some(), works, "{name}");
        if let Some(all) = all {
            assert!(all.contains("X-Forwarded-Proto: https\r\n"), "{all}");
            assert!(all.contains("; SameSite=Lax; Secure\r\n"), "{all}");
            assert!(all.ends_with("0\r\nSum: 7\r\n\r\n"), "{all}");
        }
    }
    // Somebody who speaks in clear is no client of it.
    let mut clear = Client::connect(&balancer).await;
    clear.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(!clear.rest().await.contains("200 OK"));
    let before = shop.clone();
    let old = dir.path().join("old.crt");
    std::fs::copy(&before.chain, &old).unwrap();
    let old = Certificate { chain: old, key: before.key.clone() };
    // A key that is not its own: the one before stays.
    std::fs::copy(&stars.key, &shop.key).unwrap();
    balancer.configure(config.clone()).unwrap();
    assert!(ask(&balancer, &[&old], "shop.example").await.is_some());
    let renewed = issue(dir.path(), "shop", &["shop.example"]);
    balancer.configure(config.clone()).unwrap();
    assert!(ask(&balancer, &[&renewed], "shop.example").await.is_some());
    assert!(ask(&balancer, &[&old], "shop.example").await.is_none());
    let mut clear = config;
    clear.http.as_mut().unwrap().certificates.clear();
    balancer.configure(clear).unwrap();
    assert_eq!(get(&balancer, "/").await.body, "a");
}

/// Nobody applies anything: a program that renews certificates writes files, no more.
#[tokio::test]
async fn what_is_written_anew_is_shown_without_a_word() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let old = issue(dir.path(), "shop", &["shop.example"]);
    let config = http(&[&endpoint], |http| http.certificates = vec![old.clone()]);
    let quick = Duration::from_millis(1);
    let balancer = Balancer::open_and_sweep(config, &supervisor, quick).unwrap();
    // Whoever comes back by a ticket is shown no certificate.
    let mut believed = (*client(&[&old])).clone();
    believed.resumption = rustls::client::Resumption::disabled();
    let believed = Arc::new(believed);
    assert!(connect(&balancer, &believed, "shop.example").await.is_ok());
    let renewed = issue(dir.path(), "shop", &["shop.example"]);
    let begun = Instant::now();
    while connect(&balancer, &believed, "shop.example").await.is_ok() {
        assert!(begun.elapsed() < LIMIT, "the old one is shown for ever");
    }
    assert!(ask(&balancer, &[&renewed], "shop.example").await.is_some());
}

#[tokio::test]
async fn what_is_no_certificate_is_refused_with_words_and_changes_nothing() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (issue(dir.path(), "good", &["a"]), issue(dir.path(), "other", &["a"]));
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let balancer = Balancer::open(config(&[&endpoint]), &supervisor).unwrap();
    for (chain, key, why) in [
        (&good.chain, &other.key, "other.key: not the key of this certificate"),
        (&dir.path().join("none"), &good.key, "none: "),
        (&good.chain, &dir.path().join("none"), "none: "),
        (&garbage, &good.key, "garbage: it is no certificate"),
        (&empty, &good.key, "empty: there is no certificate in it"),
        (&good.key, &good.key, "good.key: there is no certificate in it"),
        (&good.chain, &good.chain, "good.crt: "),
    ] {
        let (chain, key) = (chain.clone(), key.clone());
        let bad = http(&[&endpoint], |http| http.certificates = vec![Certificate { chain, key }]);
        let error = Balancer::open(bad.clone(), &supervisor).unwrap_err().to_string();
        assert!(error.contains("service web: a certificate cannot be used: "), "{error}");
        assert!(error.contains(why) && error.contains("; mend the file"), "{why}: {error}");
        assert_eq!(balancer.configure(bad).unwrap_err().to_string(), error);
    }
    assert_eq!(get(&balancer, "/").await.body, "a");
}

#[tokio::test]
async fn a_ticket_outlasts_the_certificate_that_it_was_given_with() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    let config = http(&[&endpoint], |http| http.certificates = vec![shop.clone()]);
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let client = client(&[&shop]);
    for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let stream = connect(&balancer, &client, "shop.example").await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        say(stream).await;
        // It is another file, and says the same.
        let written = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        let file = std::fs::File::options().write(true).open(&shop.chain).unwrap();
        file.set_modified(written).unwrap();
        balancer.configure(config.clone()).unwrap();
    }
}

/// What it does not take is held back by encryption, where a socket would say so.
#[tokio::test]
async fn a_reply_that_nobody_takes_is_not_waited_for() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let dir = tempfile::tempdir().unwrap();
    let shop = issue(dir.path(), "shop", &["shop.example"]);
    let mut config = http(&[&endpoint], |http| http.certificates = vec![shop.clone()]);
    let hour = std::time::Duration::from_secs(3600);
    config.rates.total = Some(rate::Limit { count: 1, per: hour, burst: 1 });
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut stream = connect(&balancer, &client(&[&shop]), "shop.example").await.unwrap();
    let many = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    // Each is refused, and none of the refusals read, until the door has had enough of it.
    while timeout(LIMIT, stream.write_all(many.as_bytes())).await.expect("an end").is_ok() {}
    until(|| balancer.snapshot().sessions == 0).await;
}
