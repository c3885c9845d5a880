//! Requests that two readers could read in two ways: each is refused, its connection ends, and
//! nothing of it, nor of what follows, reaches an endpoint.

use super::support::*;
use tokio::io::AsyncWriteExt;

/// Would be a request of its own for whoever finds the end of the one before it too early.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n";

/// Refused by their heads: not one byte may reach an endpoint.
const HEADS: &[(&str, &[u8])] = &[
    (
        "CL.TE",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.CL",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
          Content-Length: 6\r\n\r\n0\r\n\r\n",
    ),
    (
        "CL.CL, equal",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "CL.CL, not equal",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n",
    ),
    ("CL list", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n"),
    ("CL sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n"),
    ("CL minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    ("CL hex", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\n"),
    ("CL empty", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
    ("CL too big", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"),
    ("CL space inside", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0 0\r\n\r\n"),
    ("CL null", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\0\r\n\r\n"),
    ("TE identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("TE list", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (
        "TE not last",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE twice",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE.TE",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
          Transfer-Encoding: x\r\n\r\n0\r\n\r\n",
    ),
    ("TE xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("TE quoted", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("TE empty", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
    (
        "TE vertical tab",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    ("TE in 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (
        "TE space before colon",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE tab before colon",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("folded TE", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("folded field", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n"),
    ("space before first field", b"GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n"),
    ("bare LF ends a line", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
    ("bare LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n"),
    ("bare LF before CRLF", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n\r\n"),
    ("bare LF line before the request", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "bare CR in a value",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n",
    ),
    ("bare CR ends a line", b"GET / HTTP/1.1\rHost: a\r\r"),
    ("null in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ("null in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n"),
    ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding chunked\r\n\r\n"),
    ("no name", b"GET / HTTP/1.1\r\nHost: a\r\n: chunked\r\n\r\n"),
    ("name with a bracket", b"GET / HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n"),
    ("no host", b"GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("host list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("another host in the target", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("user in the target", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no host in the target", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no slash", b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("star for GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("backtick", b"GET /a`b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("backslash", b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("high byte in the target", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("tab for space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("no version", b"GET /\r\nHost: a\r\n\r\n"),
    ("lower case version", b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("a method that is none", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a long method", b"GETGETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no method", b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
];

/// Refused in their bodies: what came before is sent on, the rest is not.
const BODIES: &[(&str, &[u8])] = &[
    ("size with a space", b"4 \r\nWiki\r\n0\r\n\r\n"),
    ("size with a sign", b"+4\r\nWiki\r\n0\r\n\r\n"),
    ("size with 0x", b"0x4\r\nWiki\r\n0\r\n\r\n"),
    ("size that overflows", b"10000000000000004\r\nWiki\r\n0\r\n\r\n"),
    ("size that is none", b"\r\n0\r\n\r\n"),
    ("size ended by LF", b"4\nWiki\r\n0\r\n\r\n"),
    ("size ended by CR", b"4\rWiki\r\n0\r\n\r\n"),
    ("extension with LF", b"4;a\nb\r\nWiki\r\n0\r\n\r\n"),
    ("extension with CR", b"4;a\rb\r\nWiki\r\n0\r\n\r\n"),
    ("chunk longer than its size", b"4\r\nWikipedia\r\n0\r\n\r\n"),
    ("chunk ended by LF", b"4\r\nWiki\n0\r\n\r\n"),
    ("trailer with a length", b"0\r\nContent-Length: 5\r\n\r\n"),
    ("trailer with a coding", b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("trailer ended by LF", b"0\r\nX: a\n\r\n"),
    ("trailer folded", b"0\r\nX: a\r\n b\r\n\r\n"),
];

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_reaches_nobody() {
    let (_supervisor, endpoint, balancer) = one().await;
    for (name, bytes) in HEADS {
        for step in [bytes.len(), 1, 7] {
            let mut client = Client::connect(&balancer).await;
            for part in bytes.chunks(step) {
                // It may be refused before its end.
                let _ = client.stream.write_all(part).await;
            }
            let _ = client.stream.write_all(SMUGGLED.as_bytes()).await;
            let all = client.rest().await;
            assert!(all.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{name}, by {step}: {all}");
            assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{name}, by {step}: {all}");
        }
    }
    assert_eq!(endpoint.bytes(), "");
    let refused = balancer.snapshot().http.unwrap().refused;
    assert_eq!(refused, 3 * HEADS.len() as u64);
}

#[tokio::test]
async fn a_body_that_can_be_read_in_two_ways_is_not_sent_on() {
    let (_supervisor, endpoint, balancer) = one().await;
    for (name, bytes) in BODIES {
        let mut client = Client::connect(&balancer).await;
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let all = [head.as_bytes(), bytes, SMUGGLED.as_bytes()].concat();
        let _ = client.stream.write_all(&all).await;
        let all = client.rest().await;
        assert!(all.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{name}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{name}: {all}");
    }
    let bytes = endpoint.bytes();
    assert!(!bytes.contains("smuggled"), "{bytes}");
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0, "that was no endpoint's fault");
    assert_eq!(get(&balancer, "/").await.body, "a");
}

#[tokio::test]
async fn what_only_looks_odd_is_served() {
    let (_supervisor, endpoint, balancer) = one().await;
    let fine: &[&[u8]] = &[
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:a\r\nX:\t b \t\r\n\r\n",
        b"GET / HTTP/1.1\r\nHOST: a\r\nEmpty:\r\n\r\n",
        b"GET /?a=%20&b[]=1|2;c HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\r\n\r\n",
        b"GET http://a:80/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 00\r\n\r\n",
    ];
    let mut client = Client::connect(&balancer).await;
    for bytes in fine {
        client.send(bytes).await;
        let response = client.response().await.unwrap();
        assert_eq!(response.status(), 200, "{} {response:?}", bytes.escape_ascii());
    }
    assert_eq!(endpoint.requests(), fine.len());
    let cases = [
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ];
    for (bytes, status) in cases {
        let mut client = Client::connect(&balancer).await;
        client.send(bytes).await;
        let all = client.rest().await;
        assert!(all.starts_with(&format!("HTTP/1.1 {status} ")), "{all}");
    }
    assert_eq!(endpoint.requests(), fine.len());
}

#[tokio::test]
async fn what_an_endpoint_sends_beyond_its_answer_is_nobodys() {
    let (_supervisor, endpoint, balancer) = one().await;
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.get("/more").await.unwrap().body, "a");
    let mut other = Client::connect(&balancer).await;
    for _ in 0..3 {
        assert_eq!(other.get("/").await.unwrap().body, "a");
        assert_eq!(client.get("/").await.unwrap().body, "a");
    }
    assert!(endpoint.connections() >= 2, "the first one was closed");
}
