//! Connections to endpoints that are told who the client is: one client's, and gone with it.

use super::super::h2::client::{H2, get};
use super::*;

/// A door that wants to be told who its clients are, and one before it that tells it.
fn pair(
    supervisor: &Supervisor,
    endpoint: &Endpoint,
    change: impl FnOnce(&mut crate::proxy::http::HttpConfig),
) -> (Balancer, Balancer) {
    let inner = BalancerConfig { accept_proxy: true, ..config(&[endpoint]) };
    let inner = Balancer::open(inner, supervisor).unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), inner.local_address().port());
    let upstream = Upstream { host, port, weight: 1, far: false, drain: false };
    let mut outer = BalancerConfig {
        send_proxy: Some(ProxyVersion::V2),
        upstreams: vec![upstream],
        ..http(&[], change)
    };
    outer.sessions_max = 100;
    (Balancer::open(outer, supervisor).unwrap(), inner)
}

#[tokio::test]
async fn what_an_endpoint_has_for_a_client_goes_with_the_client() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let (balancer, inner) = pair(&supervisor, &endpoint, |http| http.idle_timeout = HOUR);
    for _ in 0..20 {
        let mut client = Client::connect(&balancer).await;
        assert_eq!(client.get("/").await.unwrap().body, "a");
    }
    let client = H2::connect(&supervisor, &balancer).await;
    for _ in 0..3 {
        assert_eq!(client.ask(get("/")).await.unwrap().status, 200);
    }
    drop(client);
    until(|| balancer.snapshot().sessions == 0).await;
    until(|| inner.snapshot().sessions == 0).await;
    assert_eq!(inner.snapshot().refused, 0);
}

#[tokio::test]
async fn an_endpoint_has_no_more_idle_connections_than_it_may_however_many_clients_there_are() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let (balancer, inner) = pair(&supervisor, &endpoint, |http| {
        (http.idle_timeout, http.idle_max) = (HOUR, 2);
    });
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&balancer).await;
        assert_eq!(client.get("/").await.unwrap().body, "a");
        clients.push(client);
    }
    until(|| inner.snapshot().sessions == 2).await;
    // The oldest went: the last two have theirs.
    for client in clients.iter_mut().skip(3) {
        assert_eq!(client.get("/").await.unwrap().body, "a");
    }
    assert_eq!(inner.snapshot().accepted, 5);
}

/// It came before anybody asked for that, and waits.
#[tokio::test]
async fn who_is_held_is_led_as_its_endpoint_wants_it_by_then() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let (balancer, inner) = pair(&supervisor, &endpoint, |_| {});
    let wanted = BalancerConfig {
        send_proxy: Some(ProxyVersion::V2),
        upstreams: vec![Upstream {
            host: "127.0.0.1".to_owned(),
            port: inner.local_address().port(),
            weight: 1,
            far: false,
            drain: false,
        }],
        ..config(&[])
    };
    drop(balancer);
    let balancer = Balancer::open(config(&[]), &supervisor).unwrap();
    let mut held = Client::connect(&balancer).await;
    held.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until(|| balancer.snapshot().held == 1).await;
    balancer.configure(wanted).unwrap();
    assert_eq!(held.response().await.unwrap().body, "a");
    // The next one finds its connection.
    assert_eq!(held.get("/").await.unwrap().body, "a");
    assert_eq!((inner.snapshot().accepted, inner.snapshot().refused), (1, 0));
}
