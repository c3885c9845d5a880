//! Endpoints that speak HTTP/2: who shares a connection, what is sent again, what breaks.

use super::client::{H2, get};
use super::links::before;
use super::server::H2Server;
use crate::proxy::balancer::{Balancer, Check, Question};
use crate::proxy::http::tests::support::{self, Client, LIMIT, until};
use crate::proxy::http::{HttpCheck, Protocol};
use crate::runtime::supervisor::Supervisor;
use http::{HeaderMap, Request};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::clustering::load_balanced::retry;
use tokio::io::AsyncWriteExt as _;

async fn one(streams_max: u32) -> (Supervisor, H2Server, Balancer) {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, streams_max).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    (supervisor, server, balancer)
}

#[tokio::test]
async fn clients_of_both_protocols_share_one_connection() {
    let (supervisor, server, balancer) = one(100).await;
    let client = H2::connect(&supervisor, &balancer).await;
    let busy = client.send(get("/never"), &[]).await;
    let mut old = Client::connect(&balancer).await;
    for _ in 0..5 {
        assert_eq!(client.ask(get("/")).await.unwrap().body, "a");
        old.send("GET / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\n\r\n").await;
        assert!(old.until("0\r\n\r\n").await.unwrap().ends_with("\r\n1\r\na\r\n0\r\n\r\n"));
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked[2].starts_with("GET http://shop/ "), "{asked:?}");
    for wanted in ["\"te\": \"trailers\"", "\"x-forwarded-for\": \"127.0.0.1\""] {
        assert!(asked[2].contains(wanted), "{wanted} {asked:?}");
    }
    assert!(!asked[2].contains("\"host\"") && !asked[2].contains("connection"), "{asked:?}");
    drop(busy);
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
}

#[tokio::test]
async fn calls_of_grpc_go_end_to_end() {
    let (supervisor, server, balancer) = one(100).await;
    let client = H2::connect(&supervisor, &balancer).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("sum", "7".parse().unwrap());
    let answer = client.post("/echo", &[b"one", b"two"], Some(trailers)).await.unwrap();
    assert_eq!(answer.body, "onetwo");
    assert_eq!(answer.trailer("grpc-status").as_deref(), Some("0"));
    assert_eq!(answer.trailer("sum").as_deref(), Some("7"));
    let error = client.post("/grpc-error", &[b"x"], None).await.unwrap();
    assert_eq!((&error.head["grpc-status"], error.body.as_str()), (&"5".parse().unwrap(), ""));
    let hints = client.ask(get("/hints")).await.unwrap();
    assert_eq!((hints.interim.as_slice(), hints.body.as_str()), (&[103_u16][..], "a"));
    assert_eq!(client.ask(get("/empty")).await.unwrap().status, 204);
    assert_eq!(client.ask(get("/big")).await.unwrap().body.len(), 3_000_000);
    let head = Request::builder().method("HEAD").uri("http://a/big").body(()).unwrap();
    assert_eq!(client.ask(head).await.unwrap().head["content-length"], "3000000");
    // Both ways at once: what is sent comes back before it ends.
    let mut call = client.send(Request::post("http://a/echo").body(()).unwrap(), &[b"ping"]).await;
    let mut body = call.head().await.unwrap();
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"ping");
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn h43_what_an_endpoint_did_not_look_at_is_sent_once_more() {
    let supervisor = Supervisor::new();
    let (a, b) = (H2Server::start(&supervisor, 100).await, H2Server::start(&supervisor, 100).await);
    let balancer = Balancer::open(before(&[&a, &b]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    let post = |path: &str| Request::post(format!("http://a{path}")).body(()).unwrap();
    // Not idempotent, but refused: it goes to the other one, and, after a pause, to one once more.
    assert_eq!(client.ask(post("/refused")).await.unwrap().status, 502);
    assert_eq!(a.requests() + b.requests(), 3);
    assert_eq!(balancer.snapshot().http.unwrap().retried, 2);
    // What all requests have for retries bounds it as well.
    let mut tight = before(&[&a, &b]);
    tight.http.as_mut().unwrap().retry = retry::Limits { percent: 0, floor_per_second: 0 };
    balancer.configure(tight).unwrap();
    assert_eq!(client.ask(post("/refused")).await.unwrap().status, 502);
    let asked = a.requests() + b.requests();
    assert_eq!(asked, 4);
    // Some of it was taken: whoever sent it has to send it again.
    let error = client.post("/refused-late", &[b"body"], None).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM), "it may be");
    let mut old = Client::connect(&balancer).await;
    old.send("POST /refused-late HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    let answer = old.response().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.head.contains("\r\nRetry-After: 1\r\n"), "{answer:?}");
    let asked = asked + 2;
    let snapshot = balancer.snapshot();
    assert!(snapshot.endpoints.iter().all(|endpoint| endpoint.failed == 0), "{snapshot:?}");
    // Reset by an error: it may have been looked at.
    assert_eq!(client.ask(post("/reset")).await.unwrap().status, 502);
    assert_eq!(a.requests() + b.requests(), asked + 1);
    let mut half = client.send(post("/half"), &[b"x"]).await;
    let mut body = half.head().await.unwrap();
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"half");
    half.body.send_data(bytes::Bytes::new(), true).unwrap();
    let error = body.data().await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn connections_are_as_many_as_streams_need_and_go_when_nobody_does() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 2).await;
    let mut config = before(&[&server]);
    config.http.as_mut().unwrap().idle_timeout = Duration::from_millis(300);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    let mut busy = Vec::new();
    for _ in 0..5 {
        busy.push(client.send(get("/never"), &[]).await);
    }
    until(|| server.requests() == 5).await;
    assert!(server.connections.load(Ordering::Relaxed) >= 3);
    assert_eq!(balancer.snapshot().http.unwrap().retried, 0, "it is not asked for more at once");
    drop(busy);
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    // It says that it leaves: nobody notices.
    server.leaving.notify_waiters();
    for _ in 0..5 {
        assert_eq!(client.ask(get("/")).await.unwrap().body, "a");
    }
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
}

