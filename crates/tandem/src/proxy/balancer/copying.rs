//! Talks to both ends of a connection: copies bytes until one of them ends it.
//! In: two streams. Out: whether the endpoint worked.
//! States: both ways → (a side closes its half, and the other side is told) one way → over.
//! A closed half is passed on and the other way goes on, as with HAProxy: a client that has asked
//! all it had to ask still waits for the answer. A reset on either side ends the connection at
//! once and is passed on as a reset: nobody shall take half an answer for the whole; so is what is
//! cut. What is half
//! open and silent ends after `HALF_OPEN_MAX`: a peer that vanished in that state tells nobody.
//! Not here: which endpoint (`group.rs`), what happens before (`session.rs`).
//! Tested by: below, `tests.rs`.

use super::listener::keep_alive;
use super::member::progress::Progress;
use super::session::LOOK;
use crate::proxy::flow::Flow;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::ending::{End, Past, Side, worked};
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// Silence that ends a half-open connection, if its idle timeout does not end it before: most
/// answers have begun by then, and a leak of such connections stays small.
const HALF_OPEN_MAX: Duration = Duration::from_secs(60);
/// So many pieces are looked at for being the last one: in a longer connection it does not matter.
const LAST_LOOKS: u8 = 8;

/// A connection that has its endpoint.
pub(super) struct Copying {
    client: TcpStream,
    endpoint: TcpStream,
    up: Flow,
    down: Flow,
    begun: Instant,
    client_spoke: bool,
    endpoint_spoke: bool,
    silence: Silence,
    looks: u8,
    /// Who was told the end of all that the other one said.
    has_all: Option<Side>,
}

/// Rings when nothing has moved for too long. The timer is moved only when it rings, and asked only
/// when it may have: a byte costs no more than a look at the clock.
struct Silence {
    timer: Pin<Box<Sleep>>,
    max: Duration,
    moved_at: Instant,
    /// The timer knows whom to wake.
    is_set: bool,
    /// It has not rung yet.
    is_new: bool,
}

impl Silence {
    fn new(max: Duration, now: Instant) -> Self {
        let timer = Box::pin(sleep_until(now + max.min(LOOK)));
        Self { timer, max, moved_at: now, is_set: false, is_new: true }
    }

    /// Less is too long from now on.
    fn shorten(&mut self, max: Duration, now: Instant) {
        self.moved_at = now;
        let is_less = max < self.max;
        self.max = self.max.min(max);
        // One that is new rings soon, and knows then for how long more.
        if is_less && !self.is_new {
            self.timer.as_mut().reset(self.moved_at + max);
            self.is_set = false;
        }
    }

