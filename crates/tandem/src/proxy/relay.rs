//! Talks to both legs of a routed session: copies bytes, in one task, until something ends it.
//! In: two streams, the session's lease. Out: `End`, and what may still be said to the client.
//! Keeps: H2 and H41, a cut is looked at before any byte moves, and what an old primary said but
//! the client has not got is dropped; H11, nothing passes after the warning; H13, no statement
//! passes that lowers what commits wait for, and what was answered before it still does.
//! Costs per round trip: two reads, two writes. A read that does not fill the buffer is not
//! followed by another one (tokio then knows that the socket is empty), and a buffer exists only
//! while bytes are on their way.
//! Not here: what the client is told at the end (`session.rs`).
//! Tested by: `tests/`.

use super::flow::Flow;
use super::hold::Routed;
use super::pgwire::durability::Lowered;
use super::pgwire::scan::{Asked, Scan};
use super::pgwire::walk::{Seen, Violation, Walker};
use super::registry::{Cut, Lease};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// A client's farewell; looked at only to know whether the server's closing needs words.
const TERMINATE: &[u8] = b"X\0\0\0\x04";
/// Makes a server send what it has, and commits nothing.
const FLUSH: &[u8] = b"H\0\0\0\x04";

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client left, or takes nothing.
    ClientLeft,
    /// The server closed the connection.
    ServerLeft,
    /// Stopped from outside.
    Cut(Cut),
    /// A commit was not confirmed by any standby (H11).
    LocalCommit,
    /// The client's next statement would lower what the service promises (H13).
    Refused(Lowered),
    /// The server does not speak the protocol.
    Violation(Violation),
}

/// What there is to know about the way up.
pub(super) struct Upstream {
    /// What the client sent already.
    pub(super) early: Vec<u8>,
    /// What goes up.
    pub(super) scan: Scan,
    /// How long a server may go on once nothing more comes up.
    pub(super) linger: Duration,
}

/// A routed session.
pub(super) struct Relay {
    pub(super) client: TcpStream,
    server: TcpStream,
    lease: Lease,
    walker: Walker,
    scan: Scan,
    /// Why nothing more goes up.
    refused: Option<Lowered>,
    /// Client to server; none once that direction is over.
    up: Option<Flow>,
    /// Server to client.
    down: Flow,
    /// What follows from the client must not go up.
    no_more: bool,
    client_left: bool,
    said_goodbye: bool,
    server_left: bool,
    local_commit: bool,
    linger: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Relay {
    pub(super) fn new(
        client: TcpStream,
        routed: Routed,
        upstream: Upstream,
    ) -> Result<Self, Violation> {
        let Routed { server, lease, first } = routed;
        let Upstream { early, scan, linger } = upstream;
        let mut up = Flow::holding(early);
        let mut relay = Self {
            client,
            server,
            lease,
            walker: Walker::new(),
            scan,
            refused: None,
            up: None,
            down: Flow::holding(first),
            no_more: false,
            client_left: false,
            said_goodbye: false,
            server_left: false,
            local_commit: false,
            linger,
            lingering: None,
        };
        relay.scan(&mut up);
        relay.up = Some(up);
        relay.walk()?;
        Ok(relay)
    }

    /// Copies until the session ends.
    pub(super) async fn run(&mut self) -> End {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// What the client got so far is whole messages.
    pub(super) fn at_boundary(&self) -> bool {
        self.down.is_empty() && self.walker.at_boundary()
    }

    /// The client has not said or shown that it is done.
    pub(super) fn client_stays(&self) -> bool {
        !self.client_left && !self.said_goodbye
    }

    /// All that went up has been answered, and the client has the answers.
    pub(super) fn is_settled(&self) -> bool {
        self.at_boundary() && self.scan.is_settled()
    }

    /// How far the server's side of the conversation has come.
    pub(super) fn walker(&self) -> &Walker {
        &self.walker
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(cut) = self.lease.entry.poll_cut(cx) {
            return Poll::Ready(End::Cut(cut));
        }
        if let Some(mut up) = self.up.take() {
            match self.poll_up(&mut up, cx) {
                Poll::Ready(Ok(())) => self.linger(),
                Poll::Ready(Err(_)) => return Poll::Ready(End::ClientLeft),
                Poll::Pending => self.up = Some(up),
            }
        }
        let mut end = self.poll_down(cx);
        if end.is_pending()
            && let Some(sleep) = &mut self.lingering
        {
            end = sleep.as_mut().poll(cx).map(|()| End::ClientLeft);
        }
        self.or_refused(end)
    }

    fn linger(&mut self) {
        let limit = self.linger;
        self.lingering.get_or_insert_with(|| Box::pin(sleep(limit)));
    }

    /// A refusal is said once what came before it is answered, or will not be.
    fn or_refused(&mut self, end: Poll<End>) -> Poll<End> {
        if self.refused.is_none() {
            return end;
        }
        let over = match &end {
            Poll::Pending => self.is_settled(),
            Poll::Ready(end) => matches!(end, End::ServerLeft | End::ClientLeft),
        };
        match self.refused.take_if(|_| over) {
            Some(lowered) => Poll::Ready(End::Refused(lowered)),
            None => end,
        }
    }

    /// Ends well when nothing more will go up: the client closed its half or was refused, or the
    /// server takes nothing more but may have said why. An error means that the client is gone.
    /// A server whose client is gone finishes what it has, and undoes what is open.
    fn poll_up(&mut self, up: &mut Flow, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !up.is_empty() {
                self.said_goodbye = up.buffer.ends_with(TERMINATE);
                if ready!(up.poll_drain(&mut self.server, cx)).is_err() {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.client_left || self.no_more {
                // A failure here is seen as the server's end on the way down.
                let _ = ready!(Pin::new(&mut self.server).poll_shutdown(cx));
                return Poll::Ready(Ok(()));
            }
            self.client_left = ready!(up.poll_fill(&mut self.client, cx))? == 0;
            self.scan(up);
        }
    }

    /// Looks at what is to go up, before any of it does.
    fn scan(&mut self, up: &mut Flow) {
        if let Asked::Stop { at, flush, lowered } = self.scan.feed(&up.buffer) {
            up.buffer.truncate(at);
            if flush {
                up.buffer.extend_from_slice(FLUSH);
            }
            self.no_more = true;
            self.refused = lowered;
            // From here on, so that a server which takes nothing does not keep the client waiting.
            self.linger();
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if !self.down.is_empty() && ready!(self.down.poll_drain(&mut self.client, cx)).is_err()
            {
                return Poll::Ready(End::ClientLeft);
            }
            if self.local_commit {
                return Poll::Ready(End::LocalCommit);
            }
            if self.server_left {
                return Poll::Ready(End::ServerLeft);
            }
            // A reset says no more than an end does.
            self.server_left = ready!(self.down.poll_fill(&mut self.server, cx)).unwrap_or(0) == 0;
            if let Err(violation) = self.walk() {
                return Poll::Ready(End::Violation(violation));
            }
        }
    }

    /// Looks at what was just read.
    fn walk(&mut self) -> Result<(), Violation> {
        let seen = self.walker.feed(&self.down.buffer)?;
        self.scan.answered(self.walker.take_answers());
        if let Seen::LocalCommit(end) = seen {
            self.down.buffer.truncate(end);
            self.local_commit = true;
        }
        // Before the client gets it, so that no cancel can come too early.
        if let Some(key) = self.walker.take_key() {
            self.lease.remember(key);
        }
        Ok(())
    }
}
