//! Talks to a connection below the frames: what was read of it before comes first, and all that
//! comes is looked at.
//! In: a connection. Out: the same bytes, and when they came.
//! States: Open → (too many frames that carry nothing) Flooded: not one byte more is read.
//! Not here: which frames those are (`meter.rs`).
//! Tested by: `tests/h2/`.

use super::meter::{Meter, Peer};
use crate::proxy::http::stream::{Buffer, Stream};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant};

/// So much is read at once before those that it is for have a turn: frames that nobody took yet
/// cost more than they hold.
const TURN_MAX: usize = 128 * 1024;

/// What a connection and whoever drives it both know.
#[derive(Debug)]
pub(super) struct Watch {
    begun: Instant,
    /// Milliseconds since then.
    read_at: AtomicU64,
    is_flooded: AtomicBool,
    is_worn: AtomicBool,
    /// Bytes that were read in this turn.
    turn: AtomicUsize,
    /// Bytes that were sent and that the meter was not told of.
    written: AtomicU64,
    meter: Mutex<Meter>,
}

impl Watch {
    pub(super) fn new(peer: Peer) -> Arc<Self> {
        let begun = Instant::now();
        Arc::new(Self {
            begun,
            read_at: AtomicU64::new(0),
            is_flooded: AtomicBool::new(false),
            is_worn: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            meter: Mutex::new(Meter::new(peer, begun.into_std())),
        })
    }

    /// When the last bytes came.
    pub(super) fn read_at(&self) -> Instant {
        self.begun + Duration::from_millis(self.read_at.load(Ordering::Relaxed))
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.is_flooded.load(Ordering::Relaxed)
    }

    /// What came on it has cost so much that it shall get no more requests.
    pub(super) fn is_worn(&self) -> bool {
        self.is_worn.load(Ordering::Relaxed)
    }

    /// Somebody took a frame of DATA that was not the end.
    pub(super) fn took(&self, length: usize) {
        self.meter().took(length);
    }

    /// Whoever drives it has a turn.
    pub(super) fn begin_turn(&self) {
        self.turn.store(0, Ordering::Relaxed);
    }

    pub(super) fn served(&self) {
        self.meter().served();
    }

    /// Its peer is asked something.
    pub(super) fn asked(&self) {
        self.meter().asked();
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }

    fn saw(&self, bytes: &[u8]) {
        self.turn.fetch_add(bytes.len(), Ordering::Relaxed);
        let now = Instant::now();
        let since = now.duration_since(self.begun).as_millis();
        self.read_at.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut meter = self.meter();
        meter.wrote(self.written.swap(0, Ordering::Relaxed));
        if !meter.saw(bytes, now.into_std()) {
            self.is_flooded.store(true, Ordering::Relaxed);
        }
        if meter.is_worn() {
            self.is_worn.store(true, Ordering::Relaxed);
        }
    }
}

/// A connection whose frames somebody else reads.
pub(super) struct Io {
    stream: Stream,
    before: Buffer,
    watch: Arc<Watch>,
}

impl Io {
    pub(super) const fn new(stream: Stream, before: Buffer, watch: Arc<Watch>) -> Self {
        Self { stream, before, watch }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, before, watch } = self.get_mut();
        if watch.is_flooded() {
            // Whoever drives it looks at that, and ends it.
            return Poll::Pending;
        }
        if watch.turn.load(Ordering::Relaxed) >= TURN_MAX {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let from = into.filled().len();
        if before.is_empty() {
            ready!(Pin::new(stream).poll_read(cx, into))?;
        } else {
            let now = before.unread().len().min(into.remaining());
            into.put_slice(&before.unread()[..now]);
            before.consume(now);
            before.release();
        }
        watch.saw(&into.filled()[from..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, watch, .. } = self.get_mut();
        let written = stream.poll_write_both(cx, (bytes, &[]));
        watch.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = parts.iter().filter(|part| !part.is_empty());
        let first = filled.next().map_or(&[][..], |part| part);
        let second = filled.next().map_or(&[][..], |part| part);
        if first.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Self { stream, watch, .. } = self.get_mut();
        let written = stream.poll_write_both(cx, (first, second));
        watch.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_shutdown(cx)
    }
}
