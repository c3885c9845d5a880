//! Requests: what is taken, what is refused, what goes on.

use super::super::super::h2::onward;
use super::super::super::session::may_be_whole;
use super::super::super::wire::framing::{Body, Framing};
use super::super::super::wire::request::{self, Head, more_fields, no_fields};
use super::super::super::wire::rewrite::{self, Origin};
use super::make::{self, PIECES};
use super::reader::{self, Ends};
use crate::proxy::fuzz::{Random, cases};

const LIMITS: (usize, u64) = (100, 100_000);
/// Lines of a chunked body are kept until they are whole: none is longer.
const KEPT_MAX: usize = 8 * 1024;

/// What a connection's bytes were taken for.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    /// Of each request what its endpoint gets, and how much of the bytes it took.
    requests: Vec<(Vec<u8>, usize)>,
    is_refused: bool,
}

fn origin(is_trusted: bool) -> Origin {
    Origin { ip: [192, 0, 2, 1].into(), is_encrypted: false, is_trusted }
}

impl Taken {
    /// Of a head that is not whole only the beginning is looked at: whether the rest of it is
    /// nonsense is found sooner or later, by how it comes.
    fn is_like(&self, other: &Self, is_whole: bool) -> bool {
        self.requests == other.requests && (self.is_refused == other.is_refused || !is_whole)
    }
}

/// Reads as a session does, with the bytes in these pieces.
fn take(pieces: &[&[u8]]) -> Taken {
    let mut taken = Taken { requests: Vec::new(), is_refused: false };
    let (mut buffer, mut sent, mut length) = (Vec::new(), Vec::new(), 0);
    let mut body: Option<Body> = None;
    let mut seen = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            if let Some(reading) = &mut body {
                let Ok(next) = reading.next(&buffer) else {
                    taken.is_refused = true;
                    return taken;
                };
                sent.extend(buffer.drain(..next.length));
                length += next.length;
                if reading.is_done() {
                    taken.requests.push((std::mem::take(&mut sent), std::mem::take(&mut length)));
                    (body, seen) = (None, 0);
                } else if next.length == 0 {
                    assert!(buffer.len() <= KEPT_MAX + piece.len(), "{} kept", buffer.len());
                    break;
                }
                continue;
            }
            if !may_be_whole(&buffer, &mut seen) {
                break;
            }
            let mut room = no_fields();
            let head = match request::read(&buffer, &mut room, LIMITS) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(_) => {
                    taken.is_refused = true;
                    return taken;
                }
            };
            rewrite::request(&mut sent, &head, origin(false));
            let is_last = head.upgrade.is_some();
            body = Some(Body::new(head.framing, LIMITS.1));
            length = head.length;
            buffer.drain(..length);
            if is_last {
                taken.requests.push((sent, length));
                return taken;
            }
        }
    }
    taken
}

fn same_framing(ends: Ends, framing: Framing) -> bool {
    match (ends, framing) {
        (Ends::None, Framing::Empty) | (Ends::Chunked, Framing::Chunked) => true,
        (Ends::After(a), Framing::Length(b)) => a == b,
        _ => false,
    }
}

/// It can be sent to an endpoint of HTTP/2, too.
fn goes_on_by_http2(sent: &[u8]) {
    let mut room = more_fields();
    let head = request::read(sent, &mut room, (usize::MAX, u64::MAX)).expect("taken");
    let head = head.expect("whole");
    let asked = onward(&head, ("http", "192.0.2.1:80"), None).expect("written");
    let target = asked.uri().path_and_query().map(|target| target.as_str());
    assert_eq!(target, Some(head.target));
    assert_eq!(asked.method(), head.method);
}

/// Another reader finds the same request in the same bytes.
fn agree(bytes: &[u8], head: &Head<'_, '_>) {
    let other = reader::head(bytes).expect("taken").expect("whole");
    assert_eq!(other.length, head.length);
    assert_eq!(other.start[0], head.method);
    assert!(other.start[1].ends_with(head.target) || head.target == "/" || head.target == "*");
    assert_eq!(other.start[2], format!("HTTP/1.{}", head.minor));
    assert!(reader::is_target(head.target), "{}", head.target);
    let host = other.one("host").expect("one host");
    assert!(host.is_some() || head.minor == 0 || !other.start[1].starts_with(['/', '*']));
    assert!(same_framing(other.ends().expect("one framing"), head.framing));
    let fields = head.fields.iter().map(|it| (it.name.to_ascii_lowercase(), it.value.to_vec()));
    assert_eq!(other.fields, fields.collect::<Vec<_>>());
}

