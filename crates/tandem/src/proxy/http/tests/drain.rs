//! What becomes of requests and WebSockets at an endpoint that gets no more of them.

use super::balancing::three;
use super::support::*;
use crate::proxy::balancer::{Balancer, BalancerConfig};
use std::time::Duration;

const WEBSOCKET: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

fn drained(config: &BalancerConfig) -> BalancerConfig {
    let mut drained = config.clone();
    drained.upstreams[0].drain = true;
    drained
}

#[tokio::test]
async fn a_websocket_at_a_drained_endpoint_is_cut_after_a_time_and_told() {
    let (supervisor, endpoints) = three().await;
    let drain_max = Some(Duration::from_millis(100));
    let config = BalancerConfig { drain_max, ..config(&[&endpoints[0], &endpoints[1]]) };
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let mut socket = Client::connect(&balancer).await;
    socket.send(WEBSOCKET).await;
    assert!(socket.until("\r\n\r\n").await.unwrap().contains(" 101 "));
    assert_eq!(socket.until("hello").await.as_deref(), Some("hello"));
    socket.send("again").await;
    assert_eq!(socket.until("again").await.as_deref(), Some("again"));
    balancer.configure(drained(&config)).unwrap();
    assert_eq!(socket.rest().await, "");
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    let first = balancer.snapshot().endpoints.remove(0);
    assert_eq!((first.address, first.cut, first.failed), (endpoints[0].address, 1, 0));
    until(|| balancer.cuts().iter().any(|cut| cut.count == 1)).await;
    assert_eq!(get(&balancer, "/").await.body, "b");
}

#[tokio::test]
async fn a_request_that_is_cut_goes_elsewhere_where_it_may_and_is_told_else() {
    let (supervisor, endpoints) = three().await;
    let drain_max = Some(Duration::from_millis(100));
    let config = BalancerConfig { drain_max, ..config(&[&endpoints[0], &endpoints[1]]) };
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    endpoints[0].always("/never");
    let mut may = Client::connect(&balancer).await;
    may.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| endpoints[0].requests() == 1).await;
    assert_eq!(get(&balancer, "/").await.body, "b");
    let mut may_not = Client::connect(&balancer).await;
    may_not.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    until(|| endpoints[0].requests() == 2).await;
    balancer.configure(drained(&config)).unwrap();
    assert_eq!(may.response().await.unwrap().body, "b");
    let told = may_not.response().await.unwrap();
    assert_eq!(told.status(), 503);
    assert!(told.head.contains("\r\nRetry-After: 1\r\n") && told.body.contains("taken out"));
    let first = balancer.snapshot().endpoints.remove(0);
    assert_eq!((first.cut, first.failed, first.in_flight), (2, 0, 0), "it is no failure");
}
