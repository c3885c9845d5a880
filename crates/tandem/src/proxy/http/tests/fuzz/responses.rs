//! Responses: endpoints are trusted to answer, not to frame.

use super::super::super::wire::framing::{Body, Framing};
use super::super::super::wire::request::{Method, no_fields};
use super::super::super::wire::response;
use super::super::super::wire::rewrite::{self, Onward};
use super::make::{self, PIECES};
use super::reader::{self, Ends};
use crate::proxy::fuzz::{Random, cases};

fn case(random: &mut Random) -> (Vec<u8>, bool) {
    let mut bytes = make::response(random);
    let is_changed = !random.one_in(4);
    if is_changed {
        random.mutate(&mut bytes, PIECES);
    }
    (bytes, is_changed)
}

/// The content of a body that comes in pieces, and how much of the bytes it took.
fn content(framing: Framing, pieces: &[&[u8]]) -> Option<(Vec<u8>, usize, bool)> {
    let mut body = Body::new(framing, u64::MAX);
    let (mut buffer, mut content, mut length) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while !body.is_done() {
            let next = body.next(&buffer).ok()?;
            if next.length == 0 {
                break;
            }
            let bytes: Vec<u8> = buffer.drain(..next.length).collect();
            length += bytes.len();
            if next.is_content {
                content.extend(bytes);
            }
        }
    }
    Some((content, length, body.is_done()))
}

#[test]
fn fuzz_every_response_that_is_taken_is_one_for_every_reader_and_goes_on_as_one() {
    cases(5_000, |random| {
        let (bytes, is_changed) = case(random);
        let kind = random.pick(&[Method::Idempotent, Method::Head]);
        let mut room = no_fields();
        let head = match response::read(&bytes, &mut room, kind) {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(_) => {
                assert!(is_changed, "{}", bytes.escape_ascii());
                return;
            }
        };
        let other = reader::head(&bytes).expect("taken").expect("whole");
        assert_eq!((other.length, other.start[1].parse()), (head.length, Ok(head.status)));
        let fields = head.fields.iter().map(|it| (it.name.to_ascii_lowercase(), it.value.to_vec()));
        assert_eq!(other.fields, fields.collect::<Vec<_>>());
        let keep_alive = head.framing != Framing::Close;
        let onward = Onward { framing: head.framing, keep_alive, is_old: false, cookie: None };
        let mut sent = Vec::new();
        rewrite::response(&mut sent, &head, onward);
        assert!(sent.len() <= head.length + 100, "what goes on is bounded");
        let mut room = no_fields();
        let again = response::read(&sent, &mut room, kind).expect("taken").expect("whole");
        assert_eq!((again.length, again.status), (sent.len(), head.status));
        assert_eq!(again.framing, head.framing);
        assert!(again.fields.iter().all(|it| !it.name.eq_ignore_ascii_case("keep-alive")));
    });
}

#[test]
fn fuzz_bodies_are_read_alike_however_they_come_and_by_every_reader() {
    cases(5_000, |random| {
        let (bytes, _) = case(random);
        let from = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        let bytes = &bytes[from..];
        let length = random.below(60) as u64;
        let ways = [
            (Framing::Chunked, Ends::Chunked),
            (Framing::Length(length), Ends::After(length)),
            (Framing::Close, Ends::ByClose),
        ];
        let (framing, ends) = random.pick(&ways);
        let whole = content(framing, &[bytes]);
        let singly: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(content(framing, &singly), whole, "{}", bytes.escape_ascii());
        assert_eq!(content(framing, &random.cut(bytes)), whole, "{}", bytes.escape_ascii());
        if let Some((content, length, true)) = whole {
            let other = reader::body(ends, bytes).expect("taken").expect("whole");
            assert_eq!(other, (content, length), "{}", bytes.escape_ascii());
        }
    });
}
