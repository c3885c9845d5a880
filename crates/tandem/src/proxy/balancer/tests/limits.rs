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
