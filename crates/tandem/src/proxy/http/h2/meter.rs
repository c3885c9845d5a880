//! Decides whether a peer of HTTP/2 sends frames that only make work.
//! In: the bytes that it sends, how many it was sent, the time. Out: whether it is too much.
//! Keeps: every frame that carries nothing costs a token, and so does every stream that is taken
//! back; what is served, and time, give tokens back. So a client may cancel what it likes, but not
//! ask and cancel for ever (CVE-2023-44487), nor ask for pongs, settings or priorities for ever.
//! It may say that it takes more as often as it got something, however fast that is, and measure
//! how long the way is, as gRPC does by a PING in each round trip. An endpoint has so many heads
//! for what it was asked: nobody else bounds how many interim ones wait.
//! An endpoint's connection wears out: the crate `h2` ends one, with all that is under way on it,
//! when small DATA frames that nobody took have cost more than it may, and counts those of streams
//! that somebody left as if they were kept for as long as the connection lives; of empty ones that
//! end nothing it lets each connection have a hundred. So both are counted here alike, and one that
//! had half of either gets no more requests.
//! Not here: what the crate `h2` bounds itself: fields that have no end, DATA in crumbs, streams
//! that are reset before anybody saw them.
//! Tested by: below, `tests/h2/hostile.rs`, `tests/h2/leaving.rs`.

use super::{ENDPOINT_CRUMBS, PREFACE, PREFACE_REST, STREAMS_MAX};
use crate::proxy::http::wire::response::INTERIM_MAX;
use std::time::{Duration, Instant};

/// Of each kind, at once.
const TOKENS_MAX: u32 = 400;
/// One comes back in so long.
const REFILL: Duration = Duration::from_millis(20);
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// Data and headers.
const CARRIES: [u8; 2] = [0, 1];
/// So many bytes that it was sent let a client say once that it takes more. A frame has nine and
/// what it carries, and two answers, one of its stream and one of the connection.
const UPDATE_BYTES: u64 = 8;
/// So many are remembered at most: somebody who got a gigabyte before has no right to a flood now.
const WRITTEN_MAX: u64 = 1024 * 1024;
/// So many pay for a PING. The pong has 17, so that pongs alone do not pay for the next.
const PING_BYTES: u64 = 64;
/// So many more cost one token.
const UPDATES: u32 = 16;
/// Heads of one response: interim ones, the last one, trailers.
const HEADS: u32 = INTERIM_MAX + 2;
/// A DATA frame costs what it is shorter than this, and pays with what it is longer.
pub(super) const CRUMB: usize = 256;
/// Of what may be spent on them.
const CRUMBS_WORN: usize = ENDPOINT_CRUMBS / 2;
/// Of the hundred that `h2` takes.
const EMPTY_WORN: u32 = 50;
/// For all that may be under way.
const HEADS_MAX: u32 = HEADS * STREAMS_MAX;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A stranger, who begins with a preface.
    Client,
    /// Whoever answers: it is asked for its window updates by what it is sent.
    Endpoint,
}

#[derive(Debug)]
struct Tokens {
    left: u32,
    since: Instant,
}

impl Tokens {
    const fn new(now: Instant) -> Self {
        Self { left: TOKENS_MAX, since: now }
    }

    fn give(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(TOKENS_MAX);
    }

    /// False if there is none.
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let back = u32::try_from(elapsed.as_millis() / REFILL.as_millis()).unwrap_or(u32::MAX);
        if back > 0 {
            self.give(back);
            self.since = now;
        }
        let has_one = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_one
    }
}

/// What one peer has sent.
#[derive(Debug)]
pub(super) struct Meter {
    header: [u8; HEADER],
    /// So much of the next header is there.
    filled: usize,
    /// So much of the frame is still to come.
    payload: usize,
    /// That begins by how much of it is padding, which `h2` takes off before it counts.
    is_padded: bool,
    peer: Peer,
    resets: Tokens,
    others: Tokens,
    updates: u32,
    /// Bytes that it was sent and has not paid an update or a PING with.
    written: u64,
    heads: u32,
    /// What small frames cost that nobody took, as the crate `h2` counts.
    crumbs: usize,
    /// Frames of DATA that were empty and no end.
    empty: u32,
}

