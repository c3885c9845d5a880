//! Talks to a client and an endpoint that changed to another protocol: copies both ways.
//! In: both connections, and what was read of them already. Out: nothing.
//! States: both ways → (one side closes) half open → Over; nothing moves for too long → Over.
//! Keeps: whoever broke first is remembered: what a client does is no fault of its endpoint.
//! Not here: who may change the protocol (`request.rs`), who is at fault (`tandem_core`).
//! Tested by: `tests/`.

use super::stream::{BUFFER, Buffer, Stream, Timer};
use crate::proxy::balancer::member::progress::Progress;
use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::ending::{self, End, Past, worked};
use tokio::time::Instant;

/// Silence that ends a half-open connection: as with one that is only copied.
const HALF_OPEN_MAX: Duration = Duration::from_secs(60);

/// Copies between a client and its endpoint to the end, or until `over`: then an error. False if
/// the endpoint took the connection and did nothing with it.
pub(in crate::proxy) async fn relay<T>(
    (mut client, mut endpoint): (Stream, Stream),
    (idle_timeout, progress): (Duration, &Progress),
    over: impl Future<Output = T>,
) -> Result<bool, T> {
    let (mut up, mut down, mut timer) = (Buffer::default(), Buffer::default(), Timer::new());
    let from = Side { stream: &mut client, input: &mut up };
    let to = Side { stream: &mut endpoint, input: &mut down };
    let mut tunnel = Tunnel::new(from, to, &mut timer, (idle_timeout, progress));
    let is_whole = tokio::select! {
        biased;
        is_whole = poll_fn(|cx| tunnel.poll(cx)) => Ok(is_whole),
        why = over => Err(why),
    };
    let has_worked = tunnel.worked.unwrap_or(true);
    let (up_is_over, down_is_over) = (tunnel.up_is_over, tunnel.down_is_over);
    // Nobody shall take half an answer for the whole; what was whole shall still be read.
    let is_broken = matches!(is_whole, Ok(false));
    if is_broken || !down_is_over {
        client.reset_when_dropped();
    }
    if is_broken || !up_is_over {
        endpoint.reset_when_dropped();
    }
    is_whole.map(|_| has_worked)
}

/// One side: its connection, and what was read of it.
pub(super) struct Side<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) input: &'a mut Buffer,
}

/// Both directions.
pub(super) struct Tunnel<'a> {
    pub(super) client: Side<'a>,
    pub(super) endpoint: Side<'a>,
    pub(super) timer: &'a mut Timer,
    pub(super) idle_timeout: Duration,
    progress: &'a Progress,
    begun: Instant,
    moved_at: Instant,
    up_is_over: bool,
    down_is_over: bool,
    client_spoke: bool,
    endpoint_spoke: bool,
    /// Whether the endpoint did, by how the first way ended.
    worked: Option<bool>,
}

