//! How responses, connections and waits end, and what each side is told by that.

use super::balancing::three;
use super::faults::{dead, pair};
use super::support::*;
use crate::proxy::balancer::{Balancer, BalancerConfig, Snapshot};
use crate::runtime::supervisor::Supervisor;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

#[tokio::test]
async fn a_response_that_broke_never_looks_whole() {
    let (supervisor, a, _) = pair().await;
    let balancer = Balancer::open(config(&[&a]), &supervisor).unwrap();
    for (verb, version, broke) in [
        ("/until-close", "1.1", false),
        ("/break", "1.1", true),
        ("/break", "1.0", true),
        ("/chunked", "1.0", false),
        ("/break-chunked", "1.0", true),
    ] {
        let mut client = Client::connect(&balancer).await;
        client.send(format!("GET {verb} HTTP/{version}\r\nHost: shop\r\n\r\n")).await;
        let (all, is_reset) = client.end().await;
        assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{verb} {version}: {all}");
        assert_eq!(is_reset, broke, "{verb} {version}: {all}");
    }
}

#[tokio::test]
async fn what_a_door_that_closes_cuts_never_looks_whole() {
    let (supervisor, a, _) = pair().await;
    let balancer = Balancer::open(config(&[&a]), &supervisor).unwrap();
    let mut answer = Client::connect(&balancer).await;
    answer.send("GET /slow-end HTTP/1.1\r\nHost: a\r\n\r\n").await;
    answer.until("half").await.unwrap();
    let mut socket = Client::connect(&balancer).await;
    socket.send(WEBSOCKET).await;
    socket.until("hello").await.unwrap();
    // One that it has all of, and reads late: no reset may take it away.
    let mut late = Client::connect(&balancer).await;
    late.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(late.stream.peek(&mut [0]).await.unwrap(), 1);
    assert!(!balancer.close(Duration::from_millis(50)).await);
    assert!(answer.end().await.1 && socket.end().await.1, "an end");
    let (all, is_reset) = late.end().await;
    assert!(all.ends_with("\r\n\r\na") && !is_reset, "{all}");
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
}

