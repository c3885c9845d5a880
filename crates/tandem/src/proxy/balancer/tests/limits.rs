//! Bounds: rates, places, connects that are tried again, and whose word counts.

use super::*;
use crate::proxy::http::tests::tls::{client, connect};

fn limited(a: &Endpoint, per_client: Option<u32>, total: Option<u32>) -> BalancerConfig {
    let limit = |count| rate::Limit { count, per: Duration::from_secs(3600), burst: count };
    let limits = rate::Limits { per_client: per_client.map(limit), total: total.map(limit) };
    BalancerConfig { rates: limits, accept_proxy: true, ..config(&[a]) }
}

/// What a client with an address gets.
async fn from(balancer: &Balancer, ip: &str) -> Option<u8> {
    let mut stream = TcpStream::connect(balancer.local_address()).await.unwrap();
    let family = if ip.contains(':') { "TCP6" } else { "TCP4" };
    let line = format!("PROXY {family} {ip} {ip} 1 1\r\n");
    stream.write_all(line.as_bytes()).await.unwrap();
    timeout(LIMIT, stream.read_u8()).await.unwrap().ok()
}

#[tokio::test]
async fn a_client_over_its_rate_is_closed_and_nobody_else() {
    let (supervisor, a, _) = pair().await;
    let balancer = Balancer::open(limited(&a, Some(2), None), &supervisor).unwrap();
    for ip in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        assert_eq!([from(&balancer, ip).await, from(&balancer, ip).await], [Some(b'a'); 2]);
        assert_eq!(from(&balancer, ip).await, None, "{ip}");
    }
    assert_eq!(from(&balancer, "2001:db8::ffff").await, None, "the same network is one client");
    assert_eq!(from(&balancer, "2001:db8:0:1::1").await, Some(b'a'));
    assert_eq!(balancer.snapshot().limited, [4, 0]);
    // Other rates count at once.
    balancer.configure(limited(&a, None, Some(1))).unwrap();
    assert_eq!(from(&balancer, "192.0.2.1").await, Some(b'a'));
    assert_eq!(from(&balancer, "192.0.2.9").await, None);
    assert_eq!(balancer.snapshot().limited, [4, 1]);
    balancer.configure(limited(&a, None, None)).unwrap();
    assert_eq!(from(&balancer, "192.0.2.9").await, Some(b'a'));
}

