//! Checks streams of PostgreSQL's protocol from a seed: cut in any way they mean the same, nothing
//! panics, and of a statement that is refused the end is never passed on.

use super::answer::{Answer, judge};
use super::durability::Lowered;
use super::scan::{Asked, Scan};
use super::startup;
use super::walk::{Seen, Walker};
use crate::proxy::fuzz::{Random, cases};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PIECES: &[&[u8]] = &[
    b"\0",
    b"'",
    b"\"",
    b"$$",
    b"/*",
    b"*/",
    b"--",
    b"\n",
    b";",
    b"E'\\'",
    b"U&'",
    b"set ",
    b"SET LOCAL ",
    b"synchronous_commit",
    b"client_min_messages",
    b" = off",
    b" to 'error'",
    b"set_config(",
    b"pg_settings",
    b"Q\0\0\0\x05\0",
    b"S\0\0\0\x04",
    b"X\0\0\0\x04",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
];

const STATEMENTS: &[&str] = &[
    "SELECT 1",
    "SET synchronous_commit = off",
    "set local client_min_messages to 'error'",
    "SELECT set_config('synchronous_commit', 'off', false)",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'synchronous_commit'",
    "SELECT 'SET synchronous_commit = off'",
    "/* SET synchronous_commit */ SELECT $$ it's $$ -- client_min_messages\n, 2",
    "DO $x$ BEGIN SET synchronous_commit = local; END $x$",
    "COMMIT; SET SESSION synchronous_commit TO on; SELECT E'\\''",
    "ALTER ROLE app SET synchronous_commit = off",
];

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn asked(random: &mut Random) -> Vec<u8> {
    let text = random.pick(STATEMENTS).as_bytes();
    match random.below(6) {
        0 | 1 => message(b'Q', &[text, b"\0"].concat()),
        2 => message(b'P', &[b"s\0", text, b"\0\0\0"].concat()),
        3 => {
            let values = b"\0s\0\0\0\0\x02\0\0\0\x12synchronous_commit\0\0\0\x03off\0\0";
            message(b'B', values)
        }
        4 => message(b'd', &vec![b'x'; random.below(300)]),
        _ => message(random.pick(b"ESHCDXfcp"), b""),
    }
}

/// What of a stream is passed on, why it stops, and whether all is answered.
fn scan(pieces: &[&[u8]], refuses: bool) -> (usize, Option<Option<Lowered>>, bool) {
    let mut scan = if refuses { Scan::refusing() } else { Scan::counting() };
    let mut passed = 0;
    for piece in pieces {
        match scan.feed(piece) {
            Asked::All => passed += piece.len(),
            Asked::Stop { at, lowered, .. } => {
                assert!(at <= piece.len());
                return (passed + at, Some(lowered), false);
            }
        }
    }
    (passed, None, scan.is_settled())
}

#[test]
fn fuzz_statements_are_seen_however_they_are_cut() {
    cases(3_000, |random| {
        let mut bytes: Vec<u8> = (0..=random.below(4)).flat_map(|_| asked(random)).collect();
        if !random.one_in(4) {
            random.mutate(&mut bytes, PIECES);
        }
        for refuses in [true, false] {
            let whole = scan(&[&bytes], refuses);
            let singly: Vec<&[u8]> = bytes.chunks(1).collect();
            let pieces = random.cut(&bytes);
            for cut in [&singly, &pieces] {
                let (passed, why, is_settled) = scan(cut, refuses);
                assert_eq!((&why, is_settled), (&whole.1, whole.2), "{}", bytes.escape_ascii());
                // In pieces some of the message was passed on before it was known; never its end.
                assert!(passed >= whole.0 && passed <= bytes.len());
                if let Some(Some(_)) = why {
                    let length = bytes.get(whole.0 + 1..whole.0 + 5).unwrap();
                    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                    assert!(passed < whole.0 + 1 + length, "{}", bytes.escape_ascii());
                } else {
                    assert_eq!(passed, whole.0);
                }
            }
        }
    });
}

/// What a door learns of a server's stream: how much it passes on, and what it knows then.
fn walk(pieces: &[&[u8]]) -> Result<(usize, bool, bool, u32, Option<startup::CancelKey>), usize> {
    let mut walker = Walker::new();
    let (mut passed, mut key) = (0, None);
    for piece in pieces {
        let seen = walker.feed(piece).map_err(|_| 0_usize)?;
        key = key.or_else(|| walker.take_key());
        match seen {
            Seen::All => passed += piece.len(),
            Seen::LocalCommit(at) => {
                return Ok((passed + at, true, true, walker.take_answers(), key));
            }
        }
    }
    Ok((passed, false, walker.is_ready(), walker.take_answers(), key))
}

