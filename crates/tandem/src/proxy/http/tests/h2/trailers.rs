//! Trailers of messages that say how long they are: what goes on where both sides have room for
//! both, and where HTTP/1.1 has room for one of them.

use super::client::{Answer, H2, Sending, get};
use super::links::before;
use super::server::H2Server;
use crate::proxy::balancer::Balancer;
use crate::proxy::http::tests::support::{Client, one, until};
use crate::runtime::supervisor::Supervisor;
use bytes::Bytes;
use http::{HeaderMap, Request};

fn length(fields: &HeaderMap) -> Option<&str> {
    fields.get("content-length").map(|it| it.to_str().unwrap())
}

fn sum() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("sum", "7".parse().unwrap());
    trailers
}

async fn send(client: &H2, fields: &[(&str, &str)]) -> Sending {
    let mut request = Request::post("http://a/echo").header("content-length", "6");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut sending = client.send(request.body(()).unwrap(), &[b"one", b"two"]).await;
    sending.body.send_trailers(sum()).unwrap();
    sending
}

async fn trailed(client: &H2, fields: &[(&str, &str)]) -> Answer {
    send(client, fields).await.answer().await.unwrap()
}

#[tokio::test]
async fn between_http2_and_http2_both_go_on() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    for path in ["/counted", "/announced"] {
        let answer = client.ask(get(path)).await.unwrap();
        assert_eq!((answer.body.as_str(), answer.trailer("sum")), ("hello", Some("7".into())));
        assert_eq!(length(&answer.head), Some("5"), "{answer:?}");
    }
    let answer = trailed(&client, &[]).await;
    assert_eq!((answer.body.as_str(), answer.trailer("sum")), ("onetwo", Some("7".into())));
    let asked = server.asked.lock().unwrap().last().unwrap().clone();
    assert!(asked.contains("\"content-length\": \"6\""), "{asked}");
    // Without trailers, and without content.
    let answer = client.ask(get("/big")).await.unwrap();
    assert_eq!((answer.body.len(), length(&answer.head)), (3_000_000, Some("3000000")));
    let head = Request::head("http://a/counted").body(()).unwrap();
    let answer = client.ask(head).await.unwrap();
    assert_eq!((answer.body.as_str(), length(&answer.head)), ("", Some("5")));
    let none = Request::post("http://a/echo").header("content-length", "0").body(()).unwrap();
    let mut none = client.send(none, &[]).await;
    none.body.send_data(Bytes::new(), true).unwrap();
    assert_eq!(none.answer().await.unwrap().body, "");
    // Too long is told at once, as without trailers.
    let long = Request::post("http://a/echo").header("content-length", 2_u64 << 30);
    let mut long = client.send(long.body(()).unwrap(), &[]).await;
    assert_eq!(long.response().await.unwrap().status, 413);
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
}

#[tokio::test]
async fn a_length_that_is_wrong_never_ends_a_stream_well() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    for pieces in [&[&b"seven.."[..]][..], &[b"five."]] {
        let request = Request::post("http://a/echo").header("content-length", "6");
        let mut sending = client.send(request.body(()).unwrap(), pieces).await;
        sending.body.send_data(Bytes::new(), true).unwrap();
        assert!(sending.answer().await.is_err(), "{pieces:?}");
    }
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    assert_eq!(client.ask(get("/")).await.unwrap().body, "a", "the others go on");
}

#[tokio::test]
async fn a_client_of_http1_gets_trailers_if_it_asks_or_they_are_announced_and_else_the_length() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let counted = "Content-Length: 5\r\n\r\nhello";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nsum: 7\r\n\r\n";
    for (path, te, wanted) in [
        ("/counted", "", counted),
        ("/counted", "TE: gzip\r\n", counted),
        ("/counted", "TE: gzip, trailers\r\n", chunked),
        ("/announced", "", chunked),
    ] {
        let mut client = Client::connect(&balancer).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{te}\r\n")).await;
        let answer = client.until(wanted).await;
        assert!(answer.is_some_and(|it| it.matches("ength:").count() <= 1), "{path} {te}");
    }
    // HTTP/1.0 has neither chunks nor trailers.
    let mut client = Client::connect(&balancer).await;
    client.send("GET /announced HTTP/1.0\r\nTE: trailers\r\n\r\n").await;
    assert!(client.rest().await.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\nhello"));
}

#[tokio::test]
async fn an_endpoint_of_http1_gets_trailers_that_are_announced_and_else_the_length() {
    let (supervisor, endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    assert_eq!(trailed(&client, &[]).await.body, "onetwo");
    assert!(endpoint.bytes().contains("\r\nContent-Length: 6\r\n"), "{}", endpoint.bytes());
    let answer = trailed(&client, &[("trailer", "sum")]).await;
    assert_eq!(answer.body, "3\r\none\r\n3\r\ntwo\r\n");
    let bytes = endpoint.bytes();
    assert!(bytes.ends_with("\r\n0\r\nsum: 7\r\n\r\n"), "{bytes}");
    assert_eq!(bytes.matches("Content-Length").count(), 1, "{bytes}");
}
