//! Talks to an endpoint about one request, on a connection that others use too, as if it were a
//! connection of its own.
//! In: a request as HTTP/1.1 has it. Out: its response, the same way.
//! States: New → (head) Sent → (interim heads) → Answered; another protocol: Answered, then bytes
//! both ways.
//! Keeps: what the endpoint says that it did not look at is told apart from what broke (H43).
//! Not here: the connection (`link.rs`), when a request is sent again (`exchange.rs`).
//! Tested by: `tests/h2/endpoints.rs`.

use super::head::{self, Written};
use super::incoming::Incoming;
use super::link::Link;
use super::outgoing::Outgoing;
use super::upgrade::{self, Upgrade};
use super::{Takes, broken};
use crate::proxy::http::wire::fields;
use crate::proxy::http::wire::framing::Framing;
use crate::proxy::http::wire::request::{self, Method, more_fields};
use crate::proxy::http::wire::response::INTERIM_MAX;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::time::timeout;

/// For the end of a response behind its last byte.
const ENDS_WITHIN: Duration = Duration::from_millis(100);

/// One request at an endpoint.
pub(in crate::proxy) struct EndpointStream {
    link: Arc<Link>,
    send: SendRequest<Bytes>,
    kind: Method,
    /// What whoever asks takes of a response.
    takes: Takes,
    /// How long the body of the request is that comes in chunks.
    length: Option<u64>,
    /// And that of the response.
    counted: Option<u64>,
    /// As what it is opened, and the key of a WebSocket.
    opens: Option<(Upgrade, Vec<u8>)>,
    outgoing: Option<Outgoing>,
    response: Option<ResponseFuture>,
    incoming: Option<Incoming>,
    interim: u32,
    /// Heads that came.
    text: Vec<u8>,
    text_used: usize,
    failed: Option<io::Error>,
    refused: Option<Refused>,
    /// Its connection had answered others, and had nothing under way when it was taken.
    was_idle: bool,
    is_stale: bool,
}

/// How an endpoint said that it did nothing with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum Refused {
    /// Its connection takes no more of them: another one may.
    Connection,
    /// Its connection was new and answered nobody: whoever ends them all like that does not serve.
    NewConnection,
    /// It does not want this one now.
    Request,
}

impl std::fmt::Debug for EndpointStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointStream").finish_non_exhaustive()
    }
}

impl EndpointStream {
    pub(super) fn new(link: Arc<Link>, send: SendRequest<Bytes>, was_idle: bool) -> Self {
        Self {
            link,
            send,
            kind: Method::Other,
            takes: Takes::Length,
            length: None,
            counted: None,
            opens: None,
            outgoing: None,
            response: None,
            incoming: None,
            interim: 0,
            text: Vec::new(),
            text_used: 0,
            failed: None,
            refused: None,
            was_idle,
            is_stale: false,
        }
    }

    /// Who asks takes this of a response, and its own body, in chunks, is so long.
    pub(super) fn asked_by(&mut self, takes: Takes, length: Option<u64>) {
        (self.takes, self.length) = (takes, length);
    }

    /// How long the body of a response is that comes in chunks; none if nobody knows.
    pub(super) const fn counted(&self) -> Option<u64> {
        self.counted
    }

    /// The endpoint did nothing with the request, and said so.
    pub(in crate::proxy::http) const fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// Its connection was idle before, and closed without a word about the request.
    pub(in crate::proxy::http) const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// What an end of the connection means for those of whom nothing was done.
    fn turned_away(&self) -> Refused {
        if self.link.has_answered() { Refused::Connection } else { Refused::NewConnection }
    }

    /// What the end of a stream says. One that the endpoint did look at ends with its connection,
    /// and by no GOAWAY.
    fn refused_by(&self, error: &h2::Error) -> Option<Refused> {
        if !error.is_remote() {
            None
        } else if error.is_go_away() {
            Some(self.turned_away())
        } else {
            (error.reason() == Some(Reason::REFUSED_STREAM)).then_some(Refused::Request)
        }
    }

    /// Nothing of the request was sent, nor will be: whoever reads learns that.
    fn unsent(&mut self, error: h2::Error) -> io::Error {
        self.refused = Some(self.turned_away());
        self.failed = Some(io::ErrorKind::ConnectionReset.into());
        broken(error)
    }