#[tokio::test]
async fn a_websocket_of_http1_is_opened_at_an_endpoint_of_http2() {
    let (supervisor, _server, balancer) = one(100).await;
    let client = H2::connect(&supervisor, &balancer).await;
    assert_eq!(client.ask(get("/")).await.unwrap().body, "a", "now its settings are known");
    let mut old = Client::connect(&balancer).await;
    old.send(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .await;
    let head = old.until("\r\n\r\n").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    old.send("hello").await;
    assert_eq!(old.until("hello").await.as_deref(), Some("hello"));
    old.stream.shutdown().await.unwrap();
    assert_eq!(old.rest().await, "");
    let mut open = client.websocket("/ws").await;
    let mut body = open.head().await.unwrap();
    assert!(open.status == 200 && !open.fields.contains_key("sec-websocket-accept"));
    open.body.send_data(bytes::Bytes::from_static(b"you"), true).unwrap();
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"you");
}

#[tokio::test]
async fn datagrams_are_asked_for_by_connect_udp_of_either_protocol() {
    let (supervisor, server, balancer) = one(100).await;
    let client = H2::connect(&supervisor, &balancer).await;
    let mut open = client.open("/udp", "connect-udp").await;
    let mut body = open.head().await.unwrap();
    assert_eq!(open.status, 200);
    open.body.send_data(bytes::Bytes::from_static(b"you"), true).unwrap();
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"you");
    let mut old = Client::connect(&balancer).await;
    old.send(
        "GET /udp HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\
         Capsule-Protocol: ?1\r\n\r\n",
    )
    .await;
    let head = old.until("\r\n\r\n").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("\r\nUpgrade: connect-udp\r\n"), "{head}");
    assert!(!head.contains("Sec-WebSocket-Accept"), "{head}");
    old.send("hello").await;
    assert_eq!(old.until("hello").await.as_deref(), Some("hello"));
    let asked = server.asked.lock().unwrap();
    let udp = asked.iter().filter(|head| head.starts_with("CONNECT http://a/udp"));
    assert_eq!(udp.count(), 2, "{asked:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_found_and_its_checks_speak_http2() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let mut config = before(&[&server]);
    let question = |path: &str| HttpCheck { path: path.to_owned(), host: None, expect: (200, 299) };
    config.question = Some(Question::Http(question("/ok")));
    config.check = Some(Check { interval: Duration::from_millis(20), timeout: LIMIT });
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    until(|| balancer.snapshot().endpoints[0].condition == Some(Condition::Up)).await;
    assert!(server.asked.lock().unwrap()[0].starts_with("GET http://127.0.0.1:"));
    config.question = Some(Question::Http(question("/500")));
    balancer.configure(config).unwrap();
    until(|| balancer.snapshot().endpoints[0].condition == Some(Condition::Down)).await;
    let failure = balancer.snapshot().endpoints[0].failure.clone();
    assert_eq!(failure.as_deref(), Some("/500: 500"));
    // One that does not speak it.
    let old = support::Endpoint::start(&supervisor, 'o').await;
    let mut config = support::config(&[&old]);
    config.hold_max = Duration::from_millis(300);
    config.http.as_mut().unwrap().upstream_protocol = Protocol::Http2;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na").await;
    assert_eq!(client.response().await.unwrap().status(), 503, "nothing was sent");
    let failure = balancer.snapshot().endpoints[0].failure.clone();
    assert_eq!(failure.as_deref(), Some("it does not speak HTTP/2"));
}
