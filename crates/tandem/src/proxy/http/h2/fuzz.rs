//! Builds frames from a seed, right ones and changed ones: what they become in HTTP/1.1 is one
//! message and no more for a reader of another make, however they come; nothing panics.
//! Both ends of a connection are in memory, and nothing waits: all that came is read at once.

use super::head::{self, Written};
use super::incoming::Incoming;
use super::meter::{Meter, Peer};
use super::{PREFACE, Takes, serve};
use crate::proxy::fuzz::{Random, cases};
use crate::proxy::http::HttpConfig;
use crate::proxy::http::tests::fuzz::reader::{self, Ends};
use crate::proxy::http::wire::framing::Framing;
use crate::proxy::http::wire::{request, response};
use bytes::Bytes;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::runtime::Runtime;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Changes worth more than any byte.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\r\n",
    b"\0\0\0\x00\x01\0\0\0\x01",
    b"\0\0\x01\x00\x00\0\0\0\x01x",
    b"\0\0\x04\x03\x00\0\0\0\x01\0\0\0\x08",
    b"\0\0\x04\x08\x00\0\0\0\0\0\0\x01\0",
    b"\0\0\x00\x04\x00\0\0\0\0",
    b"\0\0\x08\x06\x00\0\0\0\0question",
    b"\0\0\x05\x02\x00\0\0\0\x01\0\0\0\x03\x09",
    b"\0\0\x00\x4d\x00\0\0\0\x05",
    b"\x00\x0econtent-length\x011",
    b"\x00\x11transfer-encoding\x07chunked",
    b"\x00\x04host\x01b",
    b"\x00\x01a\x04b\r\nc",
    b"\x82",
    b"\x84",
    b"\x88",
];

const FIELDS: &[(&str, &[u8])] = &[
    ("accept", b"*/*"),
    ("cookie", b"a=b"),
    ("cookie", b"c=d"),
    ("te", b"trailers"),
    ("trailer", b"sum"),
    ("x-a", b""),
    ("x-b", b" \xc3\xa9\t!"),
    ("x-forwarded-for", b"10.0.0.1"),
    ("expect", b"100-continue"),
];

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

/// Without compression.
fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let length = |length: usize| u8::try_from(length).unwrap();
    let mut field = vec![0, length(name.len())];
    field.extend_from_slice(name.as_bytes());
    field.push(length(value.len()));
    field.extend_from_slice(value);
    field
}

/// The frames of one message by the book, and its body.
fn message(random: &mut Random, at: u8, pseudo: &[(&str, &str)]) -> (Vec<u8>, Vec<u8>) {
    let pieces: Vec<Vec<u8>> =
        (0..random.below(4)).map(|_| vec![b'a'; 1 + random.below(40)]).collect();
    let body = pieces.concat();
    let mut block: Vec<u8> = Vec::new();
    for (name, value) in pseudo {
        block.extend(field(name, value.as_bytes()));
    }
    for _ in 0..random.below(4) {
        let (name, value) = random.pick(FIELDS);
        block.extend(field(name, value));
    }
    if random.one_in(3) {
        block.extend(field("content-length", body.len().to_string().as_bytes()));
    }
    let is_trailed = random.one_in(4);
    let ends_at_once = pieces.is_empty() && !is_trailed && random.one_in(2);
    let end = if ends_at_once { END_STREAM } else { 0 };
    let cut = random.below(block.len());
    let mut frames = if random.one_in(4) {
        let rest = frame(CONTINUATION, END_HEADERS, at, &block[cut..]);
        [frame(HEADERS, end, at, &block[..cut]), rest].concat()
    } else {
        frame(HEADERS, end | END_HEADERS, at, &block)
    };
    for piece in &pieces {
        frames.extend(if random.one_in(4) {
            let padded = [&[3][..], piece, b"\0\0\0"].concat();
            frame(DATA, PADDED, at, &padded)
        } else {
            frame(DATA, 0, at, piece)
        });
    }
    if is_trailed {
        let trailers = [field("sum", b"7"), field("x-c", b"")].concat();
        frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, at, &trailers));
    } else if !ends_at_once {
        frames.extend(frame(DATA, END_STREAM, at, b""));
    }
    (frames, body)
}

fn requests(random: &mut Random) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut bytes, mut bodies) = (Vec::new(), Vec::new());
    for at in 0..=random.below(3) {
        let method = random.pick(&["GET", "POST", "HEAD", "OPTIONS", "M-SEARCH"]);
        let path = random.pick(&["/", "/a/b?c=d", "/%7Euser;p=1", "/?q=`"]);
        let host = random.pick(&["shop", "shop:80", "[::1]"]);
        let pseudo =
            [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)];
        let (frames, body) = message(random, u8::try_from(2 * at + 1).unwrap(), &pseudo);
        bytes.extend(frames);
        bodies.push(body);
    }
    (bytes, bodies)
}