    fn poll(
        &mut self,
        moved: Option<Instant>,
        (endpoint, progress): (Option<&TcpStream>, &Progress),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if let Some(at) = moved {
            self.moved_at = at;
            if self.is_set && !self.timer.is_elapsed() {
                return Poll::Pending;
            }
        }
        self.is_set = true;
        // Also where what was copied has used up all that a task may do in one turn: else it would
        // not be set, or never be seen to ring while bytes move.
        while pin!(unconstrained(self.timer.as_mut())).poll(cx).is_ready() {
            if std::mem::take(&mut self.is_new) {
                progress.lasts();
                // Most are over before, and need not tell the system how to look for their peer.
                if let Some(endpoint) = endpoint {
                    let _ = keep_alive(endpoint);
                }
            }
            let deadline = self.moved_at + self.max;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl Copying {
    pub(super) fn new(
        client: TcpStream,
        endpoint: TcpStream,
        (idle_timeout, now): (Duration, Instant),
    ) -> Self {
        Self {
            client,
            endpoint,
            up: Flow::bulk(),
            // A client's socket has it from its listener.
            down: Flow::bulk_to_prompt(),
            begun: now,
            client_spoke: false,
            endpoint_spoke: false,
            silence: Silence::new(idle_timeout, now),
            looks: LAST_LOOKS,
            has_all: None,
        }
    }

    /// Copies to the end, or until `over`: then an error. False if the endpoint took the connection
    /// and did nothing with it.
    pub(super) async fn run<T>(
        &mut self,
        progress: &Progress,
        over: impl Future<Output = T>,
    ) -> Result<bool, T> {
        tokio::select! {
            biased;
            worked = self.copy(progress) => Ok(worked),
            // Else what always moves could not be ended.
            why = unconstrained(over) => Err(why),
        }
    }

    async fn copy(&mut self, progress: &Progress) -> bool {
        let end = poll_fn(|cx| self.poll(progress, cx)).await;
        let now = Instant::now();
        let past = Past {
            client_spoke: self.client_spoke,
            endpoint_spoke: self.endpoint_spoke,
            lasted: now.saturating_duration_since(self.begun),
        };
        let worked = worked(end, past);
        let Self { client, endpoint, up, down, silence, has_all, .. } = self;
        silence.shorten(HALF_OPEN_MAX, now);
        let is_whole = match end {
            End::Closed(Side::Client) => {
                *has_all = Some(Side::Endpoint);
                one_way(endpoint, client, (down, silence), (progress, true)).await
            }
            End::Closed(Side::Endpoint) => {
                progress.is_whole();
                *has_all = Some(Side::Client);
                one_way(client, endpoint, (up, silence), (progress, false)).await
            }
            End::Idle | End::Broke(_) => false,
        };
        if !is_whole {
            self.reset();
        }
        worked
    }

    /// Neither side shall take this for the end of what the other one said.
    fn reset(&self) {
        [&self.client, &self.endpoint].into_iter().for_each(reset);
    }

    /// The same, but for whoever was told the end: what it has not read yet would be lost.
    pub(super) fn cut(&self) {
        let sides = [(Side::Client, &self.client), (Side::Endpoint, &self.endpoint)];
        let cut = sides.into_iter().filter(|(side, _)| self.has_all != Some(*side));
        cut.for_each(|(_, stream)| reset(stream));
    }

    /// Ready when one way is over, one side broke, or nothing moved for too long.
    fn poll(&mut self, progress: &Progress, cx: &mut Context<'_>) -> Poll<End> {
        let (mut up_moved, mut down_moved) = (false, false);
        let Self { client, endpoint, up, down, looks, .. } = self;
        let up = copy_and_close(up, (client, endpoint), cx, (&mut up_moved, looks));
        let down = copy_and_close(down, (endpoint, client), cx, (&mut down_moved, looks));
        self.client_spoke |= up_moved;
        self.endpoint_spoke |= down_moved;
        let side = |end, from, to| match end {
            Way::Closed => End::Closed(from),
            Way::ReadBroke => End::Broke(from),
            Way::WriteBroke => End::Broke(to),
        };
        let up = up.map(|end| side(end, Side::Client, Side::Endpoint));
        let down = down.map(|end| side(end, Side::Endpoint, Side::Client));
        let is_broken = |end: &End| matches!(end, End::Broke(_));
        let ends = [up, down].map(|end| match end {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        });
        // A side that broke matters more than one that is only done.
        match ends.into_iter().flatten().find(is_broken).or(ends[0]).or(ends[1]) {
            Some(end) => Poll::Ready(end),
            None => {
                let moved = (up_moved || down_moved).then(Instant::now);
                progress.note(moved.filter(|_| down_moved), !self.down.is_empty());
                self.silence.poll(moved, (Some(&self.endpoint), progress), cx).map(|()| End::Idle)
            }
        }
    }
}

fn reset(stream: &TcpStream) {
    // A stream that is gone needs no reset.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// How one way ended.
enum Way {
    Closed,
    ReadBroke,
    WriteBroke,
}

/// As `copy`, where the end of one is told to the other at once: the last piece and the end go out
/// in one packet, which a connection of one question and one answer costs a twentieth less.
fn copy_and_close(
    flow: &mut Flow,
    (from, to): (&mut TcpStream, &mut TcpStream),
    cx: &mut Context<'_>,
    (moved, looks): (&mut bool, &mut u8),
) -> Poll<Way> {
    if !flow.is_empty() || *looks == 0 {
        return copy(flow, (from, to), cx, moved);
    }
    match ready!(flow.poll_fill(from, cx)) {
        Ok(0) => return Poll::Ready(Way::Closed),
        Ok(_) => *looks -= 1,
        Err(_) => return Poll::Ready(Way::ReadBroke),
    }
    // What an end is known of is followed by it, or by more to read: nothing is held back.
    let is_last = match pin!(from.ready(Interest::READABLE)).poll(cx) {
        Poll::Ready(ready) => ready.is_ok_and(|ready| ready.is_read_closed()),
        Poll::Pending => false,
    };
    *moved = true;
    if is_last && ready!(flow.poll_drain_with_more(to, cx)).is_err() {
        return Poll::Ready(Way::WriteBroke);
    }
    copy(flow, (from, to), cx, moved)
}

/// What is written to.
trait Sink: AsyncWrite + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl Sink for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Sink for WriteHalf<'_> {
    fn socket(&self) -> &TcpStream {
        self.as_ref()
    }
}

/// Copies until there is nothing more to read. A small piece may wait in the system only for what
/// says that one before it has come (`tcp_minshall_check` in Linux): what has one question or
/// answer need not say that nothing shall wait.
fn copy(
    flow: &mut Flow,
    (from, to): (&mut TcpStream, &mut impl Sink),
    cx: &mut Context<'_>,
    moved: &mut bool,
) -> Poll<Way> {
    loop {
        if !flow.is_empty() {
            if flow.goes_on() {
                // One that is gone is seen when it is written to.
                let _ = to.socket().set_nodelay(true);
            }
            let before = flow.left();
            let drained = flow.poll_drain(to, cx);
            // Only what was taken: whoever takes nothing is idle.
            *moved |= flow.left() < before;
            if ready!(drained).is_err() {
                return Poll::Ready(Way::WriteBroke);
            }
        }
        match ready!(flow.poll_fill(from, cx)) {
            Ok(0) => return Poll::Ready(Way::Closed),
            Ok(_) => *moved = true,
            Err(_) => return Poll::Ready(Way::ReadBroke),
        }
    }
}

/// Copies what is left of one way after `to` closed its own half, which `from` is told. False if
/// it did not come to its end.
async fn one_way(
    from: &mut TcpStream,
    to: &mut TcpStream,
    (flow, silence): (&mut Flow, &mut Silence),
    (progress, is_down): (&Progress, bool),
) -> bool {
    if from.shutdown().await.is_err() {
        return false;
    }
    let (reset, mut write) = to.split();
    let copying = poll_fn(|cx| {
        let mut moved = false;
        match copy(flow, (from, &mut write), cx, &mut moved) {
            // Both ways are over: to close the connection says it.
            Poll::Ready(Way::Closed) => Poll::Ready(true),
            Poll::Ready(Way::ReadBroke | Way::WriteBroke) => Poll::Ready(false),
            Poll::Pending => {
                let moved = moved.then(Instant::now);
                if is_down {
                    progress.note(moved, !flow.is_empty());
                }
                silence.poll(moved, (None, progress), cx).map(|()| false)
            }
        }
    });
    tokio::select! {
        biased;
        is_whole = copying => is_whole,
        // Nobody reads from it any more, so that a reset is seen by this alone.
        _ = reset.as_ref().ready(Interest::ERROR) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::task::coop::consume_budget;
    use tokio::time::timeout;

    /// The two ends of a connection: who connected, and who accepted.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (connected, accepted) = tokio::join!(connect, listener.accept());
        (connected.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn a_timer_is_set_and_rings_also_in_a_turn_that_may_do_nothing_more() {
        /// All that a task may do in one turn is done.
        fn spend(cx: &mut Context<'_>) {
            while pin!(consume_budget()).poll(cx).is_ready() {}
        }
        for is_always_busy in [true, false] {
            let now = Instant::now();
            let progress = Progress::new(now);
            let (mut silence, mut turns) = (Silence::new(LOOK * 2, now), 0);
            let rings = poll_fn(|cx| {
                turns += 1;
                if is_always_busy || turns == 1 {
                    spend(cx);
                }
                silence.poll((turns <= 2).then_some(now), (None, &progress), cx)
            });
            assert!(timeout(Duration::from_secs(20), rings).await.is_ok(), "it never rings");
            assert!(progress.has_lasted());
        }
    }

    #[tokio::test]
    async fn a_second_piece_waits_for_nothing_and_the_first_need_not_be_told() {
        let ((mut client, door), (to_endpoint, mut endpoint)) = (pair().await, pair().await);
        let seen = SockRef::from(&to_endpoint).try_clone().unwrap();
        let now = Instant::now();
        let mut copying = Copying::new(door, to_endpoint, (Duration::from_secs(60), now));
        let talk = async {
            let mut byte = [0];
            for is_told in [false, true, true] {
                client.write_all(b"x").await.unwrap();
                endpoint.read_exact(&mut byte).await.unwrap();
                assert_eq!(seen.tcp_nodelay().unwrap(), is_told);
            }
        };
        let progress = Progress::new(now);
        let talked = tokio::select! {
            over = copying.run(&progress, talk) => over,
            () = sleep_until(now + Duration::from_secs(20)) => panic!("nothing moves"),
        };
        assert!(talked.is_err(), "neither side has ended it");
    }
}
