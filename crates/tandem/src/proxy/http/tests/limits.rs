//! Rates of requests, and how much of what nobody takes is kept.

mod under_way;

use super::support::*;
use crate::proxy::balancer::{Balancer, BalancerConfig};
use crate::runtime::supervisor::Supervisor;
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
