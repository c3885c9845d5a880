//! Clients that write frames of HTTP/2 by hand, as no good client does: what they get, and that
//! nobody else notices.

use super::client::{H2, get};
use crate::proxy::balancer::Balancer;
use crate::proxy::http::tests::support::{self, Client, Endpoint, one, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field without compression.
fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let mut field = vec![0x00, length(name.as_bytes())];
    field.extend_from_slice(name.as_bytes());
    field.push(length(value));
    field.extend_from_slice(value);
    field
}

fn head(method: &str, path: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let mut head = [
        field(":method", method.as_bytes()),
        field(":scheme", b"http"),
        field(":path", path.as_bytes()),
        field(":authority", b"shop"),
    ]
    .concat();
    for (name, value) in more {
        head.extend(field(name, value));
    }
    head
}

async fn open(balancer: &Balancer) -> Client {
    let mut client = Client::connect(balancer).await;
    client.send(PREFACE).await;
    client.send(frame(SETTINGS, 0, 0, &[])).await;
    client
}

/// The kinds of the frames that it is sent until its connection ends, and the last payload.
async fn rest(client: &mut Client) -> (Vec<u8>, Vec<u8>) {
    use tokio::io::AsyncReadExt as _;
    let (mut bytes, mut kinds, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let read = client.stream.read_to_end(&mut bytes);
    // A reset ends it as well.
    let _ = tokio::time::timeout(support::LIMIT, read).await.expect("an end");
    let mut rest = &bytes[..];
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        kinds.push(*kind);
        last = payload.to_vec();
        rest = after;
    }
    (kinds, last)
}

/// It is served as if nothing had happened.
async fn still_serves(balancer: &Balancer, endpoint: &Endpoint) {
    assert_eq!(support::get(balancer, "/").await.body, "a");
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
    assert!(!endpoint.bytes().contains("evil"), "{}", endpoint.bytes());
}

#[tokio::test]
async fn what_would_be_another_request_to_http1_never_gets_there() {
    let (_supervisor, endpoint, balancer) = one().await;
    let evil: &[(&str, &[u8])] = &[
        ("transfer-encoding", b"chunked"),
        ("connection", b"evil"),
        ("upgrade", b"evil"),
        ("keep-alive", b"evil"),
        ("proxy-connection", b"evil"),
        ("http2-settings", b"evil"),
        ("te", b"gzip, evil"),
        ("a", b"b\r\nevil: 1"),
        ("a", b"b\nevil: 1"),
        ("a", b"b\0evil"),
        ("a\r\nevil", b"1"),
        ("a: evil", b"1"),
        ("A-evil", b"1"),
        ("evil evil", b"1"),
        ("", b"evil"),
        (":evil", b"1"),
        (":path", b"/evil"),
        ("content-length", b"1x"),
        ("content-length", b"-1"),
        ("content-length", b"5"),
        ("host", b"evil"),
    ];
    for field in evil {
        for flags in [END_HEADERS | END_STREAM, END_HEADERS] {
            let mut client = open(&balancer).await;
            client.send(frame(HEADERS, flags, 1, &head("POST", "/", &[*field]))).await;
            if flags == END_HEADERS {
                let body = b"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n";
                client.send(frame(DATA, END_STREAM, 1, body)).await;
            }
            // The others of the connection go on, if its rules allow that.
            client.send(frame(SETTINGS, 1, 0, &[])).await;
            use tokio::io::AsyncWriteExt as _;
            client.stream.shutdown().await.unwrap();
            let _ = rest(&mut client).await;
        }
    }
    for (method, path) in [
        ("GET evil", "/"),
        ("GET", "evil"),
        ("GET", "/evil evil"),
        ("GET", "/\r\nevil: 1"),
        ("", "/evil"),
    ] {
        let mut client = open(&balancer).await;
        let head = head(method, path, &[]);
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
        use tokio::io::AsyncWriteExt as _;
        client.stream.shutdown().await.unwrap();
        let _ = rest(&mut client).await;
    }
    still_serves(&balancer, &endpoint).await;
}

