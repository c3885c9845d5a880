//! Drives whole balancers against endpoints that do as they are told.

mod agreed;
mod blame;
mod drain;
mod encrypted;
mod limits;
mod resets;

use super::*;
use crate::proxy::Error;
use crate::runtime::supervisor::Supervisor;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tandem_core::clustering::load_balanced::ejection::{Condition, Limits};
use tandem_core::clustering::load_balanced::rate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// Far more than anything here takes; only a failing test waits for it.
const LIMIT: Duration = Duration::from_secs(20);

/// Says its letter, then echoes. Told to be bad, it drops each connection without a word.
pub(super) struct Endpoint {
    address: SocketAddr,
    bad: Arc<AtomicBool>,
    stop: tokio_util::sync::CancellationToken,
}

impl Endpoint {
    async fn start(supervisor: &Supervisor, letter: u8) -> Self {
        Self::at(supervisor, letter, ([127, 0, 0, 1], 0).into()).await
    }

    async fn at(supervisor: &Supervisor, letter: u8, address: SocketAddr) -> Self {
        let listener = crate::proxy::listener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (bad, stop) = (Arc::new(AtomicBool::new(false)), supervisor.stopping().child_token());
        let run = Self::run(listener, letter, Arc::clone(&bad), supervisor.clone(), stop.clone());
        supervisor.spawn("endpoint", crate::runtime::supervisor::TaskKind::Session, run);
        Self { address, bad, stop }
    }

    async fn run(
        listener: TcpListener,
        letter: u8,
        bad: Arc<AtomicBool>,
        supervisor: Supervisor,
        stop: tokio_util::sync::CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((mut stream, _)) = accepted else { continue };
            if bad.load(Ordering::Relaxed) {
                let zero = Some(Duration::ZERO);
                socket2::SockRef::from(&stream).set_linger(zero).unwrap();
                continue;
            }
            let kind = crate::runtime::supervisor::TaskKind::Session;
            supervisor.spawn("endpoint session", kind, async move {
                let _ = stream.write_all(&[letter]).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    }

    fn upstream(&self) -> Upstream {
        let host = self.address.ip().to_string();
        Upstream { host, port: self.address.port(), weight: 1, far: false, drain: false }
    }
}

pub(super) fn config(endpoints: &[&Endpoint]) -> BalancerConfig {
    BalancerConfig {
        service: ServiceId::new("cache"),
        listen: ([127, 0, 0, 1], 0).into(),
        upstreams: endpoints.iter().map(|endpoint| endpoint.upstream()).collect(),
        policy: Policy::RoundRobin,
        limits: Limits { slow_start: Duration::ZERO, ..Limits::default() },
        check: None,
        rates: rate::Limits::default(),
        hold_max: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(60),
        drain_max: None,
        sessions_max: 100,
        held_max: 100,
        connections_max: 0,
        accept_proxy: false,
        accept_proxy_from: None,
        question: None,
        certificates: Vec::new(),
        encrypts: false,
        upstream_tls: None,
        send_proxy: None,
        partitions: None,
        http: None,
    }
}

const CHECK: Check =
    Check { interval: Duration::from_millis(40), timeout: Duration::from_millis(30) };

/// Waits until something is so.
pub(super) async fn until_true(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < LIMIT, "it did not come to that");
        sleep(Duration::from_millis(2)).await;
    }
}

async fn pair() -> (Supervisor, Endpoint, Endpoint) {
    let supervisor = Supervisor::new();
    let a = Endpoint::start(&supervisor, b'a').await;
    let b = Endpoint::start(&supervisor, b'b').await;
    (supervisor, a, b)
}

/// Connects, and reads who answered; none if the connection ends without an answer.
async fn ask(balancer: &Balancer) -> Option<(u8, TcpStream)> {
    let mut stream = TcpStream::connect(balancer.local_address()).await.unwrap();
    let byte = timeout(LIMIT, stream.read_u8()).await.expect("an answer or an end");
    byte.ok().map(|letter| (letter, stream))
}