impl<'a> Tunnel<'a> {
    pub(super) fn new(
        client: Side<'a>,
        endpoint: Side<'a>,
        timer: &'a mut Timer,
        (idle_timeout, progress): (Duration, &'a Progress),
    ) -> Self {
        let begun = Instant::now();
        Self {
            client,
            endpoint,
            timer,
            idle_timeout,
            progress,
            begun,
            moved_at: begun,
            up_is_over: false,
            down_is_over: false,
            client_spoke: false,
            endpoint_spoke: false,
            worked: None,
        }
    }

    /// Ready when both directions are over, one side broke, or nothing moved for too long: what was
    /// said is whole in the first case only.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Self { client, endpoint, .. } = self;
        let (mut up, mut down) = (Seen::default(), Seen::default());
        let up_ends = (!self.up_is_over).then(|| copy(client, endpoint, cx, &mut up));
        let down_ends = (!self.down_is_over).then(|| copy(endpoint, client, cx, &mut down));
        self.client_spoke |= up.spoke;
        self.endpoint_spoke |= down.spoke;
        let ways = [up_ends.and_then(ready_now), down_ends.and_then(ready_now)];
        self.up_is_over |= ways[0].is_some();
        self.down_is_over |= ways[1].is_some();
        for (way, told) in ways.iter().zip([&self.endpoint, &self.client]) {
            if *way == Some(Way::Closed) {
                // It was told an end: what it has not read yet is whole.
                told.stream.end_when_dropped();
            }
        }
        let sides = [ending::Side::Client, ending::Side::Endpoint];
        let ends = [
            ways[0].map(|way| way.end(sides[0], sides[1])),
            ways[1].map(|way| way.end(sides[1], sides[0])),
        ];
        // A side that broke matters more than one that is only done.
        let broken = ends.into_iter().flatten().find(|end| matches!(end, End::Broke(_)));
        if let Some(end) = broken.or(ends[0]).or(ends[1]) {
            self.judge(end);
        }
        if ways.into_iter().flatten().any(|way| way != Way::Closed) {
            return Poll::Ready(false);
        }
        if self.up_is_over && self.down_is_over {
            return Poll::Ready(true);
        }
        let moved = (up.moved || down.moved).then(Instant::now);
        self.moved_at = moved.unwrap_or(self.moved_at);
        if self.down_is_over {
            self.progress.is_whole();
        }
        self.progress.note(moved.filter(|_| down.moved), down.holds);
        let is_half = self.up_is_over || self.down_is_over;
        let most = if is_half { HALF_OPEN_MAX } else { Duration::MAX };
        ready!(self.timer.poll(self.moved_at + self.idle_timeout.min(most), cx));
        self.judge(End::Idle);
        Poll::Ready(false)
    }

    /// What ends first says it.
    fn judge(&mut self, end: End) {
        let Self { client_spoke, endpoint_spoke, begun, .. } = *self;
        let past = Past { client_spoke, endpoint_spoke, lasted: begun.elapsed() };
        self.worked.get_or_insert_with(|| worked(end, past));
    }
}

fn ready_now<T>(of: Poll<T>) -> Option<T> {
    match of {
        Poll::Ready(it) => Some(it),
        Poll::Pending => None,
    }
}

/// What one turn saw of one way.
#[derive(Default)]
struct Seen {
    /// Bytes came from the one side.
    spoke: bool,
    /// Bytes went to the other.
    moved: bool,
    /// It does not take all that there is.
    holds: bool,
}

/// How one way ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Closed,
    /// It was closed without its last word: encrypted, that may be somebody else's doing.
    Short,
    ReadBroke,
    WriteBroke,
}

impl Way {
    fn end(self, from: ending::Side, to: ending::Side) -> End {
        match self {
            Self::Closed | Self::Short => End::Closed(from),
            Self::ReadBroke => End::Broke(from),
            Self::WriteBroke => End::Broke(to),
        }
    }
}

/// Copies until `from` closed its side, which `to` is then told.
fn copy(
    from: &mut Side<'_>,
    to: &mut Side<'_>,
    cx: &mut Context<'_>,
    seen: &mut Seen,
) -> Poll<Way> {
    loop {
        while !from.input.is_empty() {
            let Poll::Ready(written) = to.stream.poll_write_both(cx, (from.input.unread(), &[]))
            else {
                seen.holds = true;
                // What it waits for may never come.
                ready!(from.stream.poll_gone(cx));
                return Poll::Ready(Way::ReadBroke);
            };
            let Ok(written) = written else { return Poll::Ready(Way::WriteBroke) };
            from.input.consume(written);
            // Only what was taken: whoever takes nothing is idle.
            seen.moved = true;
        }
        let Poll::Ready(flushed) = to.stream.poll_flush(cx) else {
            seen.holds = true;
            ready!(from.stream.poll_gone(cx));
            return Poll::Ready(Way::ReadBroke);
        };
        if flushed.is_err() {
            return Poll::Ready(Way::WriteBroke);
        }
        let Poll::Ready(read) = from.input.poll_fill(from.stream, BUFFER, cx) else {
            from.input.release();
            return Poll::Pending;
        };
        match read {
            Ok(0) => {
                let told = ready!(to.stream.poll_shutdown(cx));
                return Poll::Ready(if told.is_ok() { Way::Closed } else { Way::WriteBroke });
            }
            Ok(_) => seen.spoke = true,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(Way::Short);
            }
            Err(_) => return Poll::Ready(Way::ReadBroke),
        }
    }
}
