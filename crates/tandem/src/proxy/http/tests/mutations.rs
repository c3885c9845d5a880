//! Requests with something changed at random: whatever comes, there is an answer or an end, nothing
//! panics, and what reaches the endpoint is what a strict reader takes for the same requests.

use super::super::wire::framing::{Body, Framing};
use super::super::wire::request;
use super::support::*;
use crate::proxy::balancer::Balancer;
use crate::runtime::supervisor::Supervisor;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Changes worth more than any byte.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b"\0",
    b"0",
    b"1",
    b"f",
    b";",
    b"\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: s\r\n\r\n",
    b"\xff",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
];

const SEEDS: &[&[u8]] = &[
    b"GET /a?b HTTP/1.1\r\nHost: shop\r\nAccept: */*\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n\
      3\r\nabc\r\n1;x\r\nd\r\n0\r\nA: b\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\nCookie: a=b\r\n\r\n",
];

fn mutate(random: &mut impl FnMut(u64) -> u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random(2) {
        bytes.extend_from_slice(SEEDS[random(SEEDS.len() as u64) as usize]);
    }
    for _ in 0..=random(3) {
        let at = random(bytes.len() as u64 + 1) as usize;
        let end = (at + random(4) as usize).min(bytes.len());
        match random(4) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let piece = PIECES[random(PIECES.len() as u64) as usize];
                bytes.splice(at..at, piece.iter().copied());
            }
            2 => {
                let piece = PIECES[random(PIECES.len() as u64) as usize];
                bytes.splice(at..end, piece.iter().copied());
            }
            _ if at < bytes.len() => bytes[at] = random(256) as u8,
            _ => {}
        }
    }
    bytes
}

/// Whether a strict reader finds nothing but requests; the last one may be cut.
fn is_strict(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let mut room = request::no_fields();
        let head = match request::read(bytes, &mut room, (128, u64::MAX)) {
            Ok(Some(head)) => head,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let mut body = Body::new(head.framing, u64::MAX);
        bytes = &bytes[head.length..];
        while !body.is_done() {
            match body.next(bytes) {
                Ok(piece) if piece.length == 0 => return true,
                Ok(piece) => bytes = &bytes[piece.length..],
                Err(_) => return false,
            }
        }
        if head.upgrade.is_some() {
            // What follows is another protocol.
            return true;
        }
    }
    true
}

#[tokio::test]
async fn whatever_comes_is_answered_or_ended() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    // An endpoint that reads otherwise waits for what does not come.
    let brief = Duration::from_millis(200);
    let mut config = http(&[&endpoint], |http| http.answer_timeout = brief);
    (config.idle_timeout, config.limits.failures) = (brief, 0);
    config.limits.success_percent_min = 0;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    for seed in 0..400 {
        let mut random = random(seed + 1);
        let bytes = mutate(&mut random);
        let mut client = Client::connect(&balancer).await;
        let step = 1 + random(bytes.len().max(1) as u64) as usize;
        for part in bytes.chunks(step) {
            let _ = client.stream.write_all(part).await;
        }
        let _ = client.stream.shutdown().await;
        let all = client.rest().await;
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 "), "seed {seed}: {all}");
    }
    until(|| balancer.snapshot().sessions == 0).await;
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    for connection in endpoint.seen.lock().unwrap().iter() {
        assert!(is_strict(connection), "{}", connection.escape_ascii());
    }
    assert_eq!(get(&balancer, "/").await.body, "a");
}

#[test]
fn readers_take_anything_without_a_panic() {
    for seed in 0..20_000 {
        let mut random = random(seed + 1);
        let bytes = mutate(&mut random);
        let mut room = request::no_fields();
        let _ = request::read(&bytes, &mut room, (100, 1_000));
        let mut room = request::no_fields();
        let _ = super::super::wire::response::read(&bytes, &mut room, request::Method::Other);
        let mut body = Body::new(Framing::Chunked, 1_000);
        let mut at = 0;
        while let Ok(piece) = body.next(&bytes[at..]) {
            if piece.length == 0 {
                break;
            }
            at += piece.length;
        }
    }
}