async fn letter(balancer: &Balancer) -> Option<u8> {
    ask(balancer).await.map(|(letter, _)| letter)
}

async fn until(balancer: &Balancer, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let begun = Instant::now();
    loop {
        let snapshot = balancer.snapshot();
        if wanted(&snapshot) {
            return snapshot;
        }
        assert!(begun.elapsed() < LIMIT, "{snapshot:?}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn condition(snapshot: &Snapshot, endpoint: &Endpoint) -> Condition {
    let found = snapshot.endpoints.iter().find(|it| it.address == endpoint.address);
    found.unwrap().condition.unwrap()
}

#[tokio::test]
async fn connections_are_spread_and_bytes_are_whole() {
    let (supervisor, a, b) = pair().await;
    let balancer = Balancer::open(config(&[&a, &b]), &supervisor).unwrap();
    let mut count = BTreeMap::new();
    for _ in 0..20 {
        *count.entry(letter(&balancer).await.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(count, BTreeMap::from([(b'a', 10), (b'b', 10)]));
    let (_, mut stream) = ask(&balancer).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut back = Vec::new();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        // Half closed: what is on its way still comes.
        write.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(writing, timeout(LIMIT, read.read_to_end(&mut back)));
    read.unwrap().unwrap();
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    let snapshot = until(&balancer, |it| it.sessions == 0).await;
    assert_eq!(snapshot.accepted, 21);
    assert!(snapshot.endpoints.iter().all(|it| it.in_flight == 0 && it.failed == 0));
}

#[tokio::test]
async fn a_connect_that_fails_is_tried_elsewhere_and_its_endpoint_ejected() {
    let (supervisor, a, b) = pair().await;
    let balancer = Balancer::open(config(&[&a, &b]), &supervisor).unwrap();
    a.stop.cancel();
    until(&balancer, |_| std::net::TcpStream::connect(a.address).is_err()).await;
    for _ in 0..12 {
        assert_eq!(letter(&balancer).await, Some(b'b'));
    }
    let snapshot = balancer.snapshot();
    assert!(matches!(condition(&snapshot, &a), Condition::Ejected(_)), "{snapshot:?}");
    assert_eq!(snapshot.retried, 5, "after that nobody tries it: {snapshot:?}");
    let [bad, good] = &snapshot.endpoints[..] else { panic!("{snapshot:?}") };
    assert_eq!((bad.retried, bad.quantiles, bad.rate_milli), (5, None, 0));
    assert!(good.retried == 0 && good.rate_milli > 0 && good.quantiles.is_some(), "{good:?}");
    assert_eq!(good.histogram.counts.iter().sum::<u64>(), 12);
}

#[tokio::test]
async fn an_endpoint_that_drops_everyone_is_ejected_and_the_last_one_is_not() {
    let (supervisor, a, b) = pair().await;
    // A reset that comes with the handshake is a connect that failed: such a client is held.
    let config = BalancerConfig { hold_max: Duration::from_millis(150), ..config(&[&a, &b]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    a.bad.store(true, Ordering::Relaxed);
    while !matches!(condition(&balancer.snapshot(), &a), Condition::Ejected(_)) {
        letter(&balancer).await;
    }
    b.bad.store(true, Ordering::Relaxed);
    for _ in 0..30 {
        assert_eq!(letter(&balancer).await, None);
    }
    assert_eq!(condition(&balancer.snapshot(), &b), Condition::Up);
    b.bad.store(false, Ordering::Relaxed);
    assert_eq!(letter(&balancer).await, Some(b'b'));
}

#[tokio::test]
async fn checks_find_out_and_clients_are_held_until_somebody_is_back() {
    let (supervisor, a, _) = pair().await;
    let config = BalancerConfig { check: Some(CHECK), ..config(&[&a]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    until(&balancer, |it| condition(it, &a) == Condition::Up).await;
    a.stop.cancel();
    until(&balancer, |it| condition(it, &a) == Condition::Down).await;
    let held = ask(&balancer);
    let back = async {
        until(&balancer, |it| it.held == 1).await;
        Endpoint::at(&supervisor, b'z', a.address).await
    };
    let (held, _back) = tokio::join!(held, back);
    assert_eq!(held.unwrap().0, b'z');
}

#[tokio::test]
async fn a_client_is_held_only_so_long_and_freed_when_it_leaves() {
    let (supervisor, a, _) = pair().await;
    a.stop.cancel();
    let brief = Duration::from_millis(300);
    let config = BalancerConfig { check: Some(CHECK), hold_max: brief, ..config(&[&a]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    until(&balancer, |it| condition(it, &a) == Condition::Down).await;
    assert_eq!(letter(&balancer).await, None);
    assert_eq!(balancer.snapshot().expired, 1);
    let left = TcpStream::connect(balancer.local_address()).await.unwrap();
    until(&balancer, |it| it.held == 1).await;
    drop(left);
    let snapshot = until(&balancer, |it| it.sessions == 0).await;
    assert_eq!((snapshot.held, snapshot.expired), (0, 1));
}

#[tokio::test]
async fn a_drained_endpoint_keeps_its_connections_and_gets_no_others() {
    let (supervisor, a, b) = pair().await;
    let balancer = Balancer::open(config(&[&a, &b]), &supervisor).unwrap();
    let (letter_before, mut before) = ask(&balancer).await.unwrap();
    assert_eq!(letter_before, b'a');
    let mut drained = config(&[&a, &b]);
    drained.upstreams[0].drain = true;
    balancer.configure(drained).unwrap();
    for _ in 0..6 {
        assert_eq!(letter(&balancer).await, Some(b'b'));
    }
    before.write_all(b"!").await.unwrap();
    assert_eq!(timeout(LIMIT, before.read_u8()).await.unwrap().unwrap(), b'!');
    let snapshot = balancer.snapshot();
    assert_eq!(condition(&snapshot, &a), Condition::Draining);
    assert_eq!(snapshot.endpoints[0].in_flight, 1, "what is left is shown");
    balancer.configure(config(&[&a, &b])).unwrap();
    let letters = [letter(&balancer).await, letter(&balancer).await];
    assert!(letters.contains(&Some(b'a')), "{letters:?}");
}

#[tokio::test]
async fn names_are_resolved_and_wrong_ones_keep_nobody_from_work() {
    let (supervisor, a, _) = pair().await;
    let named = Upstream { host: "localhost".into(), ..a.upstream() };
    let wrong = Upstream { host: "no-such-host.invalid".into(), ..a.upstream() };
    let config = BalancerConfig { upstreams: vec![wrong, named], ..config(&[&a]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    assert_eq!(letter(&balancer).await, Some(b'a'), "held until the name was answered");
}

#[tokio::test]
async fn the_proxy_protocol_passes_on_who_the_client_is() {
    let supervisor = Supervisor::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (host, port) = ("127.0.0.1".to_owned(), address.port());
        let upstream = Upstream { host, port, weight: 1, far: false, drain: false };
        let config = BalancerConfig {
            accept_proxy: true,
            send_proxy: Some(version),
            upstreams: vec![upstream],
            ..config(&[])
        };
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let mut client = TcpStream::connect(balancer.local_address()).await.unwrap();
        client.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\nhello").await.unwrap();
        let (mut server, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        let wanted =
            header::write(version, "192.0.2.7:5000".parse().unwrap(), balancer.local_address());
        let mut got = vec![0; wanted.len() + 5];
        timeout(LIMIT, server.read_exact(&mut got)).await.unwrap().unwrap();
        assert_eq!(got, [&wanted[..], b"hello"].concat());
        let mut stranger = TcpStream::connect(balancer.local_address()).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(timeout(LIMIT, stranger.read_u8()).await.unwrap().is_err());
        assert_eq!(balancer.snapshot().refused, 1);
    }
}

#[tokio::test]
async fn bounds_hold() {
    let (supervisor, a, _) = pair().await;
    let brief = Duration::from_millis(100);
    let config = BalancerConfig { sessions_max: 1, idle_timeout: brief, ..config(&[&a]) };
    let taken = config.clone();
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let (_, mut first) = ask(&balancer).await.unwrap();
    assert_eq!(letter(&balancer).await, None, "one is the limit");
    assert_eq!(balancer.snapshot().refused, 1);
    assert!(timeout(LIMIT, first.read_u8()).await.unwrap().is_err(), "idle for too long");
    let clash = BalancerConfig { listen: balancer.local_address(), ..taken };
    assert!(matches!(Balancer::open(clash, &supervisor), Err(Error::Listen { .. })));
    assert!(balancer.close(LIMIT).await);
}

#[tokio::test]
async fn every_part_changes_and_no_connection_ends() {
    let (supervisor, a, b) = pair().await;
    let balancer = Balancer::open(config(&[&a]), &supervisor).unwrap();
    let before = balancer.local_address();
    let (_, mut kept) = ask(&balancer).await.unwrap();
    // Its endpoint goes, the door moves, and all the rest is new.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let new = BalancerConfig {
        listen: free,
        policy: Policy::LeastConnections,
        check: Some(CHECK),
        sessions_max: 7,
        idle_timeout: Duration::from_secs(30),
        ..config(&[&b])
    };
    balancer.configure(new.clone()).unwrap();
    assert_eq!(balancer.local_address(), free);
    for _ in 0..4 {
        assert_eq!(letter(&balancer).await, Some(b'b'));
    }
    kept.write_all(b"!").await.unwrap();
    assert_eq!(timeout(LIMIT, kept.read_u8()).await.unwrap().unwrap(), b'!');
    until(&balancer, |_| std::net::TcpStream::connect(before).is_err()).await;
    let snapshot = balancer.snapshot();
    assert_eq!(snapshot.policy, "least-connections");
    let [listed, gone] = &snapshot.endpoints[..] else { panic!("{snapshot:?}") };
    assert_eq!((listed.address, listed.in_flight), (b.address, 0));
    let left = (gone.address, gone.condition, gone.in_flight, gone.share_percent);
    assert_eq!(left, (a.address, None, 1, 0), "what is left is shown");
    // Listed again, it is the same with what it has.
    balancer
        .configure(BalancerConfig { upstreams: config(&[&a, &b]).upstreams, ..new.clone() })
        .unwrap();
    until(&balancer, |it| it.endpoints.len() == 2 && it.endpoints[0].in_flight == 1).await;
    balancer.configure(new.clone()).unwrap();
    drop(kept);
    until(&balancer, |it| it.endpoints.len() == 1).await;
    // An address that cannot be had changes nothing.
    let taken = BalancerConfig { listen: a.address, policy: Policy::Random, ..new };
    assert!(matches!(balancer.configure(taken), Err(Error::Listen { .. })));
    assert_eq!(balancer.snapshot().policy, "least-connections");
    assert_eq!(letter(&balancer).await, Some(b'b'));
}

/// INV-14: who was told that nobody is sent to an endpoint any more rests on it.
#[tokio::test]
async fn a_drain_outlives_every_other_change_and_what_fails() {
    let (supervisor, a, b) = pair().await;
    let balancer = Balancer::open(config(&[&a, &b]), &supervisor).unwrap();
    let mut drained = config(&[&a, &b]).upstreams;
    drained[0].drain = true;
    balancer.lead(drained);
    assert_eq!(condition(&balancer.snapshot(), &a), Condition::Draining, "at once");
    let other = BalancerConfig { sessions_max: 7, ..config(&[]) };
    balancer.configure_rest(other.clone()).unwrap();
    assert_eq!(condition(&balancer.snapshot(), &a), Condition::Draining);
    let taken = BalancerConfig { listen: a.address, ..other };
    assert!(matches!(balancer.configure_rest(taken), Err(Error::Listen { .. })));
    for _ in 0..4 {
        assert_eq!(letter(&balancer).await, Some(b'b'));
    }
    balancer.lead(config(&[&a]).upstreams);
    assert_eq!(letter(&balancer).await, Some(b'a'));
}
