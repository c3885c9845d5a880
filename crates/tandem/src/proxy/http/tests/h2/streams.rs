//! HTTP/2 towards clients: what their streams become at an endpoint, and what comes back.

use super::client::*;
use crate::proxy::balancer::{Balancer, BalancerConfig};
use crate::proxy::http::tests::support::{
    Client, Endpoint, LIMIT, config, http as with, one, until, until_async,
};
use crate::runtime::supervisor::Supervisor;
use bytes::Bytes;
use http::{Method, Request};
use std::time::Duration;

#[tokio::test]
async fn requests_of_one_connection_go_side_by_side_and_say_who_they_are_from() {
    let (supervisor, _endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    let slow = client.send(get("/never"), &[]).await;
    let answer = client.ask(get("/head")).await.unwrap();
    assert_eq!(answer.status, 200);
    for wanted in [
        "GET /head HTTP/1.1\r\n",
        "\r\nHost: shop.example\r\n",
        "\r\nX-Forwarded-For: 127.0.0.1\r\n",
        "\r\nForwarded: for=127.0.0.1;proto=http;host=\"shop.example\"\r\n",
        "\r\ncookie: a=1; b=2\r\n",
    ] {
        let request = Request::get("http://shop.example/head")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-forwarded-for", "9.9.9.9")
            .body(())
            .unwrap();
        let body = client.ask(request).await.unwrap().body;
        assert!(body.contains(wanted), "{wanted} {body}");
        assert!(!body.contains("9.9.9.9"), "{body}");
    }
    drop(slow);
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    let snapshot = balancer.snapshot();
    let http = snapshot.http.unwrap();
    assert_eq!((http.requests, http.abandoned, snapshot.accepted), (7, 1, 1));
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways_and_heads_that_have_none_end_their_stream() {
    let (supervisor, endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    let answer = client.ask(get("/chunked")).await.unwrap();
    assert_eq!((answer.body.as_str(), answer.trailer("sum")), ("abcdefg", Some("7".to_owned())));
    assert!(!answer.head.contains_key("transfer-encoding"), "{answer:?}");
    let until_close = client.ask(get("/until-close")).await.unwrap();
    assert_eq!(until_close.body, "to the end");
    let empty = client.ask(get("/empty")).await.unwrap();
    assert_eq!((empty.status, empty.body.as_str()), (204, ""));
    let head = Request::builder().method(Method::HEAD).uri("http://a/x").body(()).unwrap();
    let head = client.ask(head).await.unwrap();
    assert_eq!((head.status, &head.head["content-length"]), (200, &"1".parse().unwrap()));
    let hints = client.ask(get("/hints")).await.unwrap();
    assert_eq!((hints.interim.as_slice(), hints.body.as_str()), (&[103_u16][..], "a"));
    // Of unknown length, in pieces, with trailers.
    let mut trailers = http::HeaderMap::new();
    trailers.insert("sum", "9".parse().unwrap());
    let pieces = [&b"one"[..], b"two"];
    let answer = client.post("/echo", &pieces, Some(trailers)).await.unwrap();
    assert_eq!(answer.body, "3\r\none\r\n3\r\ntwo\r\n");
    assert!(endpoint.bytes().ends_with("0\r\nsum: 9\r\n\r\n"), "{}", endpoint.bytes());
    let request = Request::post("http://a/echo").header("content-length", 3).body(()).unwrap();
    let mut sending = client.send(request, &[]).await;
    sending.body.send_data(Bytes::from_static(b"abc"), true).unwrap();
    assert_eq!(sending.answer().await.unwrap().body, "abc");
    assert!(balancer.snapshot().endpoints[0].failure.is_none());
}

#[tokio::test]
async fn large_bodies_wait_for_whoever_takes_them() {
    let (supervisor, endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    let mut slow = client.send(get("/big"), &[]).await;
    let mut body = slow.head().await.unwrap();
    // Nobody takes it: what is under way is bounded, and others are served.
    assert_eq!(client.ask(get("/")).await.unwrap().body, "a");
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        length += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(length, 30_000_000);
    let piece = vec![b'.'; 100_000];
    let pieces: Vec<&[u8]> = (0..50).map(|_| &piece[..]).collect();
    let request = Request::post("http://a/echo").header("content-length", 5_000_000);
    let answer = client.upload(request.body(()).unwrap(), &pieces).await.unwrap();
    assert_eq!(answer.body.len(), 5_000_000);
    assert_eq!(endpoint.requests(), 3);
}

#[tokio::test]
async fn what_breaks_at_an_endpoint_never_ends_a_stream_well() {
    let (supervisor, _endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    for verb in ["/reset", "/close", "/nonsense", "/two-lengths"] {
        assert_eq!(client.post(verb, &[b"x"], None).await.unwrap().status, 502, "{verb}");
    }
    let error = client.ask(get("/half")).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(client.ask(get("/")).await.unwrap().body, "a", "the others go on");
}

#[tokio::test]
async fn what_http1_refuses_is_refused_and_the_connection_goes_on() {
    let (supervisor, endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    let build = |method: &str, uri: &str| Request::builder().method(method).uri(uri);
    for (request, status) in [
        (build("GET", "http://a/").header("host", "b"), 400),
        (build("GET", "http://u:p@a/"), 400),
        (build("GET", "http://a/\\x"), 400),
        (build("GET", "http://a/x\"y"), 400),
        (build("CONNECT", "a:443"), 405),
        (build("POST", "http://a/").header("expect", "coffee"), 417),
        (
            build("GET", "http://a/")
                .header("long", "x".repeat(20_000))
                .header("b", "x".repeat(20_000)),
            431,
        ),
    ] {
        let answer = client.ask(request.body(()).unwrap()).await;
        assert_eq!(answer.map(|it| it.status).ok(), Some(status));
    }
    let long =
        Request::post("http://a/echo").header("content-length", 2_u64 << 30).body(()).unwrap();
    let mut long = client.send(long, &[]).await;
    assert_eq!(long.response().await.unwrap().status, 413);
    assert_eq!(endpoint.requests(), 0, "{}", endpoint.bytes());
    let same = build("OPTIONS", "http://a:80/*").header("host", "A:80").body(()).unwrap();
    assert_eq!(client.ask(same).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_websocket_is_opened_by_extended_connect() {
    let (supervisor, endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    let mut open = client.websocket("/ws").await;
    let mut body = open.head().await.unwrap();
    assert_eq!(open.status, 200);
    let request = endpoint.bytes();
    assert!(request.contains("GET /ws HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nsec-websocket-key: "), "{request}");
    assert!(request.contains("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"), "{request}");
    open.body.send_data(Bytes::from_static(b" you"), true).unwrap();
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    assert_eq!(all, b"hello you");
    let mut refused = client.websocket("/refuse").await;
    assert_eq!(refused.response().await.unwrap().status, 401);
    // To it, 2xx would be a WebSocket.
    let mut plain = client.websocket("/").await;
    assert_eq!(plain.response().await.unwrap().status, 502);
    let http = balancer.snapshot().http.unwrap();
    assert_eq!((http.upgraded, http.broken, http.abandoned), (1, 1, 0), "{http:?}");
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0, "whoever asks for it brings that about");
}

#[tokio::test]
async fn what_else_both_protocols_have_is_opened_the_same_way_and_the_rest_is_unknown() {
    let (supervisor, endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    let mut open = client.open("/udp", "connect-udp").await;
    let mut body = open.head().await.unwrap();
    assert_eq!(open.status, 200);
    let request = endpoint.bytes();
    assert!(request.contains("\r\nConnection: upgrade\r\nUpgrade: connect-udp\r\n"), "{request}");
    assert!(!request.contains("sec-websocket-key"), "{request}");
    open.body.send_data(Bytes::from_static(b" you"), true).unwrap();
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    assert_eq!(all, b"hello you");
    let asked = endpoint.requests();
    let mut other = client.open("/ws", "connect-udp").await;
    assert_eq!(other.response().await.unwrap().status, 502, "it became a WebSocket");
    let asked = asked + 1;
    for protocol in ["h2c", "tls", "webtransport"] {
        let mut unknown = client.open("/ws", protocol).await;
        assert_eq!(unknown.response().await.unwrap().status, 501, "{protocol}");
    }
    assert_eq!(endpoint.requests(), asked);
    assert_eq!(client.ask(get("/")).await.unwrap().body, "a", "the others go on");
}

#[tokio::test]
async fn closing_says_goaway_and_lets_streams_end() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let balancer = Balancer::open(config(&[&endpoint]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    let idle = H2::connect(&supervisor, &balancer).await;
    idle.ask(get("/")).await.unwrap();
    let post = Request::post("http://a/echo").header("content-length", 4).body(()).unwrap();
    let mut busy = client.send(post, &[]).await;
    until(|| endpoint.requests() == 2).await;
    let close = balancer.close(LIMIT);
    let clients = async {
        idle.gone().await;
        busy.body.send_data(Bytes::from_static(b"body"), true).unwrap();
        let answer = busy.answer().await.unwrap();
        client.gone().await;
        answer
    };
    let (drained, answer) = tokio::join!(close, clients);
    assert!(drained);
    assert_eq!(answer.body, "body");
}

#[tokio::test]
async fn who_is_idle_makes_room_for_others() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let balancer =
        Balancer::open(BalancerConfig { sessions_max: 3, ..config(&[&endpoint]) }, &supervisor);
    let balancer = balancer.unwrap();
    let idle = H2::connect(&supervisor, &balancer).await;
    idle.ask(get("/")).await.unwrap();
    let busy = H2::connect(&supervisor, &balancer).await;
    let _waits = busy.send(get("/never"), &[]).await;
    until(|| endpoint.requests() == 2).await;
    // There are as many as may be, one after the other: the idle one has to go, not the busy one.
    let mut others = Vec::new();
    until_async(async || {
        let mut client = Client::connect(&balancer).await;
        client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        let is_served = client.until("\r\n\r\na").await.is_some();
        others.push(client);
        is_served && idle.is_gone()
    })
    .await;
    assert!(!busy.is_gone());
}

#[tokio::test]
async fn it_can_be_forbidden_and_idles_only_for_so_long() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let config = with(&[&endpoint], |http| http.keep_alive = Duration::from_millis(100));
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    client.ask(get("/")).await.unwrap();
    client.gone().await;
    until(|| balancer.snapshot().sessions == 0).await;
    let config = with(&[&endpoint], |http| http.http2 = false);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 505 "));
}
