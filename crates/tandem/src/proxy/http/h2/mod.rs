//! Talks HTTP/2 to clients and to endpoints.
//! In: a connection. Out: for each of its streams a `Stream` that looks like a connection of
//! HTTP/1.1 with one request.
//! Why so: what a request is worth, where it goes, when it is sent again, what is refused and what
//! is counted is decided once, for bytes of HTTP/1.1, and whoever reads those is strict. A stream
//! that is written in them cannot get past any of it. See docs/adr/0016.
//! Keeps: all bounds of a connection are here: streams, windows, heads, and what waits to be sent.
//! Not here: frames and their compression (the crate `h2`), decisions (`session.rs`,
//! `exchange.rs`).
//! Tested by: `tests/h2/`, the modules below.

mod client;
mod endpoint;
#[cfg(test)]
mod fuzz;
mod head;
mod incoming;
mod io;
mod life;
mod link;
mod meter;
mod outgoing;
mod serve;
mod upgrade;

use super::stream::Stream;
pub(in crate::proxy) use client::ClientStream;
pub(in crate::proxy) use endpoint::EndpointStream;
pub(super) use endpoint::Refused;
#[cfg(test)]
pub(super) use head::onward;
pub(in crate::proxy) use link::once;
pub(super) use link::{Links, Opening};
pub(super) use serve::{Server, serve};

use std::io::{Error, ErrorKind};

/// How TLS calls it.
pub(super) const ALPN: &[u8] = b"h2";
/// With what a client begins (RFC 9113, 3.4), as far as HTTP/1.1 would call it a head.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// With what it goes on before its first frame.
const PREFACE_REST: usize = 6;
/// Streams of one connection at once: as many as a page has parts, and as the standard asks for.
const STREAMS_MAX: u32 = 100;
/// What may be under way on one stream before somebody took it.
const STREAM_WINDOW: u32 = 64 * 1024;
/// And on all streams of a client's connection.
const CLIENT_WINDOW: u32 = 1024 * 1024;
/// What the small frames that came and that nobody took yet may cost, as the crate `h2` counts: 256
/// less their length each. Calls of gRPC are full of them, and many come with one read, before
/// whoever they are for has a turn; each costs some 200 bytes until then. A client: a window full
/// of messages of 100 bytes, twice over.
const CLIENT_CRUMBS: usize = 4 * 1024 * 1024;
/// An endpoint, whose connection others use too: a stream full of single bytes.
const ENDPOINT_CRUMBS: usize = 256 * STREAM_WINDOW as usize;
/// Of so many streams that clients left within a second, what an endpoint still sends is passed
/// over unanswered: it was under way, and is no offence. Of others, each frame is answered by a
/// reset.
const ENDPOINT_RESETS: usize = 1000;

/// What a reader takes of a message that has a length, and maybe trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Its length; trailers are left out.
    Length,
    /// Trailers, if they are announced, and then no length.
    Either,
    /// Both.
    Both,
}

/// Tells an endpoint of HTTP/2 what HTTP/1.1, in which it gets its request, has no words for.
pub(super) fn introduce(endpoint: &mut Stream, client: &Stream, minor: u8) {
    let Stream::H2Endpoint(endpoint) = endpoint else { return };
    match client {
        Stream::H2Client(client) => endpoint.asked_by(Takes::Both, client.counted()),
        _ if minor == 0 => endpoint.asked_by(Takes::Length, None),
        _ => endpoint.asked_by(Takes::Either, None),
    }
}

/// Tells a client of HTTP/2 the same of its response.
pub(super) fn tell_length(client: &mut Stream, endpoint: &Stream) {
    if let (Stream::H2Client(client), Stream::H2Endpoint(endpoint)) = (client, endpoint) {
        client.will_have(endpoint.counted());
    }
}

/// What ended a stream, for those who know only connections.
fn broken(error: h2::Error) -> Error {
    match error.into_io() {
        Some(error) => error,
        None => ErrorKind::ConnectionReset.into(),
    }
}