/// Reads of a body until it ends, breaks, or more would have to come.
struct Reading {
    text: Vec<u8>,
    incoming: Incoming,
    body: Vec<u8>,
    end: Option<Result<(), std::io::ErrorKind>>,
}

impl Reading {
    fn new(written: Written, stream: h2::RecvStream) -> Self {
        let Written { text, is_chunked, counted } = written;
        assert!(is_chunked || counted.is_none(), "HTTP/1.1 has its length");
        Self { text, incoming: Incoming::new(stream, is_chunked), body: Vec::new(), end: None }
    }

    /// True if something came. `soaks`: as if nobody read for a while.
    fn poll(&mut self, cx: &mut Context<'_>, soaks: bool) -> bool {
        if soaks {
            self.incoming.soak(cx);
        }
        let mut came = false;
        while self.end.is_none() {
            let mut room = [0; 33];
            let mut into = ReadBuf::new(&mut room);
            match self.incoming.poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) if into.filled().is_empty() => self.end = Some(Ok(())),
                Poll::Ready(Ok(())) => self.body.extend_from_slice(into.filled()),
                Poll::Ready(Err(error)) => self.end = Some(Err(error.kind())),
                Poll::Pending => break,
            }
            came = true;
        }
        came
    }

    fn is_whole(&self) -> bool {
        self.end == Some(Ok(()))
    }
}

/// Whoever reads these takes this, the same however they come.
fn takes(pieces: &[&[u8]]) -> Takes {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    [Takes::Length, Takes::Either, Takes::Both][length % 3]
}