#[tokio::test]
async fn floods_end_their_connection_and_nothing_else() {
    let (supervisor, endpoint, balancer) = one().await;
    let other = H2::connect(&supervisor, &balancer).await;
    let small = head("GET", "/never", &[]);
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("ping", frame(PING, 0, 0, &[0; 8]).repeat(100_000)),
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(100_000)),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]).repeat(100_000)),
        ("window", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(200_000)),
        ("unknown", frame(77, 0, 0, &[]).repeat(100_000)),
        (
            "empty data",
            [
                frame(HEADERS, END_HEADERS, 1, &head("POST", "/echo", &[])),
                frame(DATA, 0, 1, &[]).repeat(100_000),
            ]
            .concat(),
        ),
        (
            "continuation",
            [
                frame(HEADERS, 0, 1, &small),
                frame(CONTINUATION, 0, 1, &field("a", b"b")).repeat(100_000),
            ]
            .concat(),
        ),
        (
            "rapid reset",
            (0..20_000_u32)
                .flat_map(|at| {
                    let stream = 2 * at + 1;
                    let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &small);
                    [head, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
                })
                .collect(),
        ),
    ];
    for (name, bytes) in floods {
        let mut client = open(&balancer).await;
        use tokio::io::AsyncWriteExt as _;
        // It may be cut while it writes.
        let _ = client.stream.write_all(&bytes).await;
        let (kinds, _) = rest(&mut client).await;
        assert!(kinds.len() < 20_000, "{name}: {}", kinds.len());
        assert_eq!(other.ask(get("/")).await.unwrap().body, "a", "{name}");
    }
    assert!(endpoint.requests() < 2000, "{}", endpoint.requests());
    until(|| balancer.snapshot().sessions == 1).await;
    assert!(balancer.snapshot().http.unwrap().floods >= 5, "{:?}", balancer.snapshot().http);
}

/// No flood: a page that is left takes back all that it asked for.
#[tokio::test]
async fn what_is_taken_back_at_once_ends_nothing() {
    let (_supervisor, _endpoint, balancer) = one().await;
    let head = head("GET", "/never", &[]);
    let asked = |at: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &head);
    let taken_back = |at: u32| frame(RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8]);
    let bytes: Vec<u8> = (0..100).flat_map(|at| [asked(at), taken_back(at)].concat()).collect();
    let mut client = open(&balancer).await;
    client.send([bytes, asked(100), frame(PING, 0, 0, b"question")].concat()).await;
    use tokio::io::AsyncReadExt as _;
    let mut came = Vec::new();
    let answer = frame(PING, 1, 0, b"question");
    while !came.windows(answer.len()).any(|bytes| bytes == answer) {
        let read = client.stream.read_buf(&mut came);
        let read = tokio::time::timeout(support::LIMIT, read).await.expect("an answer").unwrap();
        assert!(read > 0, "it was cut");
    }
    until(|| balancer.snapshot().endpoints[0].in_flight == 1).await;
}

/// No flood either: whoever downloads for long says again and again that it takes more.
#[tokio::test]
async fn to_acknowledge_every_kilobyte_ends_nothing() {
    let (_supervisor, _endpoint, balancer) = one().await;
    let mut client = open(&balancer).await;
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/big", &[]))).await;
    let (mut bytes, mut came) = (Vec::new(), 0);
    while came < 30_000_000 {
        use tokio::io::AsyncReadExt as _;
        let read = client.stream.read_buf(&mut bytes);
        let read = tokio::time::timeout(support::LIMIT, read).await.expect("more").unwrap();
        assert!(read > 0, "cut after {came} bytes");
        let mut taken = Vec::new();
        while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = &bytes[..] {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if rest.len() < length {
                break;
            }
            if *kind == DATA {
                came += length;
                for from in (0..length).step_by(1024) {
                    let part = u32::try_from(1024.min(length - from)).unwrap().to_be_bytes();
                    taken.extend(frame(WINDOW_UPDATE, 0, 0, &part));
                    taken.extend(frame(WINDOW_UPDATE, 0, 1, &part));
                }
            }
            bytes.drain(..9 + length);
        }
        client.send(taken).await;
    }
    assert_eq!(balancer.snapshot().http.unwrap().floods, 0);
}

/// No flood: calls of gRPC are small, and many of them may come with one packet.
#[tokio::test]
async fn many_small_messages_at_once_end_nothing() {
    let (_supervisor, endpoint, balancer) = one().await;
    let mut client = open(&balancer).await;
    let length: &[(&str, &[u8])] = &[("content-length", b"20000")];
    let posts = [1, 3, 5].map(|at| frame(HEADERS, END_HEADERS, at, &head("POST", "/echo", length)));
    let small: Vec<u8> =
        (0..3000).flat_map(|at| frame(DATA, 0, 1 + at % 3 * 2, &[7; 20])).collect();
    client.send([posts.concat(), small].concat()).await;
    let ends = [1, 3, 5].map(|at| frame(DATA, END_STREAM, at, b""));
    client.send(ends.concat()).await;
    until(|| balancer.snapshot().http.unwrap().statuses[1] == 3).await;
    assert_eq!(endpoint.requests(), 3);
    assert_eq!(balancer.snapshot().http.unwrap().floods, 0);
}