#[tokio::test]
async fn who_leaves_while_it_is_held_is_not_served_later() {
    let (supervisor, a, _) = pair().await;
    let mut config = config(&[&a]);
    config.upstreams[0].port = dead().port();
    config.hold_max = LIMIT * 10;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    // The second one was sent ahead, and stays unread.
    client.send("POST /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| balancer.snapshot().held == 1).await;
    drop(client);
    until(|| balancer.snapshot().sessions == 0).await;
    assert_eq!(balancer.snapshot().http.unwrap().abandoned, 1);
}

#[tokio::test]
async fn who_waits_for_an_endpoint_that_gets_no_more_work_goes_to_another_at_once() {
    let (supervisor, mut a, b) = pair().await;
    let (address, _waiting, _socket) = unreachable().await;
    a.address = address;
    let (connect_timeout, hold_max) = (LIMIT * 10, LIMIT * 10);
    let config = BalancerConfig { connect_timeout, hold_max, ..config(&[&a, &b]) };
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nno").await;
    until(|| balancer.snapshot().endpoints[0].in_flight == 1).await;
    let mut drained = config;
    drained.upstreams[0].drain = true;
    balancer.configure(drained).unwrap();
    assert_eq!(client.response().await.unwrap().body, "b");
    let Snapshot { endpoints, retried, .. } = balancer.snapshot();
    assert_eq!((endpoints[0].failed, retried), (0, 0), "it did nothing wrong");
}

/// What a copy said that is gone may be a whole answer.
#[tokio::test]
async fn an_answer_that_is_at_the_door_gets_to_a_client_that_is_slow() {
    let (supervisor, a, b) = pair().await;
    let mut config = config(&[&a, &b]);
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("GET /big HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!(client.stream.peek(&mut [0]).await.unwrap(), 1);
    config.upstreams[0].drain = true;
    balancer.configure(config).unwrap();
    let led = [a.address, b.address].into();
    for _ in 0..3 {
        balancer.cut_elsewhere(b.address, &led);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(client.response().await.unwrap().body.len(), 30_000_000);
}

#[tokio::test]
async fn who_reads_nothing_through_a_tunnel_is_idle() {
    let (supervisor, a, _) = pair().await;
    let mut config = config(&[&a]);
    config.idle_timeout = Duration::from_millis(300);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(head).await;
    client.until("hello").await.unwrap();
    // What it sends comes back, and it takes none of it, until nothing moves any more.
    let piece = vec![b'x'; 100_000];
    while timeout(LIMIT, client.stream.write_all(&piece)).await.expect("an end").is_ok() {}
    until(|| balancer.snapshot().sessions == 0).await;
}

#[tokio::test]
async fn a_method_that_an_endpoint_does_not_know_is_not_its_fault() {
    let (supervisor, a, b) = pair().await;
    let balancer = Balancer::open(config(&[&a, &b]), &supervisor).unwrap();
    a.always("/501");
    let mut client = Client::connect(&balancer).await;
    for _ in 0..20 {
        client.get("/").await.unwrap();
    }
    let endpoint = &balancer.snapshot().endpoints[0];
    assert_eq!((endpoint.condition, endpoint.failed), (Some(Condition::Up), 0));
}

#[tokio::test]
async fn who_still_sends_gets_its_refusal() {
    let (supervisor, a, _) = pair().await;
    let config = http(&[&a], |http| http.body_bytes_max = 3);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    // More than any socket keeps: it is read only once all was sent.
    let length = 30_000_000;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    client.send(vec![b'x'; length]).await;
    assert_eq!(client.response().await.unwrap().status(), 413);
}

#[tokio::test]
async fn an_empty_line_after_a_body_begins_no_request() {
    let (supervisor, a, _) = pair().await;
    let config = http(&[&a], |http| {
        http.head_timeout = Duration::from_millis(100);
        http.keep_alive = Duration::from_millis(500);
    });
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n";
    for _ in 0..2 {
        client.send(post).await;
        assert_eq!(client.response().await.unwrap().body, "x");
    }
    assert_eq!(client.rest().await, "", "it was idle, and not slow");
}

#[tokio::test]
async fn what_lasts_too_long_before_anybody_took_it_is_told_when() {
    let supervisor = Supervisor::new();
    let mut config = http(&[], |http| http.total_timeout = Some(Duration::from_millis(200)));
    config.hold_max = LIMIT;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let response = get(&balancer, "/").await;
    assert_eq!(response.status(), 504);
    assert!(response.body.contains("no endpoint of service web had taken"), "{response:?}");
    assert_eq!(balancer.snapshot().http.unwrap().timed_out, 1);
}

/// A listener whose queue is full: connects to it are neither taken nor refused.
fn black_hole() -> (std::net::SocketAddr, Vec<socket2::Socket>) {
    let socket = |_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = socket(0).unwrap();
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut all = vec![listener];
    for at in 0..3 {
        let filler = socket(at).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address.into());
        all.push(filler);
    }
    (address, all)
}

#[tokio::test]
async fn a_connect_lasts_no_longer_than_the_client_waits() {
    let (supervisor, a, _) = pair().await;
    let (address, _full) = black_hole();
    let brief = Duration::from_millis(200);
    for is_total in [false, true] {
        let mut config = http(&[&a], |http| http.total_timeout = is_total.then_some(brief));
        config.upstreams[0].port = address.port();
        config.connect_timeout = LIMIT * 10;
        config.hold_max = if is_total { LIMIT * 10 } else { brief };
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let status = get(&balancer, "/").await.status();
        assert_eq!(status, if is_total { 504 } else { 503 });
    }
    let mut config = config(&[&a]);
    config.upstreams[0].port = address.port();
    (config.connect_timeout, config.hold_max) = (LIMIT * 10, LIMIT * 10);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until(|| balancer.snapshot().endpoints[0].in_flight == 1).await;
    drop(client);
    until(|| balancer.snapshot().sessions == 0).await;
}

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
    // Its end is none: what was said may not be all.
    assert_eq!(socket.end().await, (String::new(), true));
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    let first = balancer.snapshot().endpoints.remove(0);
    assert_eq!((first.address, first.cut, first.failed), (endpoints[0].address, 1, 0));
    until(|| balancer.cuts().iter().any(|cut| cut.count == 1)).await;
    assert_eq!(get(&balancer, "/").await.body, "b");
}

#[tokio::test]
async fn a_websocket_that_is_silent_for_too_long_ends_by_no_end() {
    let (supervisor, endpoints) = three().await;
    let idle_timeout = Duration::from_millis(100);
    let config = BalancerConfig { idle_timeout, ..config(&[&endpoints[0]]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut socket = Client::connect(&balancer).await;
    socket.send(WEBSOCKET).await;
    assert_eq!(socket.until("hello").await.map(|it| it.ends_with("hello")), Some(true));
    assert_eq!(socket.end().await, (String::new(), true));
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
    // It may have been done: nobody is told to try again.
    assert_eq!(told.status(), 504);
    assert!(!told.head.contains("Retry-After") && told.body.contains("taken out"), "{told:?}");
    assert_eq!(balancer.snapshot().http.unwrap().broken, 0);
    let first = balancer.snapshot().endpoints.remove(0);
    assert_eq!((first.cut, first.failed, first.in_flight), (2, 0, 0), "it is no failure");
}

#[tokio::test]
async fn a_request_that_is_cut_has_as_long_to_find_another_endpoint_as_a_new_one() {
    let (supervisor, endpoints) = three().await;
    // Far less than it had before it was cut; only a connect that is there at once would do.
    let (drain_max, hold_max) = (Some(Duration::from_millis(300)), Duration::from_millis(200));
    let config = config(&[&endpoints[0], &endpoints[1]]);
    let config = BalancerConfig { drain_max, hold_max, ..config };
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    endpoints[0].always("/never");
    let mut client = Client::connect(&balancer).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| endpoints[0].requests() == 1).await;
    balancer.configure(drained(&config)).unwrap();
    assert_eq!(client.response().await.unwrap().body, "b");
}
