//! What goes through: bodies, trailers, interim responses, other protocols, connections kept.

use super::support::*;
use crate::proxy::balancer::Balancer;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn connections_are_kept_on_both_sides_and_pipelined_requests_are_served_in_turn() {
    let (_supervisor, endpoint, balancer) = one().await;
    let mut client = Client::connect(&balancer).await;
    for _ in 0..5 {
        let response = client.get("/").await.unwrap();
        assert_eq!(response.head, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(response.body, "a");
    }
    let one = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
    let post = "POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody";
    client.send([one, post, one, post].concat()).await;
    for wanted in ["a", "body", "a", "body"] {
        assert_eq!(client.response().await.unwrap().body, wanted);
    }
    assert_eq!(endpoint.connections(), 1);
    assert_eq!(endpoint.requests(), 9);
    let snapshot = balancer.snapshot();
    assert_eq!(snapshot.http.unwrap().statuses, [0, 9, 0, 0, 0]);
    assert_eq!(snapshot.endpoints[0].served, 9);
    assert_eq!(snapshot.endpoints[0].in_flight, 0);
}

#[tokio::test]
async fn a_client_that_wants_to_close_is_told_so_and_closed() {
    let (_supervisor, endpoint, balancer) = one().await;
    let mut client = Client::connect(&balancer).await;
    client.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").await;
    let all = client.rest().await;
    assert_eq!(all, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na");
    assert_eq!(get(&balancer, "/").await.body, "a");
    assert_eq!(endpoint.connections(), 1, "that of the endpoint stays");
    let mut old = Client::connect(&balancer).await;
    old.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(old.response().await.unwrap().head.contains("\r\nConnection: keep-alive\r\n"));
    old.send("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let all = old.rest().await;
    let wanted = "HTTP/1.1 200 OK\r\nTrailer: Sum\r\nConnection: close\r\n\r\nabcdefg";
    assert_eq!(all, wanted, "who does not know chunks gets none");
}

#[tokio::test]
async fn bodies_of_any_framing_go_through_as_they_are() {
    let (_supervisor, endpoint, balancer) = one().await;
    let mut client = Client::connect(&balancer).await;
    client.send("GET /chunked HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let all = client.until("Sum: 7\r\n\r\n").await.unwrap();
    assert!(all.ends_with("\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nSum: 7\r\n\r\n"), "{all}");
    client.send("POST /echo HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for chunk in ["3", "\r\nab", "c\r\n", "0\r", "\nTrail: er\r\n", "\r\n"] {
        client.send(chunk).await;
    }
    assert_eq!(client.response().await.unwrap().body, "3\r\nabc\r\n");
    assert!(endpoint.bytes().ends_with("3\r\nabc\r\n0\r\nTrail: er\r\n\r\n"));
    assert_eq!(client.get("/empty").await.unwrap().status(), 204);
    client.send("HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await.unwrap();
    assert_eq!(head, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(
        client.get("/hints").await.unwrap().head,
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    );
    assert_eq!(client.response().await.unwrap().body, "a");
    assert_eq!(
        client.get("/last").await.unwrap().head,
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    );
    client.send("GET /until-close HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let all = client.rest().await;
    assert_eq!(all, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end");
}

#[tokio::test]
async fn large_bodies_stream_both_ways_at_once_within_small_buffers() {
    let (_supervisor, _endpoint, balancer) = one().await;
    let mut client = Client::connect(&balancer).await;
    let length = 8_000_000_usize;
    let body: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    let head = format!("POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n");
    let (mut read, mut write) = client.stream.split();
    let writing = async {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&body).await.unwrap();
    };
    let reading = async {
        let mut head = [0; 44];
        read.read_exact(&mut head).await.unwrap();
        let mut back = vec![0; length];
        read.read_exact(&mut back).await.unwrap();
        (head, back)
    };
    let ((), (head, back)) =
        tokio::time::timeout(LIMIT, async { tokio::join!(writing, reading) }).await.unwrap();
    assert_eq!(&head[..], b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n");
    assert!(back == body);
}

#[tokio::test]
async fn who_expects_100_gets_it_from_the_endpoint_or_its_refusal_at_once() {
    let (_supervisor, endpoint, balancer) = one().await;
    let mut client = Client::connect(&balancer).await;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\n\
             Content-Length: 4\r\n\r\n"
        )
    };
    client.send(head("/echo")).await;
    assert_eq!(client.until("\r\n\r\n").await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    assert_eq!(client.response().await.unwrap().body, "body");
    client.send(head("/refuse")).await;
    let all = client.rest().await;
    let wanted = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    assert_eq!(all, wanted, "whether a body follows is not known");
    until(|| endpoint.requests() == 2).await;
    let mut client = Client::connect(&balancer).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 4\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 417 "));
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_goes_through() {
    let (_supervisor, _endpoint, balancer) = one().await;
    let mut client = Client::connect(&balancer).await;
    client.send("POST /early HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000000\r\n\r\npart").await;
    let all = client.rest().await;
    assert!(all.ends_with("Connection: close\r\n\r\nearly"), "{all}");
}

#[tokio::test]
async fn another_protocol_is_copied_both_ways_after_the_switch() {
    let (_supervisor, endpoint, balancer) = one().await;
    let mut client = Client::connect(&balancer).await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\nearly",
        )
        .await;
    let head = client.until("\r\n\r\n").await.unwrap();
    let wanted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
         Connection: upgrade\r\n\r\n";
    assert_eq!(head, wanted);
    assert_eq!(client.until("hello").await.unwrap(), "hello");
    client.send(" and late").await;
    assert_eq!(client.until("late").await.unwrap(), "early and late");
    until(|| balancer.snapshot().endpoints[0].in_flight == 1).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "");
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    assert!(endpoint.bytes().contains("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"));
    assert_eq!(balancer.snapshot().http.unwrap().upgraded, 1);
    let refused = get(&balancer, "/ws").await;
    assert_eq!(refused.status(), 502, "nobody asked for it");
}

#[tokio::test]
async fn limits_are_told_and_end_the_connection() {
    let supervisor = crate::runtime::supervisor::Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let config = http(&[&endpoint], |http| {
        http.head_bytes_max = 2_000;
        http.fields_max = 10;
        http.body_bytes_max = 100;
    });
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "a".repeat(2_000));
    let endless = format!("GET /{}", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(10));
    let very_many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A:\r\n".repeat(300));
    let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n";
    let chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         32\r\n01234567890123456789012345678901234567890123456789\r\n33\r\n";
    let cases = [
        (long.as_str(), 431),
        (&endless, 431),
        (&many, 431),
        (&very_many, 431),
        (body, 413),
        (chunks, 413),
    ];
    for (bytes, status) in cases {
        let mut client = Client::connect(&balancer).await;
        // What is refused early may be closed before all of it is written.
        let _ = client.stream.write_all(bytes.as_bytes()).await;
        let all = client.rest().await;
        assert!(all.starts_with(&format!("HTTP/1.1 {status} ")), "{status} {all}");
        assert!(all.contains("\r\nConnection: close\r\n"), "{all}");
    }
    assert_eq!(balancer.snapshot().http.unwrap().refused, 6);
    assert_eq!(endpoint.requests(), 0, "what is seen at once to be too long is not begun");
    assert_eq!(get(&balancer, "/").await.body, "a");
}

#[tokio::test]
async fn slow_clients_are_waited_for_only_so_long() {
    let supervisor = crate::runtime::supervisor::Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let mut config = http(&[&endpoint], |http| {
        http.head_timeout = Duration::from_millis(100);
        http.keep_alive = Duration::from_millis(200);
    });
    config.idle_timeout = Duration::from_millis(100);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("GET / HT").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    let mut client = Client::connect(&balancer).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.rest().await, "", "one that says nothing is closed without a word");
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.get("/").await.unwrap().body, "a");
    assert_eq!(client.rest().await, "");
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0, "that was no endpoint's fault");
    until(|| balancer.snapshot().sessions == 0).await;
}