#[tokio::test]
async fn an_endpoint_has_no_more_connections_than_it_may_and_the_others_wait_in_turn() {
    let (supervisor, a, _) = pair().await;
    let config = BalancerConfig { connections_max: 1, held_max: 2, ..config(&[&a]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let (_, mut last) = ask(&balancer).await.unwrap();
    let mut waiting = Vec::new();
    for nth in 1..=2 {
        waiting.push(TcpStream::connect(balancer.local_address()).await.unwrap());
        until(&balancer, |it| it.held == nth).await;
    }
    assert_eq!(letter(&balancer).await, None, "more may not wait");
    assert_eq!(balancer.snapshot().expired, 1);
    for mut next in waiting {
        assert_eq!(balancer.snapshot().endpoints[0].in_flight, 1);
        last.shutdown().await.unwrap();
        assert_eq!(timeout(LIMIT, next.read_u8()).await.unwrap().unwrap(), b'a');
        last = next;
    }
    assert_eq!(balancer.snapshot().held, 0);
}

/// A port that nobody listens at, and stays free.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// H43: a client that is held costs its endpoint a few connects, however many are: they would be
/// the load that keeps it from coming back.
#[tokio::test]
async fn connects_are_tried_again_within_a_budget_and_all_go_once_somebody_is_there() {
    const CLIENTS: u32 = 200;
    let supervisor = Supervisor::new();
    let address = nobody();
    let (host, port) = (address.ip().to_string(), address.port());
    let upstream = Upstream { host, port, weight: 1, far: false, drain: false };
    let config = BalancerConfig {
        upstreams: vec![upstream],
        hold_max: LIMIT,
        sessions_max: 1000,
        held_max: 1000,
        ..config(&[])
    };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(TcpStream::connect(balancer.local_address()).await.unwrap());
    }
    until(&balancer, |it| it.held == u64::from(CLIENTS)).await;
    // They go on, for as long as it takes to see how fast.
    until(&balancer, |it| it.retried >= u64::from(CLIENTS) + 25).await;
    let (failed, seconds) = (balancer.snapshot().retried, begun.elapsed().as_secs() + 1);
    let budget = 10 + 10 * seconds;
    assert!(failed >= u64::from(CLIENTS), "each tries once: {failed}");
    assert!(failed <= u64::from(CLIENTS) + budget, "{failed} connects in {seconds} s");
    let _a = Endpoint::at(&supervisor, b'a', address).await;
    for mut client in clients {
        assert_eq!(timeout(LIMIT, client.read_u8()).await.unwrap().unwrap(), b'a');
    }
    assert_eq!(balancer.snapshot().expired, 0);
}

/// They connect, and no more: the door is full of them.
#[tokio::test]
async fn strangers_that_say_nothing_make_room() {
    let (supervisor, a, _) = pair().await;
    let dir = tempfile::tempdir().unwrap();
    let named = BalancerConfig { accept_proxy: true, ..config(&[&a]) };
    for door in [named, encrypted::ends_tls(&a, dir.path(), "shop")] {
        let certificate = door.certificates.first().cloned();
        let config = BalancerConfig { sessions_max: 2, ..door };
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let stranger = || TcpStream::connect(balancer.local_address());
        let mut strangers = [stranger().await.unwrap(), stranger().await.unwrap()];
        assert!(timeout(LIMIT, strangers[0].read_u8()).await.unwrap().is_err(), "it came first");
        assert_eq!(balancer.snapshot().refused, 0, "its own time is not over");
        match certificate {
            None => assert_eq!(from(&balancer, "192.0.2.1").await, Some(b'a')),
            Some(shown) => {
                let believes = client(&[&shown]);
                let stream = connect(&balancer, &believes, "cache.example").await;
                assert_eq!(timeout(LIMIT, stream.unwrap().read_u8()).await.unwrap().unwrap(), b'a');
            }
        }
    }
}

/// Connects from an address of this machine.
async fn connect_from(ip: &str, balancer: &Balancer) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
    socket.connect(balancer.local_address()).await.unwrap()
}

#[tokio::test]
async fn only_those_who_are_named_say_who_their_clients_are() {
    let supervisor = Supervisor::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
    let config = BalancerConfig {
        accept_proxy: true,
        accept_proxy_from: Some(vec!["127.0.0.2".parse().unwrap()]),
        send_proxy: Some(ProxyVersion::V1),
        upstreams: vec![Upstream { host, port, weight: 1, far: false, drain: false }],
        ..config(&[])
    };
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
    // What arrives of a client that says so, up to the end of the second line.
    let arrives = async |ip: &str| {
        let mut client = connect_from(ip, &balancer).await;
        client.write_all(&[&header[..], b"hello\r\n"].concat()).await.unwrap();
        let (server, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(server));
        let first = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        let second = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        (first.split(' ').nth(2).unwrap().to_owned(), second)
    };
    let said = String::from_utf8_lossy(header).trim_end().to_owned();
    assert_eq!(arrives("127.0.0.2").await, ("192.0.2.7".to_owned(), "hello".to_owned()));
    assert_eq!(arrives("127.0.0.1").await, ("127.0.0.1".to_owned(), said), "that is no header");
    // Who is named must say it.
    let mut silent = connect_from("127.0.0.2", &balancer).await;
    silent.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(timeout(LIMIT, silent.read_u8()).await.unwrap().is_err());
    assert_eq!(balancer.snapshot().refused, 1);
    // From the next connection on, nobody, or everybody.
    for (named, who) in [(Some(Vec::new()), "127.0.0.1"), (None, "192.0.2.7")] {
        balancer.configure(BalancerConfig { accept_proxy_from: named, ..config.clone() }).unwrap();
        assert_eq!(arrives("127.0.0.1").await.0, who);
    }
}
