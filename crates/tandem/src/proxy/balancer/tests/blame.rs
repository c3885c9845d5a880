//! Whose fault it is that a connection ends, where one side or both are encrypted: as in clear.

use super::*;
use crate::proxy::balancer::UpstreamTls;
use crate::proxy::http::tests::tls::{client, connect, issue};
use crate::runtime::supervisor::TaskKind;

/// How a client goes.
#[derive(Clone, Copy, Debug)]
enum Goes {
    Reset,
    /// It closes its connection, and ends no encryption before.
    Bare,
}

/// Takes connections and says nothing; closes each that was spoken to after `closes_after`.
async fn silent(supervisor: &Supervisor, closes_after: Duration) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
    let own = supervisor.clone();
    supervisor.spawn("silent endpoint", TaskKind::Session, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            own.spawn("silent session", TaskKind::Session, async move {
                if stream.read_u8().await.is_ok() {
                    sleep(closes_after).await;
                }
            });
        }
    });
    Upstream { host, port, weight: 1, far: false, drain: false }
}

fn before(upstream: Upstream) -> BalancerConfig {
    BalancerConfig { upstreams: vec![upstream], ..config(&[]) }
}

async fn go(mut tcp: TcpStream, how: Goes) {
    match how {
        Goes::Reset => {
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
        }
        // What was not read would make it a reset.
        Goes::Bare => tcp.shutdown().await.unwrap(),
    }
}

/// So many had the endpoint, and none of them is there any more.
async fn had(balancer: &Balancer, served: u64) {
    until(balancer, |it| it.endpoints[0].served == served && it.sessions == 0).await;
}

#[tokio::test]
async fn who_connects_and_goes_says_nothing_against_the_endpoint() {
    let supervisor = Supervisor::new();
    let dir = tempfile::tempdir().unwrap();
    let shown = issue(dir.path(), "cache", &["cache.example"]);
    let ends_tls = BalancerConfig {
        certificates: vec![shown.clone()],
        ..before(silent(&supervisor, Duration::ZERO).await)
    };
    let inner = Balancer::open(ends_tls.clone(), &supervisor).unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), inner.local_address().port());
    let server_name = Some("cache.example".to_owned());
    let encrypts = BalancerConfig {
        encrypts: true,
        upstream_tls: Some(UpstreamTls { ca: shown.chain.clone(), server_name, certificate: None }),
        ..before(Upstream { host, port, weight: 1, far: false, drain: false })
    };
    for (config, is_encrypted) in [(ends_tls, true), (encrypts, false)] {
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let mut count = 0;
        for how in [Goes::Reset, Goes::Bare] {
            for _ in 0..5 {
                count += 1;
                let tcp = if is_encrypted {
                    let stream = connect(&balancer, &client(&[&shown]), "cache.example").await;
                    stream.unwrap().into_inner().0
                } else {
                    TcpStream::connect(balancer.local_address()).await.unwrap()
                };
                until(&balancer, |it| it.endpoints[0].served == count).await;
                go(tcp, how).await;
                had(&balancer, count).await;
            }
        }
        let endpoint = &balancer.snapshot().endpoints[0];
        assert_eq!(endpoint.condition, Some(Condition::Up), "{endpoint:?}");
        assert_eq!((endpoint.failed, endpoint.ejected), (0, 0), "{endpoint:?}");
    }
}

#[tokio::test]
async fn who_was_spoken_to_and_closes_without_a_word_did_no_work() {
    let supervisor = Supervisor::new();
    let dir = tempfile::tempdir().unwrap();
    let shown = issue(dir.path(), "cache", &["cache.example"]);
    for certificates in [Vec::new(), vec![shown.clone()]] {
        let endpoint = silent(&supervisor, Duration::from_millis(1200)).await;
        let is_encrypted = !certificates.is_empty();
        let config = BalancerConfig { certificates, ..before(endpoint) };
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let said = if is_encrypted {
            let mut stream = connect(&balancer, &client(&[&shown]), "cache.example").await.unwrap();
            stream.write_all(b"?").await.unwrap();
            timeout(LIMIT, stream.read_u8()).await.expect("an end")
        } else {
            let mut stream = TcpStream::connect(balancer.local_address()).await.unwrap();
            stream.write_all(b"?").await.unwrap();
            timeout(LIMIT, stream.read_u8()).await.expect("an end")
        };
        assert!(said.is_err());
        until(&balancer, |it| it.endpoints[0].failed == 1).await;
    }
}

/// What the system does for the socket that leads to an address; 2: it asks whether somebody is
/// there.
fn timer_of(to: u16) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let there = format!("0100007F:{to:04X}");
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let own = rows.into_iter().find(|row| row.get(2) == Some(&there.as_str()) && row[3] == "01");
    own.map(|row| row[5].split(':').next().unwrap_or_default().to_owned())
}

/// A machine that has lost its power says nothing, not even that.
#[tokio::test]
async fn whether_a_silent_endpoint_is_still_there_is_asked() {
    let supervisor = Supervisor::new();
    let dir = tempfile::tempdir().unwrap();
    let shown = issue(dir.path(), "cache", &["cache.example"]);
    let endpoint = silent(&supervisor, Duration::ZERO).await;
    let port = endpoint.port;
    let config = BalancerConfig { certificates: vec![shown.clone()], ..before(endpoint) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let _kept = connect(&balancer, &client(&[&shown]), "cache.example").await.unwrap();
    until(&balancer, |it| it.endpoints[0].served == 1).await;
    until_true(|| timer_of(port).as_deref() == Some("02")).await;
}