/// What goes on is one head, framed alike, without anything that was for this hop.
fn one_head(sent: &[u8], head: &Head<'_, '_>) -> reader::Head {
    let other = reader::head(sent).expect("taken").expect("whole");
    assert_eq!(other.length, sent.len());
    assert_eq!(other.start, [head.method, head.target, "HTTP/1.1"].map(str::to_owned));
    let host = other.one("host").expect("one host").expect("a host");
    assert_eq!(host, head.host.unwrap_or_default().as_bytes());
    assert!(same_framing(other.ends().expect("one framing"), head.framing));
    let te = other.one("te").expect("at most one");
    assert!(matches!(te, None | Some(b"trailers")));
    // Each of them is for the next hop, which is told so; nothing else is.
    let options = [te.map(|_| "TE"), head.upgrade.map(|_| "upgrade")];
    let options: Vec<&str> = options.into_iter().flatten().collect();
    let connection = other.one("connection").expect("at most one");
    assert_eq!(connection.unwrap_or_default(), options.join(", ").as_bytes());
    for gone in ["keep-alive", "proxy-connection", "http2-settings", "x_forwarded_for"] {
        assert_eq!(other.one(gone), Ok(None));
    }
    for one in ["x-forwarded-for", "x-forwarded-proto", "forwarded"] {
        assert!(other.one(one).expect("not two").is_some());
    }
    other
}

fn case(random: &mut Random) -> (Vec<u8>, bool) {
    let count = 1 + random.below(3);
    let mut bytes: Vec<u8> = (0..count).flat_map(|_| make::request(random)).collect();
    let is_changed = !random.one_in(4);
    if is_changed {
        random.mutate(&mut bytes, PIECES);
    }
    (bytes, is_changed)
}

#[test]
fn fuzz_requests_are_read_alike_however_they_come() {
    cases(3_000, |random| {
        let (bytes, is_changed) = case(random);
        let whole = take(&[&bytes]);
        assert!(is_changed || !whole.is_refused, "{}", bytes.escape_ascii());
        let is_whole = bytes.ends_with(b"\r\n\r\n");
        let singly: Vec<&[u8]> = bytes.chunks(1).collect();
        let at = random.below(bytes.len() + 1);
        for pieces in [singly, random.cut(&bytes), vec![&bytes[..at], &bytes[at..]]] {
            let taken = take(&pieces);
            assert!(taken.is_like(&whole, is_whole), "{taken:?} {}", bytes.escape_ascii());
        }
    });
}

#[test]
fn fuzz_every_request_that_is_taken_is_one_for_every_reader_and_goes_on_as_one() {
    cases(5_000, |random| {
        let (bytes, _) = case(random);
        let mut room = no_fields();
        let Ok(Some(head)) = request::read(&bytes, &mut room, LIMITS) else { return };
        agree(&bytes, &head);
        let mut sent = Vec::new();
        rewrite::request(&mut sent, &head, origin(false));
        let other = one_head(&sent, &head);
        goes_on_by_http2(&sent);
        let host = head.host.unwrap_or_default().len();
        assert!(sent.len() <= 2 * head.length + 3 * host + 300, "what goes on is bounded");
        // Its body, as far as it is taken, is the same for the other reader, behind the new head.
        let Some((passed, _)) = take(&[&bytes]).requests.into_iter().next() else { return };
        assert!(passed.starts_with(&sent));
        let ends = other.ends().expect("one framing");
        let (_, length) = reader::body(ends, &passed[sent.len()..]).expect("taken").expect("whole");
        assert_eq!(sent.len() + length, passed.len(), "one request, and nothing behind it");
        let again = take(&[&passed]);
        assert!(!again.is_refused && again.requests.len() == 1);
    });
}

#[test]
fn fuzz_what_is_refused_stays_refused_and_what_is_taken_stays_the_same() {
    cases(1_000, |random| {
        let (bytes, _) = case(random);
        let read = |bytes: &[u8]| {
            let mut room = no_fields();
            let head = request::read(bytes, &mut room, LIMITS);
            head.map(|head| head.map(|head| (head.length, head.framing))).map_err(|_| ())
        };
        let whole = read(&bytes);
        for end in 0..bytes.len() {
            let part = read(&bytes[..end]);
            assert!(part == Ok(None) || part == whole, "{end} of {}", bytes.escape_ascii());
        }
    });
}
