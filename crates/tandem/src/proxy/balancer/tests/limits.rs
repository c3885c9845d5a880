//! Rates of connections.

use super::*;

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