/// What a server of HTTP/2 makes of a client's bytes, which come in these pieces.
async fn serve_all(pieces: &[&[u8]], soaks: bool) -> Vec<Reading> {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let settings = frame(4, 0, 0, b"");
    near.write_all(&[PREFACE, b"SM\r\n\r\n", &settings].concat()).await.unwrap();
    let config = HttpConfig::default();
    let mut connection = serve::builder(&config).handshake::<_, Bytes>(far).await.unwrap();
    // Who answers is kept until the end: dropped, it would reset its stream.
    let (mut seen, mut respond) = (Vec::new(), Vec::new());
    let (mut is_gone, takes) = (false, takes(pieces));
    for piece in pieces {
        near.write_all(piece).await.unwrap();
        poll_fn(|cx| {
            loop {
                let mut moves = false;
                while !is_gone && let Poll::Ready(accepted) = connection.poll_accept(cx) {
                    let Some(Ok((request, send))) = accepted else {
                        is_gone = true;
                        break;
                    };
                    let (parts, body) = request.into_parts();
                    respond.push(send);
                    let written = head::request(&parts, (body.is_end_stream(), None), (takes, 100));
                    if let Ok(written) = written {
                        seen.push(Reading::new(written, body));
                    }
                    moves = true;
                }
                for it in &mut seen {
                    moves |= it.poll(cx, soaks);
                }
                if !moves {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }
    seen
}

/// It is one request for every reader, or refused by the one that reads everybody's.
fn one_request(seen: &Reading) {
    let mut room = request::more_fields();
    let Ok(head) = request::read(&seen.text, &mut room, (usize::MAX, u64::MAX)) else { return };
    let head = head.expect("whole");
    let other = reader::head(&seen.text).expect("taken").expect("whole");
    assert_eq!((head.length, other.length), (seen.text.len(), seen.text.len()));
    assert_eq!(other.start[0], head.method);
    assert!(reader::is_target(head.target));
    one_body(seen, other.ends().expect("one framing"));
}

/// It ends where its head says, and only a whole one ends well.
fn one_body(seen: &Reading, ends: Ends) {
    match reader::body(ends, &seen.body).expect("taken") {
        Some((_, length)) => assert_eq!(length, seen.body.len(), "nothing behind it"),
        None => assert!(!seen.is_whole(), "it is not whole"),
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn run<T>(runtime: &Runtime, what: impl Future<Output = T>) -> T {
    runtime.block_on(tokio::task::unconstrained(what))
}

#[test]
fn fuzz_what_comes_by_http2_is_one_request_each_and_no_more() {
    let runtime = runtime();
    cases(1_500, |random| {
        let (mut bytes, bodies) = requests(random);
        let is_changed = !random.one_in(4);
        if is_changed {
            random.mutate(&mut bytes, PIECES);
        }
        let whole = run(&runtime, serve_all(&[&bytes], false));
        whole.iter().for_each(one_request);
        if !is_changed {
            assert_eq!(whole.len(), bodies.len(), "{}", bytes.escape_ascii());
            assert!(whole.iter().all(Reading::is_whole), "{}", bytes.escape_ascii());
        }
        let cut = random.cut(&bytes);
        for (pieces, soaks) in [(vec![&bytes[..]], true), (cut.clone(), false), (cut, true)] {
            let other = run(&runtime, serve_all(&pieces, soaks));
            other.iter().for_each(one_request);
            if !is_changed {
                let contents = other.iter().map(content).collect::<Vec<_>>();
                assert_eq!(contents, bodies, "{}", bytes.escape_ascii());
            }
        }
    });
}

/// Its content, whatever chunks it came in.
fn content(seen: &Reading) -> Vec<u8> {
    let head = reader::head(&seen.text).expect("taken").expect("whole");
    let ends = head.ends().expect("one framing");
    reader::body(ends, &seen.body).expect("taken").expect("whole").0
}

/// What a client of HTTP/2 makes of the bytes of an endpoint.
async fn ask(pieces: &[&[u8]], soaks: bool) -> Option<(Reading, Framing)> {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let (mut send, mut connection) =
        h2::client::Builder::new().handshake::<DuplexStream, Bytes>(far).await.unwrap();
    near.write_all(&frame(4, 0, 0, b"")).await.unwrap();
    let question = http::Request::get("http://shop/").body(()).unwrap();
    let (mut response, _) = send.send_request(question, true).unwrap();
    let (mut seen, mut is_over): (Option<(Reading, Framing)>, bool) = (None, false);
    let mut is_gone = false;
    // It is asked before it answers.
    for piece in [&[&b""[..]][..], pieces].concat() {
        near.write_all(piece).await.unwrap();
        poll_fn(|cx| {
            is_gone = is_gone || Pin::new(&mut connection).poll(cx).is_ready();
            while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {}
            if seen.is_none()
                && !is_over
                && let Poll::Ready(answer) = Pin::new(&mut response).poll(cx)
            {
                is_over = true;
                seen = answer.ok().and_then(|answer| read(answer, takes(pieces)));
            }
            if let Some((seen, _)) = &mut seen {
                seen.poll(cx, soaks);
            }
            Poll::Ready(())
        })
        .await;
    }
    seen
}

fn read(answer: http::Response<h2::RecvStream>, takes: Takes) -> Option<(Reading, Framing)> {
    let (parts, body) = answer.into_parts();
    let kind = request::Method::Idempotent;
    let written = head::response(&parts, body.is_end_stream(), (kind, takes)).ok()?;
    let seen = Reading::new(written, body);
    let mut room = request::more_fields();
    let head = response::read(&seen.text, &mut room, kind).ok()?.expect("whole");
    assert_eq!(head.length, seen.text.len());
    let framing = head.framing;
    Some((seen, framing))
}

fn ends(framing: Framing) -> Ends {
    match framing {
        Framing::Empty => Ends::None,
        Framing::Length(length) => Ends::After(length),
        Framing::Chunked => Ends::Chunked,
        Framing::Close => Ends::ByClose,
    }
}

#[test]
fn fuzz_what_an_endpoint_says_by_http2_is_one_response_and_no_more() {
    let runtime = runtime();
    cases(1_500, |random| {
        let status = random.pick(&["200", "404", "500"]);
        let (mut bytes, body) = message(random, 1, &[(":status", status)]);
        if random.one_in(4) {
            bytes = [frame(HEADERS, END_HEADERS, 1, &field(":status", b"103")), bytes].concat();
        }
        let is_changed = !random.one_in(4);
        if is_changed {
            random.mutate(&mut bytes, PIECES);
        }
        for (pieces, soaks) in [(vec![&bytes[..]], false), (random.cut(&bytes), true)] {
            let seen = run(&runtime, ask(&pieces, soaks));
            let Some((seen, framing)) = seen else {
                assert!(is_changed, "{}", bytes.escape_ascii());
                continue;
            };
            assert_ne!(framing, Framing::Close, "its end is known");
            one_body(&seen, ends(framing));
            if !is_changed {
                let whole = reader::body(ends(framing), &seen.body).expect("taken");
                assert_eq!(whole.expect("whole").0, body, "{}", bytes.escape_ascii());
            }
        }
    });
}

#[test]
fn fuzz_frames_are_counted_alike_however_they_come() {
    cases(3_000, |random| {
        let now = Instant::now();
        let (mut bytes, _) = requests(random);
        for _ in 0..random.below(3) {
            bytes
                .extend(frame(random.below(12) as u8, 0, 1, b"12345678").repeat(random.below(500)));
        }
        random.mutate(&mut bytes, PIECES);
        let peer = random.pick(&[Peer::Client, Peer::Endpoint]);
        let count = |pieces: &[&[u8]]| {
            let mut meter = Meter::new(peer, now);
            meter.asked();
            meter.wrote(100);
            let is_good = pieces.iter().all(|piece| meter.saw(piece, now));
            is_good.then(|| format!("{meter:?}"))
        };
        let whole = count(&[&bytes]);
        assert_eq!(count(&random.cut(&bytes)), whole, "{}", bytes.escape_ascii());
    });
}
