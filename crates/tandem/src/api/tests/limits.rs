//! Bad askers: too many, too slow, too much, from elsewhere.

use super::fake::Fake;
use super::{PATIENCE, Served, serve, serve_fake};
use crate::api::request::BODY_BYTES_MAX;
use crate::api::server::Limits;
use hyper::Method;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends these bytes and reads until the other side closes.
async fn raw(served: &Served, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_all(&mut stream).await
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let limits = Limits { head_read: Duration::from_millis(50), ..Limits::default() };
    let served = serve_fake(Fake::new(), limits).await;
    for bytes in [&b""[..], b"GET /v1/sta"] {
        let answer = raw(&served, bytes).await;
        assert!(answer.is_empty() || answer.contains(" 408 "), "{answer}");
    }
    served.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let limits = Limits { head_read: Duration::from_millis(50), ..Limits::default() };
    let served = serve_fake(Fake::new(), limits).await;
    let answer = raw(&served, b"GET /primary HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let limits = Limits { body_read: Duration::from_millis(50), ..Limits::default() };
    let served = serve_fake(Fake::new(), limits).await;
    let head = b"POST /v1/services/orders/pause HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\
        connection: close\r\n\r\n";
    let answer = raw(&served, head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("TDM0710"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let served = serve_fake(Fake::new(), limits).await;
    let mut first = TcpStream::connect(served.address).await.unwrap();
    first.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 15];
    first.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    let mut second = TcpStream::connect(served.address).await.unwrap();
    let answer = read_all(&mut second).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    drop(first);
    served.stop().await;
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let served = serve().await;
    let text = "x".repeat(BODY_BYTES_MAX);
    let body = format!(r#"{{"text":"{text}"}}"#);
    let (status, problem) = served.json(Method::PUT, "/v1/config", &body).await;
    assert_eq!((status, &problem["code"]), (413, &"TDM0707".into()));
    served.stop().await;
}

#[tokio::test]
async fn a_web_page_of_elsewhere_cannot_operate_the_cluster() {
    let served = serve().await;
    let path = "/v1/services/orders/failover";
    let foreign = [("origin", "http://evil.example")];
    let response = served.send(Method::POST, path, &foreign, r#"{"accept_loss":true}"#).await;
    assert_eq!(response.status(), 403);
    assert!(served.fake.asked.lock().unwrap().is_empty());
    let own = served.url();
    let response = served.send(Method::POST, path, &[("origin", &own)], "").await;
    assert_eq!(response.status(), 200);
    served.stop().await;
}
