//! Talks to a client about one request of its connection, as if it were a connection of its own.
//! In: a request of HTTP/2. Out: its bytes as HTTP/1.1 has them; takes those of its response.
//! States: Asked → (head) Answering → Answered; extended CONNECT: Asked → (101) → bytes both ways.
//! Keeps: what is not a whole response never ends the stream as if it were one.
//! Not here: the connection (`serve.rs`), what a response is (`exchange.rs`).
//! Tested by: `tests/h2/streams.rs`.

use super::head::{self, Written};
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::upgrade::Upgrade;
use super::{Takes, broken, io::Watch};
use crate::proxy::http::wire::fields::Field;
use crate::proxy::http::wire::framing::Framing;
use crate::proxy::http::wire::request::{Method, more_fields};
use crate::proxy::http::wire::response;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

/// One request of a client.
pub(in crate::proxy) struct ClientStream {
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    /// There once it has the head of its response.
    outgoing: Option<Outgoing>,
    kind: Method,
    /// It becomes a connection of another protocol.
    opens: Option<Upgrade>,
    /// How long the body of the request is that comes in chunks.
    counted: Option<u64>,
    /// And that of the response.
    length: Option<u64>,
    watch: Arc<Watch>,
}

impl std::fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientStream").finish_non_exhaustive()
    }
}

impl ClientStream {
    /// The stream, and the head of its request; none if that breaks the rules, which its client
    /// is told. `endpoints`: what those take of it, and how long its body may be.
    pub(super) fn new(
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        watch: &Arc<Watch>,
        endpoints: (Takes, u64),
    ) -> Option<(Self, Vec<u8>)> {
        let (parts, body) = request.into_parts();
        let protocol = parts.extensions.get::<h2::ext::Protocol>();
        let opens = protocol.and_then(|protocol| Upgrade::named(protocol.as_str()));
        if protocol.is_some() && opens.is_none() {
            // RFC 9220, 3.
            let mut unknown = http::Response::new(());
            *unknown.status_mut() = http::StatusCode::NOT_IMPLEMENTED;
            let _ = respond.send_response(unknown, true);
            return None;
        }
        let written = head::request(&parts, (body.is_end_stream(), opens), endpoints);
        let Ok(Written { text, is_chunked, counted }) = written else {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return None;
        };
        let kind = if parts.method == http::Method::HEAD { Method::Head } else { Method::Other };
        let incoming = Incoming::new(body, is_chunked);
        let stream = Self {
            incoming,
            respond,
            outgoing: None,
            kind,
            opens,
            counted,
            length: None,
            watch: Arc::clone(watch),
        };
        Some((stream, text))
    }

    /// How long the body of its request is that comes in chunks; none if nobody knows.
    pub(super) const fn counted(&self) -> Option<u64> {
        self.counted
    }

    /// Its response, in chunks, is so long.
    pub(super) fn will_have(&mut self, length: Option<u64>) {
        self.length = length;
    }

    fn is_answered(&self) -> bool {
        self.outgoing.as_ref().is_some_and(Outgoing::has_ended)
    }

    /// Ready once a read would give something, the end included.
    pub(in crate::proxy::http) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_answered() {
            return Poll::Ready(());
        }
        match ready!(self.incoming.poll_next(cx)) {
            Ok(false) if self.opens.is_none() => self.poll_reset(cx),
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    /// Takes what comes while nobody reads; ready when the client wants no response.
    pub(in crate::proxy::http) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_answered() {
            return Poll::Pending;
        }
        self.incoming.soak(cx);
        self.poll_reset(cx)
    }

    /// Ready when the client wants no response.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.outgoing {
            Some(outgoing) => outgoing.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(|_| ()),
        }
    }

    /// Reads of the body. A request that is whole is not the end: its client waits for a response,
    /// and is gone only when it says so.
    pub(in crate::proxy::http) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_answered() {
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(self.incoming.poll_read(cx, into))?;
        if into.filled().len() > before || self.opens.is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_reset(cx));
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Takes some of a response, at least one byte.
    pub(in crate::proxy::http) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.outgoing {
            Some(outgoing) => outgoing.poll_write(cx, bytes),
            None => Poll::Ready(self.head(bytes)),
        }
    }

    /// Takes one head, interim or not; how long it is.
    fn head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = more_fields();
        let Ok(Some(read)) = response::read(bytes, &mut room, self.kind) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if read.is_interim() {
            let interim = head::answer(&read, read.status)?;
            self.respond.send_informational(interim).map_err(broken)?;
            return Ok(read.length);
        }
        let switches = read.status == 101 && self.opens.is_some_and(|it| changes_to(&read, it));
        let is_success = (200..300).contains(&read.status);
        if !switches && (read.status == 101 || (self.opens.is_some() && is_success)) {
            // To this client every 2xx would be a change of protocol, to the one that it asked for.
            let mut refused = http::Response::new(());
            *refused.status_mut() = http::StatusCode::BAD_GATEWAY;
            let stream = self.respond.send_response(refused, true).map_err(broken)?;
            // It has its answer: what ends this now must not reset the stream before it is read.
            self.outgoing = Some(Outgoing::new(stream, Framing::Empty, true));
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut answer = head::answer(&read, if switches { 200 } else { read.status })?;
        if switches {
            answer.headers_mut().remove("sec-websocket-accept");
        }
        let framing = if switches { Framing::Close } else { read.framing };
        head::says_length(answer.headers_mut(), framing, self.length);
        let is_all = head::is_all(framing);
        let stream = self.respond.send_response(answer, is_all).map_err(broken)?;
        self.outgoing = Some(Outgoing::new(stream, framing, is_all));
        Ok(read.length)
    }

    /// Nobody did anything with the request: its client may send it again.
    pub(in crate::proxy::http) fn refuse(&mut self) {
        if self.outgoing.is_none() {
            self.respond.send_reset(Reason::REFUSED_STREAM);
        }
    }

    /// Nothing more of the response comes.
    pub(in crate::proxy::http) fn finish(&mut self) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.finish();
        }
    }
}

/// Whether the connection becomes what it was asked to become.
fn changes_to(head: &response::Head<'_, '_>, protocol: Upgrade) -> bool {
    let mut upgrades = head.fields.iter().filter(|it| Field::of(it.name) == Field::Upgrade);
    upgrades.any(|it| it.value.eq_ignore_ascii_case(protocol.name().as_bytes()))
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        match &mut self.outgoing {
            Some(outgoing) if outgoing.has_ended() => self.watch.served(),
            Some(outgoing) => outgoing.reset(),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}
