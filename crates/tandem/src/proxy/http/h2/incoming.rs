//! Talks a body from one stream of HTTP/2: gives what comes as HTTP/1.1 writes it.
//! In: DATA and trailers. Out: bytes: content as it is, or in chunks.
//! Keeps: the other side may send more only as somebody takes what it sent. Frames do not wait
//! while nobody reads: each costs more than it holds, and the crate `h2` ends a connection, which
//! others use as well, when it keeps too many small ones.
//! Not here: heads (`head.rs`), what is sent (`outgoing.rs`).
//! Tested by: `tests/h2/streams.rs`.

use super::broken;
use super::io::Watch;
use super::meter::CRUMB;
use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use std::io::{self, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Over,
}

/// The way in of one stream.
pub(super) struct Incoming {
    stream: RecvStream,
    /// Nobody knew its length before.
    is_chunked: bool,
    state: State,
    /// Before the data: sizes of chunks, trailers.
    text: Vec<u8>,
    text_used: usize,
    data: Bytes,
    /// Came while nobody took the data: never more than the window of the stream.
    behind: BytesMut,
    /// What ended it, behind all that.
    failed: Option<io::ErrorKind>,
    /// A chunk ends after the data.
    ends_chunk: bool,
    /// Told of small frames that were taken.
    watch: Option<Arc<Watch>>,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream, is_chunked: bool) -> Self {
        Self {
            stream,
            is_chunked,
            state: State::Data,
            text: Vec::new(),
            text_used: 0,
            data: Bytes::new(),
            behind: BytesMut::new(),
            failed: None,
            ends_chunk: false,
            watch: None,
        }
    }

    /// One whose small frames are counted until they are taken.
    pub(super) fn counted(stream: RecvStream, is_chunked: bool, watch: &Arc<Watch>) -> Self {
        Self { watch: Some(Arc::clone(watch)), ..Self::new(stream, is_chunked) }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let data = self.stream.poll_data(cx);
        if let (Poll::Ready(Some(Ok(data))), Some(watch)) = (&data, &self.watch)
            // Longer ones cost nothing, nor does the last one.
            && data.len() < CRUMB
            && !self.stream.is_end_stream()
        {
            watch.took(data.len());
        }
        data
    }

    /// Ready once there is something, or nothing more will be: then with false.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.text_used < self.text.len() || !self.data.is_empty() {
                return Poll::Ready(Ok(true));
            }
            self.text.clear();
            self.text_used = 0;
            if !self.behind.is_empty() {
                let data = std::mem::take(&mut self.behind).freeze();
                self.take(data);
                continue;
            }
            if let Some(kind) = self.failed {
                return Poll::Ready(Err(kind.into()));
            }
            match self.state {
                State::Data => match ready!(self.poll_data(cx)) {
                    Some(data) => self.take(data.map_err(broken)?),
                    None => self.state = State::Trailers,
                },
                State::Trailers => {
                    let trailers = ready!(self.stream.poll_trailers(cx)).map_err(broken)?;
                    self.state = State::Over;
                    if self.is_chunked {
                        self.text.extend_from_slice(b"0\r\n");
                        for (name, value) in trailers.iter().flatten() {
                            super::head::field(&mut self.text, name.as_str(), value.as_bytes());
                        }
                        self.text.extend_from_slice(b"\r\n");
                    }
                }
                State::Over => return Poll::Ready(Ok(false)),
            }
        }
    }

    /// Takes what has come while nobody reads; what it is in the window stays so.
    pub(super) fn soak(&mut self, cx: &mut Context<'_>) {
        while self.state == State::Data && self.failed.is_none() {
            match self.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.behind.extend_from_slice(&data),
                Poll::Ready(Some(Err(error))) => self.failed = Some(broken(error).kind()),
                Poll::Ready(None) => self.state = State::Trailers,
                Poll::Pending => return,
            }
        }
    }

    fn take(&mut self, data: Bytes) {
        if self.is_chunked && !data.is_empty() {
            let _ = write!(self.text, "{:x}\r\n", data.len());
            self.ends_chunk = true;
        }
        self.data = data;
    }

    /// Reads what there is room for; nothing at the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut has_read = false;
        while into.remaining() > 0 {
            match self.poll_next(cx) {
                Poll::Ready(Ok(true)) => has_read = true,
                Poll::Ready(Ok(false)) => break,
                Poll::Ready(Err(error)) if !has_read => return Poll::Ready(Err(error)),
                Poll::Pending if !has_read => return Poll::Pending,
                // It comes again when what was read is gone.
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
            let text = &self.text[self.text_used..];
            let now = text.len().min(into.remaining());
            into.put_slice(&text[..now]);
            self.text_used += now;
            let now = self.data.len().min(into.remaining());
            if now == 0 {
                continue;
            }
            into.put_slice(&self.data[..now]);
            self.data.advance(now);
            // It fails only where the stream is gone, which the next look tells.
            let _ = self.stream.flow_control().release_capacity(now);
            if self.data.is_empty() && std::mem::take(&mut self.ends_chunk) {
                self.text.clear();
                self.text_used = 0;
                self.text.extend_from_slice(b"\r\n");
            }
        }
        Poll::Ready(Ok(()))
    }
}