#[test]
fn fuzz_servers_are_understood_however_their_bytes_are_cut() {
    let warning = message(b'N', b"SWARNING\0C01000\0Mx\0RSyncRepWaitForLSN\0\0");
    let messages = [
        message(b'R', &[0; 4]),
        message(b'S', b"a\0b\0"),
        message(b'Z', b"I"),
        message(b'C', b"COMMIT\0"),
        message(b'D', &[7; 50]),
        message(b'E', b"SFATAL\0C57P03\0Mno\0\0"),
        message(b'v', &[0; 8]),
        warning,
    ];
    cases(3_000, |random| {
        let mut bytes = Vec::new();
        if random.one_in(2) {
            bytes = [message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]), message(b'Z', b"I")].concat();
        }
        for _ in 0..random.below(6) {
            bytes.extend_from_slice(&messages[random.below(messages.len())]);
        }
        if !random.one_in(3) {
            random.mutate(&mut bytes, PIECES);
        }
        let whole = walk(&[&bytes]);
        let singly: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(walk(&singly), whole, "{}", bytes.escape_ascii());
        assert_eq!(walk(&random.cut(&bytes)), whole, "{}", bytes.escape_ascii());
        let judged = judge(&bytes);
        for end in 0..bytes.len() {
            let part = judge(&bytes[..end]);
            assert!(part == Answer::Incomplete || part == judged, "{}", bytes.escape_ascii());
        }
    });
}

/// A client that sends these pieces and then no more, and what it is answered.
struct Client<'a> {
    pieces: Vec<&'a [u8]>,
    answered: usize,
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(first) = self.pieces.first_mut() {
            let (now, later) = first.split_at(first.len().min(into.remaining()));
            into.put_slice(now);
            *first = later;
            if later.is_empty() {
                self.pieces.remove(0);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.answered += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The packet of a client's request, what it names, and how many bytes were left alone.
fn start(pieces: &[&[u8]]) -> Option<(Vec<u8>, usize, usize)> {
    let mut client = Client { pieces: pieces.to_vec(), answered: 0 };
    let mut reading = Box::pin(startup::read(&mut client));
    let Poll::Ready(read) = reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a client that has sent everything is waited for");
    };
    drop(reading);
    let packet = match read.ok()? {
        startup::Request::Session(session) => {
            assert!(session.parameters().count() <= session.packet.len());
            session.packet
        }
        startup::Request::Cancel(cancel) => cancel.packet,
    };
    assert!(packet.len() <= startup::CONTENT_MAX + 4 && client.answered <= 2);
    Some((packet, client.answered, client.pieces.iter().map(|piece| piece.len()).sum()))
}

#[test]
fn fuzz_startups_are_read_to_their_end_and_not_beyond() {
    let packet = |words: &[&[u8]]| {
        let length = 4 + words.iter().map(|word| word.len()).sum::<usize>();
        [&u32::try_from(length).unwrap().to_be_bytes()[..], &words.concat()].concat()
    };
    let packets = [
        packet(&[&[0, 3, 0, 0], b"user\0app\0database\0app\0\0"]),
        packet(&[&[0, 3, 0, 2], b"user\0a\0_pq_.x\0y\0\0"]),
        packet(&[&80_877_102_u32.to_be_bytes(), &[0, 0, 0, 7, 1, 2, 3, 4]]),
        packet(&[&80_877_103_u32.to_be_bytes()]),
        packet(&[&80_877_104_u32.to_be_bytes()]),
    ];
    cases(3_000, |random| {
        let mut bytes = Vec::new();
        for _ in 0..=random.below(3) {
            bytes.extend_from_slice(&packets[random.below(packets.len())]);
        }
        if !random.one_in(4) {
            random.mutate(&mut bytes, PIECES);
        }
        let whole = start(&[&bytes]);
        let singly: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(start(&singly), whole, "{}", bytes.escape_ascii());
        if let Some((packet, answered, left)) = whole {
            assert_eq!(bytes.len(), packet.len() + 8 * answered + left);
        }
    });
}