/// What a client sends before it knows that it has no WebSocket is no other request.
#[tokio::test]
async fn what_was_sent_ahead_of_a_refused_websocket_goes_nowhere() {
    let (_supervisor, endpoint, balancer) = one().await;
    let ask: &[(&str, &[u8])] = &[(":protocol", b"websocket"), ("sec-websocket-version", b"13")];
    for seed in 0..20 {
        let mut client = open(&balancer).await;
        let path = if seed % 2 == 0 { "/refuse" } else { "/500" };
        let ahead = frame(DATA, 0, 1, b"GET /evil HTTP/1.1\r\nHost: evil\r\n\r\n");
        let asked = frame(HEADERS, END_HEADERS, 1, &head("CONNECT", path, ask));
        client.send([asked, ahead].concat()).await;
        until(|| balancer.snapshot().http.unwrap().statuses.iter().sum::<u64>() > seed).await;
        use tokio::io::AsyncWriteExt as _;
        client.stream.shutdown().await.unwrap();
        let _ = rest(&mut client).await;
    }
    until(|| balancer.snapshot().sessions == 0).await;
    assert!(!endpoint.bytes().contains("evil"), "{}", endpoint.bytes());
    assert_eq!(balancer.snapshot().http.unwrap().requests, 20);
}

#[tokio::test]
async fn frames_out_of_order_end_their_connection_with_a_reason() {
    let (_supervisor, endpoint, balancer) = one().await;
    let good = head("GET", "/", &[]);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("data before headers", frame(DATA, 0, 1, b"x")),
        ("even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &good)),
        ("continuation alone", frame(CONTINUATION, END_HEADERS, 1, &good)),
        ("push", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("long ping", frame(PING, 0, 0, &[0; 9])),
        ("window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("window too large", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("frame too long", frame(DATA, 0, 1, &vec![0; 20_000])),
        ("no compression", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 40])),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[])),
        ("padding", frame(DATA, 8, 1, &[200, 1])),
        (
            "stream twice",
            [
                frame(HEADERS, END_HEADERS | END_STREAM, 3, &good),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &good),
            ]
            .concat(),
        ),
    ];
    for (name, bytes) in bad {
        let mut client = open(&balancer).await;
        client.send(&bytes).await;
        let (kinds, last) = rest(&mut client).await;
        assert!(kinds.contains(&7), "{name}: no GOAWAY but {kinds:?}");
        assert_ne!(&last[4..8], &[0; 4], "{name}: a reason");
    }
    // What only looks like a preface is HTTP/1.1.
    let mut client = Client::connect(&balancer).await;
    client.send("PRI * HTTP/2.0\r\nHost: evil\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 505 "));
    still_serves(&balancer, &endpoint).await;
}

#[tokio::test]
async fn bytes_at_random_never_get_to_an_endpoint() {
    let (_supervisor, endpoint, balancer) = one().await;
    for seed in 0..200 {
        let mut random = support::random(seed);
        let mut bytes = [
            frame(HEADERS, END_HEADERS, 1, &head("POST", "/echo", &[("a", b"b")])),
            frame(DATA, END_STREAM, 1, b"body"),
            frame(HEADERS, END_HEADERS | END_STREAM, 3, &head("GET", "/", &[])),
        ]
        .concat();
        for _ in 0..=random(6) {
            let at = usize::try_from(random(bytes.len() as u64)).unwrap();
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        let mut client = open(&balancer).await;
        use tokio::io::AsyncWriteExt as _;
        let _ = client.stream.write_all(&bytes).await;
        let _ = client.stream.shutdown().await;
        let _ = rest(&mut client).await;
    }
    until(|| balancer.snapshot().sessions == 0).await;
    assert_eq!(support::get(&balancer, "/").await.body, "a");
    // Whatever came of them is whole requests, each with its own host.
    let all = endpoint.bytes();
    assert_eq!(all.matches(" HTTP/1.1\r\n").count(), all.matches("\r\nHost: ").count(), "{all}");
}
