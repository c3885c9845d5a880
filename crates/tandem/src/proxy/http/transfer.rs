//! Talks to a client and an endpoint about one request: both bodies, side by side, as they come.
//! In: a head to send, two connections. Out: `End`.
//! States of the response: Head → (1xx) Head → Body → Done; Head → (101) Switched.
//! Keeps: nothing is kept but one buffer each way: who reads slowly is read from slowly. A response
//! is sent on while its request still comes. What an endpoint sends beyond its response is never
//! part of another one.
//! Not here: which endpoint, and what an end means (`exchange.rs`).
//! Tested by: `tests/`.

mod late;
mod owned;
mod terms;

pub(super) use owned::Kept;
pub(super) use terms::{End, Terms};

use super::h2;
use super::session::Client;
use super::stream::{BUFFER, Stream};
use super::wire::framing::{Bad, Body, Framing};
use super::wire::request::{self, no_fields};
use super::wire::response::{self, INTERIM_MAX};
use super::wire::rewrite::{self, Onward};
use crate::proxy::balancer::member::Owed;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// So much of a body is copied behind its head: one piece costs the system less than two.
const SMALL: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body,
    Switched,
}

/// One request and its response.
pub(super) struct Transfer<'a> {
    terms: Terms<'a>,
    client: &'a mut Client,
    pub(super) endpoint: Stream,
    /// Of the request.
    head_sent: usize,
    body: Body,
    /// So many unread bytes of the client are the body's.
    body_ready: usize,
    /// Some of it is gone, and could not be sent once more.
    pub(super) took_body: bool,
    /// An encrypted stream has some of it that its socket does not take yet.
    is_unflushed: bool,
    /// The endpoint takes no more of it.
    is_deaf: bool,
    /// Of the response.
    state: State,
    out_sent: usize,
    /// An encrypted stream has some of it that its socket does not take.
    holds_back: bool,
    answer: Body,
    answer_ready: usize,
    /// Only the content of the response goes on.
    unchunk: bool,
    /// The client finds its end by that of the connection.
    pub(super) ends_by_close: bool,
    interim: u32,
    seen: usize,
    pub(super) status: Option<u16>,
    is_reusable: bool,
    keep_alive: bool,
    /// Something came from the endpoint.
    pub(super) endpoint_spoke: bool,
    sent_at: Instant,
    /// There while the endpoint owes an answer to all that it was sent.
    owed: Option<Owed<'a>>,
    moved_at: Instant,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(terms: Terms<'a>, client: &'a mut Client, mut endpoint: Stream) -> Self {
        let now = Instant::now();
        h2::introduce(&mut endpoint, &client.stream, terms.order.minor);
        client.out.clear();
        client.kept.begin();
        client.spare.consume(usize::MAX);
        Self {
            body: Body::new(terms.order.framing, terms.config.body_bytes_max),
            terms,
            client,
            endpoint,
            head_sent: 0,
            body_ready: 0,
            took_body: false,
            is_unflushed: false,
            is_deaf: false,
            state: State::Head,
            out_sent: 0,
            holds_back: false,
            answer: Body::new(Framing::Empty, u64::MAX),
            answer_ready: 0,
            unchunk: false,
            ends_by_close: false,
            interim: 0,
            seen: 0,
            status: None,
            is_reusable: false,
            keep_alive: false,
            endpoint_spoke: false,
            sent_at: now,
            owed: None,
            moved_at: now,
        }
    }

    /// Ready when it is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut moved = false;
        if !self.is_sent()
            && !self.is_deaf
            && let Poll::Ready(Err(end)) = self.poll_up(cx, &mut moved)
        {
            return Poll::Ready(end);
        }
        let mut answer_moved = false;
        if let Poll::Ready(end) = self.poll_down(cx, &mut answer_moved) {
            return Poll::Ready(end);
        }
        if self.is_held_up() {
            let _ = self.endpoint.poll_gone(cx);
        }
        // Whoever leaves wants no answer: its endpoint shall not work on it.
        let is_gone = match self.is_sent() {
            true => self.client.poll_left(cx),
            false => self.client.stream.poll_gone(cx),
        };
        if is_gone.is_ready() {
            return Poll::Ready(End::Left);
        }
        let moved = (moved || answer_moved).then(Instant::now);
        self.moved_at = moved.unwrap_or(self.moved_at);
        self.terms.progress.note(moved.filter(|_| answer_moved), self.is_held_up());
        self.poll_timer(cx)
    }

    /// The client has had no response, not even the beginning of one.
    pub(super) fn can_reply(&self) -> bool {
        self.status.is_none() && (self.out_sent == 0 || self.out_sent == self.client.out.len())
    }

    /// What is left of it: nobody waits for an answer any more.
    pub(super) fn into_endpoint(self) -> Stream {
        self.endpoint
    }

    fn is_sent(&self) -> bool {
        self.has_taken_all() && self.body.is_done()
    }

    /// Nothing of what the client has sent is still to go.
    fn has_taken_all(&self) -> bool {
        let is_head_sent = self.head_sent == self.client.head.len();
        is_head_sent && self.body_ready == 0 && !self.is_unflushed
    }

    /// The client takes nothing of its own response.
    fn is_held_up(&self) -> bool {
        self.answer_ready > 0 || self.out_sent < self.client.out.len() || self.holds_back
    }

    /// The request, on its way to the endpoint.
    fn poll_up(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<(), End>> {
        loop {
            if self.body_ready == 0 {
                self.scan_request()?;
            }
            let head = &self.client.head[self.head_sent..];
            let body = &self.client.input.unread()[..self.body_ready];
            if !head.is_empty() || !body.is_empty() {
                let head_left = head.len();
                let Ok(written) = ready!(self.endpoint.poll_write_both(cx, (head, body))) else {
                    // It may have answered before it closed: that is to be read.
                    self.is_deaf = true;
                    return Poll::Ready(Ok(()));
                };
                let of_head = written.min(head_left);
                self.head_sent += of_head;
                self.is_unflushed = true;
                self.body_ready -= written - of_head;
                self.took_body |= written > of_head;
                self.keep(written - of_head);
                self.client.input.consume(written - of_head);
                *moved = true;
                continue;
            }
            if self.is_unflushed {
                // Nothing but this makes it leave: to read from the endpoint does not.
                if ready!(self.endpoint.poll_flush(cx)).is_err() {
                    self.is_deaf = true;
                    return Poll::Ready(Ok(()));
                }
                (self.is_unflushed, *moved) = (false, true);
            }
            if self.body.is_done() {
                self.sent_at = Instant::now();
                self.owed = self.status.is_none().then(|| self.terms.member.asked());
                return Poll::Ready(Ok(()));
            }
            let Client { stream, input, .. } = &mut *self.client;
            match ready!(input.poll_fill(stream, BUFFER, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(End::Left)),
                Ok(_) => *moved = true,
            }
        }
    }

    /// Finds out how much of what the client sent is the body's.
    fn scan_request(&mut self) -> Result<(), End> {
        loop {
            let bytes = &self.client.input.unread()[self.body_ready..];
            if bytes.is_empty() {
                return Ok(());
            }
            let piece = self.body.next(bytes).map_err(|bad| match bad {
                Bad::Framing(why) => End::Refused(request::Refusal::Bad(why)),
                Bad::TooLong => End::Refused(request::Refusal::BodyTooLong),
            })?;
            self.body_ready += piece.length;
            if piece.length == 0 || self.body.is_done() {
                return Ok(());
            }
        }
    }

    /// The response, on its way to the client.
    fn poll_down(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<End> {
        loop {
            if let Err(end) = self.scan_response() {
                return Poll::Ready(end);
            }
            match ready!(self.poll_deliver(cx, moved)) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(end) => return Poll::Ready(end),
            }
            match self.state {
                State::Switched => return Poll::Ready(End::Switched),
                State::Body if self.answer.is_done() => return Poll::Ready(self.done()),
                State::Head | State::Body => {}
            }
            let max = match self.state {
                State::Head => self.terms.config.head_bytes_max,
                State::Body | State::Switched => BUFFER,
            };
            match ready!(self.client.spare.poll_fill(&mut self.endpoint, max, cx)) {
                Ok(0) if self.answer.ends_by_close() => return Poll::Ready(self.done()),
                Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => {
                    // It may say what the client has said.
                    return Poll::Ready(End::Unfit("its head is too long"));
                }
                Ok(0) | Err(_) => return Poll::Ready(End::Broke),
                Ok(_) => {
                    self.endpoint_spoke = true;
                    *moved = true;
                }
            }
        }
    }

    /// Writes what is ready for the client; true if something was.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, moved: &mut bool) -> Poll<Result<bool, End>> {
        let mut delivered = false;
        loop {
            let Client { stream, out, spare, .. } = &mut *self.client;
            if self.out_sent < out.len() && (1..=SMALL).contains(&self.answer_ready) {
                out.extend_from_slice(&spare.unread()[..self.answer_ready]);
                spare.consume(std::mem::take(&mut self.answer_ready));
            }
            let head = &out[self.out_sent..];
            let body = &spare.unread()[..self.answer_ready];
            if head.is_empty() && body.is_empty() {
                let flushed = stream.poll_flush(cx);
                self.holds_back = flushed.is_pending();
                return flushed.map(|ok| ok.map(|()| delivered).map_err(|_| End::Left));
            }
            let head_left = head.len();
            let Ok(written) = ready!(stream.poll_write_both(cx, (head, body))) else {
                return Poll::Ready(Err(End::Left));
            };
            let of_head = written.min(head_left);
            self.out_sent += of_head;
            self.answer_ready -= written - of_head;
            spare.consume(written - of_head);
            delivered = true;
            *moved = true;
        }
    }

    /// Finds out what of what the endpoint sent goes on.
    fn scan_response(&mut self) -> Result<(), End> {
        while self.state == State::Head && self.take_head()? {}
        if self.state != State::Body {
            return Ok(());
        }
        loop {
            let bytes = &self.client.spare.unread()[self.answer_ready..];
            if bytes.is_empty() || (self.unchunk && self.answer_ready > 0) {
                return Ok(());
            }
            let piece = self.answer.next(bytes).map_err(|bad| match bad {
                Bad::Framing(why) => End::Nonsense(why),
                Bad::TooLong => End::Nonsense("its body is too long"),
            })?;
            if self.unchunk && !piece.is_content {
                self.client.spare.consume(piece.length);
            } else {
                self.answer_ready += piece.length;
            }
            if piece.length == 0 || self.answer.is_done() {
                return Ok(());
            }
        }
    }

    /// Takes one head; false if it has not come whole.
    fn take_head(&mut self) -> Result<bool, End> {
        let (can_reply, is_sent) = (self.can_reply(), self.is_sent());
        let Client { stream, spare, out, input, kept, .. } = &mut *self.client;
        let bytes = spare.unread();
        if !super::session::may_be_whole(bytes, &mut self.seen) {
            return Ok(false);
        }
        let (mut room, order) = (no_fields(), self.terms.order);
        let head = response::read(bytes, &mut room, order.kind);
        let Some(head) = head.map_err(|response::Bad(why)| End::Nonsense(why))? else {
            return Ok(false);
        };
        self.seen = 0;
        let (status, length) = (head.status, head.length);
        let (framing, is_old) = (head.framing, order.minor == 0);
        let mut onward = Onward { framing, keep_alive: false, is_old, cookie: None };
        if head.is_interim() {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(End::Nonsense("it has no end of interim responses"));
            }
            // HTTP/1.0 has none; and who expects nothing would take it for the answer.
            if order.minor == 1 && (status != 100 || order.expects) {
                rewrite::response(out, &head, onward);
            }
            spare.consume(length);
            return Ok(true);
        }
        if owned::is_turned_away(self.terms, status) && can_reply && kept.gives_back(input) {
            return Err(End::Misdirected);
        }
        if status == 101 && !order.upgrades {
            return Err(End::Nonsense("it changes to a protocol that nobody asked for"));
        }
        if order.upgrades && stream.is_one_request() && (200..300).contains(&status) {
            return Err(End::Unfit("it does not change the protocol, and says that all is well"));
        }
        self.unchunk = order.minor == 0 && head.framing == Framing::Chunked;
        if self.unchunk {
            onward.framing = Framing::Close;
        }
        self.ends_by_close = onward.framing == Framing::Close;
        if self.ends_by_close {
            // Until it is done, whatever ends this: half of it shall not look whole.
            stream.reset_when_dropped();
        }
        self.keep_alive = order.keep_alive
            && is_sent
            && !self.ends_by_close
            && !self.terms.closing.is_cancelled();
        onward.keep_alive = self.keep_alive;
        onward.cookie = self.terms.cookie;
        rewrite::response(out, &head, onward);
        h2::tell_length(stream, &self.endpoint);
        self.is_reusable = head.keep_alive;
        self.answer = Body::new(head.framing, u64::MAX);
        self.state = if status == 101 { State::Switched } else { State::Body };
        self.status = Some(status);
        spare.consume(length);
        // What it says before it has the whole request says nothing of how long it takes.
        let owed = self.owed.take().filter(|_| is_sent);
        self.terms.member.answered(owed.map(|owed| (owed, self.sent_at.elapsed())));
        Ok(false)
    }

    fn done(&self) -> End {
        if self.ends_by_close {
            self.client.stream.end_when_dropped();
        }
        let is_reusable = self.is_reusable && self.is_sent() && self.client.spare.is_empty();
        End::Done { is_reusable, keep_alive: self.keep_alive && self.is_sent() }
    }
}
