//! What was sent to an owner that is gone waits for nobody.

use super::*;

/// Its copy is dead behind a cut: nothing says so but what is agreed.
#[tokio::test]
async fn what_waits_for_an_owner_that_is_gone_goes_to_the_next_one() {
    let (_supervisor, a, b, balancer) = two().await;
    a.always("/never");
    balancer.route(routes(owned(&a, 1), owned(&b, 1)), &[]);
    let mut many = Vec::new();
    // More than the budget pays for at once.
    for _ in 0..40 {
        many.push(asks(&balancer, "/", "").await);
    }
    let mut once = posts(&balancer, "to be done once").await;
    until(|| a.requests() == 41).await;
    // It was asked back, or is silent: it may answer yet.
    balancer.route(routes(None, owned(&b, 1)), &[]);
    balancer.route(routes(owned(&b, 2), owned(&b, 1)), &[]);
    assert_eq!(asks(&balancer, "/", "").await.response().await.unwrap().body, "b");
    assert_eq!(balancer.snapshot().endpoints[0].in_flight, 41);
    balancer.route(routes(owned(&b, 2), owned(&b, 1)), &[a.address]);
    for client in &mut many {
        assert_eq!(client.response().await.unwrap().body, "b");
    }
    let lost = once.response().await.unwrap();
    assert_eq!(lost.status(), 504, "{}", lost.body);
    assert!(lost.body.contains("the copy of service web that had the request is lost"));
    let a = &balancer.snapshot().endpoints[0];
    assert_eq!((a.in_flight, a.failed, a.cut), (0, 0, 41));
}

/// It is back, and owns the same again: only what it had before is cut.
#[tokio::test]
async fn what_goes_to_the_copy_that_came_after_at_the_same_place_is_not_cut() {
    let (_supervisor, a, b, balancer) = two().await;
    a.always("/never");
    balancer.route(routes(owned(&a, 1), owned(&b, 1)), &[]);
    let mut before = asks(&balancer, "/", "").await;
    until(|| a.requests() == 1).await;
    a.always("");
    balancer.route(routes(owned(&a, 2), owned(&b, 1)), &[a.address]);
    assert_eq!(before.response().await.unwrap().body, "a");
    assert_eq!(a.requests(), 2);
    assert_eq!(balancer.snapshot().endpoints[0].cut, 1);
    a.always("");
    // Nothing goes on a connection that leads to whoever is gone, though it was idle then.
    let kept = a.connections();
    balancer.route(routes(owned(&a, 3), owned(&b, 1)), &[a.address]);
    assert_eq!(asks(&balancer, "/", "").await.response().await.unwrap().body, "a");
    assert_eq!(a.connections(), kept + 1);
}

/// Nobody takes its connects, either: they wait for nobody as well.
#[tokio::test]
async fn what_was_about_to_connect_to_an_owner_that_is_gone_goes_to_the_next_one() {
    let supervisor = Supervisor::new();
    let b = Endpoint::start(&supervisor, 'b').await;
    // Nobody accepts, and all that may wait for that do.
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let full = full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let _first = tokio::net::TcpStream::connect(address).await.unwrap();
    for door in ["http", "tcp"] {
        let mut config = keyed(&[&b]);
        let (host, port) = (address.ip().to_string(), address.port());
        config.upstreams.push(Upstream { host, port, weight: 1, far: false, drain: false });
        config.connect_timeout = LIMIT * 2;
        if door == "tcp" {
            config.http = None;
        }
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let all =
            |at, epoch| vec![Some(Owned { address: at, epoch: Epoch(epoch) }); PARTITIONS as usize];
        balancer.route(all(address, 1), &[]);
        let mut client = asks(&balancer, "/", "").await;
        until(|| balancer.snapshot().endpoints[1].in_flight == 1).await;
        balancer.route(all(b.address, 2), &[address]);
        assert_eq!(client.response().await.unwrap().body, "b", "{door}");
        assert_eq!(balancer.snapshot().endpoints[1].failed, 0, "{door}");
    }
}

/// A connection that stays is no other: nobody says that its other end is gone.
#[tokio::test]
async fn a_connection_ends_when_the_copy_is_gone_that_had_it_though_its_place_owns_the_same() {
    let supervisor = Supervisor::new();
    let a = Endpoint::start(&supervisor, 'a').await;
    let config = BalancerConfig { http: None, ..keyed(&[&a]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let to = |epoch| vec![owned(&a, epoch); PARTITIONS as usize];
    balancer.route(to(1), &[]);
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.get("/").await.unwrap().body, "a");
    // Kept after all: it is the same copy.
    balancer.route(to(2), &[]);
    assert_eq!(client.get("/").await.unwrap().body, "a");
    balancer.route(to(3), &[a.address]);
    assert_eq!(client.rest().await, "");
    assert_eq!(get(&balancer, "/").await.body, "a");
}

/// What has changed to another protocol waits for nobody in the same way.
#[tokio::test]
async fn a_tunnel_to_an_owner_that_is_gone_ends() {
    let (_supervisor, a, b, balancer) = two().await;
    balancer.route(routes(owned(&a, 1), owned(&b, 1)), &[]);
    let mut client = asks(&balancer, "/ws", "Connection: upgrade\r\nUpgrade: websocket\r\n").await;
    assert!(client.until("\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.until("hello").await.as_deref(), Some("hello"));
    balancer.route(routes(owned(&b, 2), owned(&b, 1)), &[]);
    assert_eq!(balancer.snapshot().endpoints[0].in_flight, 1);
    balancer.route(routes(owned(&b, 2), owned(&b, 1)), &[a.address]);
    // Its end is none: what was said may not be all.
    assert_eq!(client.end().await, (String::new(), true));
}
