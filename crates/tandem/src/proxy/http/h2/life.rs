//! Talks to a silent peer: asks it whether it lives, while somebody waits for it.
//! In: when it was heard last. Out: when to look again, or that it is gone.
//! Anything that comes is an answer. The times are those of a network that forgets connections,
//! not of an endpoint that thinks.
//! Not here: what is idle and waited for by nobody (`serve.rs`, `link.rs`).
//! Tested by: `tests/h2/streams.rs`.

use super::io::Watch;
use h2::{Ping, PingPong};
use std::task::Context;
use std::time::Duration;
use tokio::time::Instant;

/// Of silence.
const ASK_AFTER: Duration = Duration::from_secs(20);
/// For an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Whether a peer lives.
pub(super) struct Life {
    pings: Option<PingPong>,
    asked_at: Option<Instant>,
}

impl Life {
    pub(super) const fn new(pings: Option<PingPong>) -> Self {
        Self { pings, asked_at: None }
    }

    /// When to look again; none if it is gone.
    pub(super) fn poll(&mut self, watch: &Watch, cx: &mut Context<'_>) -> Option<Instant> {
        let (now, read_at) = (Instant::now(), watch.read_at());
        let Some(pings) = &mut self.pings else { return Some(now + ASK_AFTER) };
        if let Some(asked_at) = self.asked_at {
            let is_answered = pings.poll_pong(cx).is_ready();
            if !is_answered && read_at <= asked_at {
                let by = asked_at + ANSWER_WITHIN;
                return (now < by).then_some(by);
            }
            self.asked_at = None;
        }
        if now < read_at + ASK_AFTER {
            return Some(read_at + ASK_AFTER);
        }
        // Refused while an answer is out: then nothing has to be asked.
        let _ = pings.send_ping(Ping::opaque());
        self.asked_at = Some(now);
        Some(now + ANSWER_WITHIN)
    }
}