impl Meter {
    pub(super) const fn new(peer: Peer, now: Instant) -> Self {
        let preface = match peer {
            Peer::Client => PREFACE.len() + PREFACE_REST,
            Peer::Endpoint => 0,
        };
        Self {
            header: [0; HEADER],
            filled: 0,
            payload: preface,
            is_padded: false,
            peer,
            resets: Tokens::new(now),
            others: Tokens::new(now),
            updates: 0,
            written: 0,
            heads: 0,
            crumbs: 0,
            empty: 0,
        }
    }

    /// Somebody took a frame of DATA that was not the end.
    pub(super) fn took(&mut self, length: usize) {
        self.crumbs = self.crumbs.saturating_sub(CRUMB.saturating_sub(length));
    }

    /// Its connection shall get no more requests.
    pub(super) const fn is_worn(&self) -> bool {
        self.crumbs >= CRUMBS_WORN || self.empty >= EMPTY_WORN
    }

    /// It is asked something.
    pub(super) fn asked(&mut self) {
        self.heads = (self.heads + HEADS).min(HEADS_MAX);
    }

    /// It was sent so many bytes.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written = self.written.saturating_add(bytes).min(WRITTEN_MAX);
    }

    /// A request was answered to its end.
    pub(super) fn served(&mut self) {
        self.resets.give(1);
        self.others.give(1);
    }

    /// Looks at bytes that came; false if it is too much.
    pub(super) fn saw(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        while !bytes.is_empty() {
            if self.payload > 0 {
                if std::mem::take(&mut self.is_padded) {
                    self.wear(self.payload.saturating_sub(1 + usize::from(bytes[0])));
                }
                let now = self.payload.min(bytes.len());
                self.payload -= now;
                bytes = &bytes[now..];
                continue;
            }
            let wanted = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled == HEADER {
                self.filled = 0;
                let [a, b, c, kind, ..] = self.header;
                self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if !self.frame(kind, now) {
                    return false;
                }
            }
        }
        true
    }

    fn frame(&mut self, kind: u8, now: Instant) -> bool {
        let [.., flags, _, _, _, _] = self.header;
        if kind == DATA && self.peer == Peer::Endpoint && flags & END_STREAM == 0 {
            self.is_padded = flags & PADDED != 0 && self.payload > 0;
            if !self.is_padded {
                self.wear(self.payload);
            }
        }
        match kind {
            RST_STREAM => self.resets.take(now),
            HEADERS if self.peer == Peer::Endpoint => {
                let has_one = self.heads > 0;
                self.heads = self.heads.saturating_sub(1);
                if self.payload > 0 {
                    self.others.give(1);
                }
                has_one
            }
            _ if CARRIES.contains(&kind) && self.payload > 0 => {
                self.others.give(1);
                true
            }
            PING if self.written >= PING_BYTES => {
                self.written -= PING_BYTES;
                true
            }
            WINDOW_UPDATE if self.peer == Peer::Endpoint => true,
            WINDOW_UPDATE if self.written >= UPDATE_BYTES => {
                self.written -= UPDATE_BYTES;
                true
            }
            WINDOW_UPDATE if self.updates < UPDATES => {
                self.updates += 1;
                true
            }
            WINDOW_UPDATE => {
                self.updates = 0;
                self.others.take(now)
            }
            _ => self.others.take(now),
        }
    }

    fn wear(&mut self, carried: usize) {
        match carried {
            0 => self.empty = self.empty.saturating_add(1),
            length if length < CRUMB => self.crumbs = self.crumbs.saturating_add(CRUMB - length),
            length => self.crumbs = self.crumbs.saturating_sub(length - CRUMB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn what_carries_nothing_is_bounded_and_time_gives_it_back() {
        let now = Instant::now();
        for kind in [2, 3, 4, 6, 200] {
            let mut meter = Meter::new(Peer::Endpoint, now);
            let bytes = frame(kind, &[0; 8]);
            for _ in 0..TOKENS_MAX {
                assert!(meter.saw(&bytes, now));
            }
            assert!(!meter.saw(&bytes, now), "{kind}");
            assert!(meter.saw(&bytes, now + REFILL * 2), "{kind}");
        }
    }

    #[test]
    fn what_is_served_gives_resets_back_and_data_other_frames() {
        let now = Instant::now();
        let mut meter = Meter::new(Peer::Endpoint, now);
        for _ in 0..10 * TOKENS_MAX {
            assert!(meter.saw(&frame(3, &[0; 4]), now));
            meter.served();
            assert!(meter.saw(&frame(0, b"data"), now));
            assert!(meter.saw(&frame(8, &[0; 4]), now) && meter.saw(&frame(6, &[0; 8]), now));
        }
        let empty = frame(0, b"");
        assert!((0..=TOKENS_MAX).any(|_| !meter.saw(&empty, now)), "empty frames carry nothing");
    }

    #[test]
    fn whoever_gets_much_may_say_often_that_it_takes_more() {
        let now = Instant::now();
        let mut meter = Meter::new(Peer::Client, now);
        assert!(meter.saw(&[b'P'; 24], now));
        let update = frame(8, &[0; 4]);
        for _ in 0..100 * TOKENS_MAX {
            // One frame with a little content, and both answers to it.
            meter.wrote(16);
            assert!(meter.saw(&update, now) && meter.saw(&update, now));
        }
        // What it got before is no reason for ever.
        meter.wrote(u64::MAX);
        let most = WRITTEN_MAX / UPDATE_BYTES + u64::from((UPDATES + 1) * (TOKENS_MAX + 1));
        assert!((0..=most).any(|_| !meter.saw(&update, now)));
    }

    #[test]
    fn whoever_gets_much_may_measure_the_way_by_pings() {
        let now = Instant::now();
        for peer in [Peer::Client, Peer::Endpoint] {
            let mut meter = Meter::new(peer, now);
            assert!(meter.saw(&vec![b'P'; meter.payload], now));
            let ping = frame(PING, &[0; 8]);
            for _ in 0..100 * TOKENS_MAX {
                // One frame with data, and the pong.
                meter.wrote(100);
                assert!(meter.saw(&ping, now), "{peer:?}");
                meter.wrote(17);
            }
            // Pongs pay for some, and not for ever.
            let mut count = 0;
            while meter.saw(&ping, now) {
                meter.wrote(17);
                count += 1;
            }
            assert!(count < WRITTEN_MAX / (PING_BYTES - 17) + u64::from(2 * TOKENS_MAX), "{count}");
        }
    }

    #[test]
    fn answers_of_an_endpoint_give_tokens_back() {
        let now = Instant::now();
        let mut meter = Meter::new(Peer::Endpoint, now);
        for _ in 0..10 * TOKENS_MAX {
            meter.asked();
            assert!(meter.saw(&frame(HEADERS, b"head"), now));
            assert!(meter.saw(&frame(PING, &[0; 8]), now));
        }
    }

    #[test]
    fn an_endpoint_has_so_many_heads_for_each_question() {
        let now = Instant::now();
        let mut meter = Meter::new(Peer::Endpoint, now);
        let head = frame(HEADERS, b"head");
        for _ in 0..1000 {
            meter.asked();
            assert!(meter.saw(&head, now) && meter.saw(&head, now));
        }
        assert!((0..=HEADS_MAX).any(|_| !meter.saw(&head, now)), "interim responses without end");
    }

    #[test]
    fn frames_are_found_wherever_they_are_cut() {
        let now = Instant::now();
        let all = [vec![b'P'; 24], frame(0, b"\0\0\0\x03"), frame(3, &[3; 4])].concat();
        for step in 1..all.len() {
            let mut meter = Meter::new(Peer::Client, now);
            for bytes in all.chunks(step) {
                assert!(meter.saw(bytes, now));
            }
            assert_eq!((meter.resets.left, meter.filled), (TOKENS_MAX - 1, 0), "{step}");
        }
    }

    /// As many as an endpoint that works may send, and others take.
    #[test]
    fn what_is_taken_wears_nothing_and_what_is_not_is_paid_for_by_large_frames() {
        let now = Instant::now();
        let crumb = [&[0, 0, 1, DATA, 0, 0, 0, 0, 1][..], b"."].concat();
        let large = [&[0, 0x40, 0, DATA, 0, 0, 0, 0, 1][..], &[b'.'; 0x4000]].concat();
        let last = [&[0, 0, 1, DATA, END_STREAM, 0, 0, 0, 1][..], b"."].concat();
        let mut meter = Meter::new(Peer::Endpoint, now);
        for _ in 0..CRUMBS_WORN {
            assert!(meter.saw(&crumb, now) && meter.saw(&last, now) && !meter.is_worn());
            meter.took(1);
        }
        let most = CRUMBS_WORN / 255;
        for _ in 0..most {
            assert!(meter.saw(&crumb, now) && !meter.is_worn());
        }
        assert!(meter.saw(&large, now));
        let paid = (0x4000 - CRUMB) / 255;
        for _ in 0..paid {
            assert!(meter.saw(&crumb, now) && !meter.is_worn());
        }
        assert!(meter.saw(&crumb, now) && meter.saw(&crumb, now) && meter.is_worn());
        // A client is another matter.
        let mut meter = Meter::new(Peer::Client, now);
        meter.payload = 0;
        for _ in 0..=most {
            assert!(meter.saw(&crumb, now) && !meter.is_worn());
        }
    }

    /// As the crate `h2` counts it, which strips what carries nothing.
    #[test]
    fn padding_pays_for_nothing_wherever_frames_are_cut() {
        let now = Instant::now();
        let padded = |carried: usize, flags: u8| {
            let padding = 0xff - carried;
            let head = [0, 1, 0, DATA, PADDED | flags, 0, 0, 0, 1, u8::try_from(padding).unwrap()];
            [&head[..], &vec![b'.'; 0xff]].concat()
        };
        let most = CRUMBS_WORN.div_ceil(CRUMB - 1);
        for step in [1, 10, 400] {
            let worn_by = |carried, flags| {
                let mut meter = Meter::new(Peer::Endpoint, now);
                let is_worn = |_: &usize| {
                    let bytes = padded(carried, flags);
                    assert!(bytes.chunks(step).all(|bytes| meter.saw(bytes, now)));
                    meter.is_worn()
                };
                (1..=most).find(is_worn)
            };
            assert_eq!(worn_by(1, 0), Some(most), "{step}");
            assert_eq!(worn_by(0, 0), usize::try_from(EMPTY_WORN).ok(), "{step}");
            assert_eq!(worn_by(1, END_STREAM), None, "{step}");
        }
    }

    #[test]
    fn empty_frames_that_end_nothing_wear_a_connection() {
        let now = Instant::now();
        let mut meter = Meter::new(Peer::Endpoint, now);
        let (empty, end) =
            ([0, 0, 0, DATA, 0, 0, 0, 0, 1], [0, 0, 0, DATA, END_STREAM, 0, 0, 0, 1]);
        for _ in 1..EMPTY_WORN {
            assert!(meter.saw(&empty, now) && meter.saw(&end, now) && !meter.is_worn());
        }
        assert!(meter.saw(&empty, now) && meter.is_worn());
    }
}
