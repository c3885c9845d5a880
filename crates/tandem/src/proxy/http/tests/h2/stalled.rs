//! Clients and endpoints that take nothing: what that costs the others, and that they may leave.

use super::client::{H2, get};
use super::links::before;
use super::server::H2Server;
use crate::proxy::balancer::Balancer;
use crate::proxy::http::tests::support::{Client, LIMIT, config, one, until};
use crate::runtime::supervisor::Supervisor;
use bytes::Bytes;
use http::Request;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// Begins an upload, and sends until nothing moves.
async fn stalled(client: &H2, path: &str) -> super::client::Sending {
    let post = Request::post(format!("http://a{path}")).body(()).unwrap();
    let mut sending = client.send(post, &[]).await;
    loop {
        let body = &mut sending.body;
        body.reserve_capacity(16 * 1024);
        let room = timeout(Duration::from_millis(300), poll_fn(|cx| body.poll_capacity(cx))).await;
        let Ok(Some(Ok(room))) = room else { return sending };
        body.send_data(Bytes::from(vec![b'.'; room]), false).unwrap();
    }
}

#[tokio::test]
async fn who_takes_nothing_breaks_no_connection_that_others_use() {
    let supervisor = Supervisor::new();
    let server = H2Server::start(&supervisor, 100).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let other = H2::connect(&supervisor, &balancer).await;
    let mut busy = other.send(Request::post("http://a/echo").body(()).unwrap(), &[b"1"]).await;
    let mut echoed = busy.head().await.unwrap();
    assert_eq!(&echoed.data().await.unwrap().unwrap()[..], b"1");
    let mut stubborn = Client::connect(&balancer).await;
    // It has no room for anything.
    stubborn.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    stubborn.send(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0").await;
    let head = b"\x82\x86\x04\x07/crumbs\x01\x04shop";
    for at in [1, 3, 5] {
        stubborn.send([&b"\0\0\x11\x01\x05\0\0\0"[..], &[at], head].concat()).await;
    }
    // More of them than a connection keeps, if nobody takes them in.
    until(|| server.crumbs.load(Ordering::Relaxed) >= 3 * 65_000).await;
    for _ in 0..50 {
        assert_eq!(other.ask(get("/")).await.unwrap().body, "a");
    }
    busy.body.send_data(Bytes::from_static(b"2"), false).unwrap();
    assert_eq!(&echoed.data().await.unwrap().unwrap()[..], b"2", "it goes on");
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
    drop(stubborn);
    until(|| balancer.snapshot().endpoints[0].in_flight == 1).await;
}

#[tokio::test]
async fn who_leaves_while_its_upload_waits_frees_its_endpoint() {
    let (supervisor, endpoint, balancer) = one().await;
    let client = H2::connect(&supervisor, &balancer).await;
    let sending = stalled(&client, "/deaf").await;
    assert_eq!((endpoint.open(), balancer.snapshot().endpoints[0].in_flight), (1, 1));
    drop(sending);
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    assert_eq!(balancer.snapshot().http.unwrap().abandoned, 1);
}

#[tokio::test]
async fn who_leaves_while_it_waits_for_an_endpoint_waits_no_longer() {
    let supervisor = Supervisor::new();
    let mut config = config(&[]);
    config.hold_max = LIMIT * 10;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let client = H2::connect(&supervisor, &balancer).await;
    let sending = stalled(&client, "/").await;
    assert_eq!(balancer.snapshot().held, 1);
    drop(sending);
    until(|| balancer.snapshot().held == 0).await;
}