    /// Takes some of a request, at least one byte; the head at once.
    pub(in crate::proxy::http) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(outgoing) = &mut self.outgoing {
            return outgoing.poll_write(cx, bytes);
        }
        if let Err(error) = ready!(self.send.poll_ready(cx)) {
            return Poll::Ready(Err(self.unsent(error)));
        }
        let taken = self.head(bytes);
        if taken.is_err() && self.failed.is_none() {
            // It cannot be written: whoever waits for a response waits in vain, and that is not the
            // endpoint's fault.
            self.refused = Some(Refused::Request);
            self.failed = Some(io::ErrorKind::InvalidData.into());
        }
        Poll::Ready(taken)
    }

    fn head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = more_fields();
        let Ok(Some(read)) = request::read(bytes, &mut room, (usize::MAX, u64::MAX)) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        self.kind = read.kind;
        let opens = read.upgrade.filter(|_| read.method == "GET").and_then(Upgrade::named);
        let opens = opens.filter(|_| self.send.is_extended_connect_protocol_enabled());
        let key = |it: &&httparse::Header<'_>| it.name.eq_ignore_ascii_case("sec-websocket-key");
        let key = read.fields.iter().find(key).map(|it| it.value.to_vec());
        self.opens = opens.map(|protocol| (protocol, key.unwrap_or_default()));
        if self.takes == Takes::Either && teaches(read.fields) {
            self.takes = Takes::Both;
        }
        let at = self.link.address.to_string();
        let mut request = head::onward(&read, (self.link.scheme(), &at), opens)?;
        let framing = if opens.is_some() { Framing::Close } else { read.framing };
        if let Some(protocol) = opens {
            request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol.name()));
        }
        head::says_length(request.headers_mut(), framing, self.length);
        let is_all = head::is_all(framing);
        self.link.asked();
        let sent = self.send.send_request(request, is_all);
        let (response, stream) = sent.map_err(|error| self.unsent(error))?;
        self.response = Some(response);
        self.outgoing = Some(Outgoing::new(stream, framing, is_all));
        Ok(read.length)
    }

    /// Ready once a read would give something, the end included.
    pub(in crate::proxy::http) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.text_used < self.text.len() || self.failed.is_some() {
                return Poll::Ready(());
            }
            if let Some(incoming) = &mut self.incoming {
                return incoming.poll_next(cx).map(|_| ());
            }
            // It is polled again when its head is sent.
            let Some(response) = &mut self.response else { return Poll::Pending };
            if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
                self.hinted(interim);
                continue;
            }
            match ready!(Pin::new(response).poll(cx)) {
                Ok(response) => self.answered(response),
                Err(error) => {
                    self.refused = self.refused_by(&error);
                    self.is_stale = self.was_idle && error.is_io();
                    self.failed = Some(broken(error));
                }
            }
        }
    }

    /// Takes what comes while nobody reads.
    pub(in crate::proxy::http) fn soak(&mut self, cx: &mut Context<'_>) {
        if let Some(incoming) = &mut self.incoming {
            incoming.soak(cx);
            return;
        }
        while let (Some(response), None) = (&mut self.response, &self.failed) {
            let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) else { return };
            self.hinted(interim);
        }
    }

    fn hinted(&mut self, interim: http::Response<()>) {
        self.interim += 1;
        let (parts, ()) = interim.into_parts();
        self.came(head::response(&parts, false, (self.kind, Takes::Length)));
        if self.interim > INTERIM_MAX {
            self.failed = Some(io::ErrorKind::InvalidData.into());
        }
    }

    fn answered(&mut self, response: http::Response<RecvStream>) {
        let (parts, body) = response.into_parts();
        self.link.answered();
        if let (Some((protocol, key)), true) = (&self.opens, parts.status.is_success()) {
            let mut text = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n".to_vec();
            head::field(&mut text, "Upgrade", protocol.name().as_bytes());
            if *protocol == Upgrade::WebSocket {
                head::field(&mut text, "Sec-WebSocket-Accept", upgrade::accept(key).as_bytes());
            }
            for (name, value) in &parts.headers {
                head::field(&mut text, name.as_str(), value.as_bytes());
            }
            text.extend_from_slice(b"\r\n");
            self.came(Ok(Written { text, is_chunked: false, counted: None }));
            self.incoming = Some(Incoming::counted(body, false, &self.link.watch));
            return;
        }
        let written = head::response(&parts, body.is_end_stream(), (self.kind, self.takes));
        let is_chunked = written.as_ref().is_ok_and(|written| written.is_chunked);
        self.counted = written.as_ref().ok().and_then(|written| written.counted);
        self.came(written);
        self.incoming = Some(Incoming::counted(body, is_chunked, &self.link.watch));
    }

    fn came(&mut self, head: Result<Written, head::Malformed>) {
        match head {
            Ok(Written { text, .. }) if self.text_used == self.text.len() => {
                (self.text, self.text_used) = (text, 0);
            }
            Ok(Written { text, .. }) => self.text.extend_from_slice(&text),
            Err(head::Malformed) => self.failed = Some(io::ErrorKind::InvalidData.into()),
        }
    }

    pub(in crate::proxy::http) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_next(cx));
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let text = &self.text[self.text_used..];
        let now = text.len().min(into.remaining());
        into.put_slice(&text[..now]);
        self.text_used += now;
        match &mut self.incoming {
            Some(incoming) if now == 0 => incoming.poll_read(cx, into),
            Some(_) | None => Poll::Ready(Ok(())),
        }
    }

    /// Lets a response that was read whole end at its endpoint as well, for which nobody waits: its
    /// end may come in a frame of its own, and whoever lets go before tells that nobody wants it.
    pub(in crate::proxy::http) fn ends_by_itself(mut self: Box<Self>, tasks: &Supervisor) {
        let mut nobody = Context::from_waker(Waker::noop());
        if self.poll_end(&mut nobody).is_ready() {
            return;
        }
        tasks.spawn("end of a response", TaskKind::Session, async move {
            let _ = timeout(ENDS_WITHIN, poll_fn(|cx| self.poll_end(cx))).await;
        });
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(()) };
        incoming.poll_next(cx).map(|_| ())
    }

    /// Nothing more is sent.
    pub(in crate::proxy::http) fn finish(&mut self) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.finish();
        }
    }
}

/// It says that it takes trailers: nothing else is left of what it says by that field
/// (`wire/rewrite.rs`).
fn teaches(fields: &[httparse::Header<'_>]) -> bool {
    fields.iter().any(|it| fields::Field::of(it.name) == fields::Field::Te)
}

impl Drop for EndpointStream {
    fn drop(&mut self) {
        self.link.freed();
    }
}
