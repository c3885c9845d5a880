//! Talks the heads of HTTP/1 requests: reads what a client wrote, strictly.
//! In: bytes. Out: `Head`, or why it is refused.
//! Keeps: what two readers could read in two ways is refused, never repaired: a length and a
//! transfer coding together, a length twice, a coding that is not `chunked`, a line folded or ended
//! by a bare LF, a space before a colon, a target or host with anything odd in it.
//! Reference: RFC 9112; what of it is only "should" is must here.
//! Not here: what is sent on (`rewrite.rs`), the body (`framing.rs`).
//! Tested by: below, and the corpus in `tests/`.

use super::fields::{self, Field};
use super::framing::Framing;
use httparse::{Header, Status};
use std::mem::MaybeUninit;

/// How many fields a head has room for; the configured bound is at most this.
pub(in crate::proxy::http) const FIELDS_MAX: usize = 128;
/// Longer ones are nobody's.
const METHOD_MAX: usize = 32;

/// Why a request is not served, with the status that the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum Refusal {
    /// 400, and why.
    Bad(&'static str),
    /// 405: a tunnel was asked for.
    Tunnel,
    /// 408
    TooSlow,
    /// 413
    BodyTooLong,
    /// 417
    Expectation,
    /// 431
    HeadTooLong,
    /// 505
    Version,
}

/// Room for the fields of one head.
pub(in crate::proxy::http) type Fields<'b> = [MaybeUninit<Header<'b>>; FIELDS_MAX];

/// Empty room, which costs nothing until it is filled.
pub(in crate::proxy::http) const fn no_fields<'b>() -> Fields<'b> {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

/// Room for one that was written here, which may have more fields than the one that was read.
pub(in crate::proxy::http) const fn more_fields<'b>() -> [MaybeUninit<Header<'b>>; FIELDS_MAX * 2] {
    [const { MaybeUninit::uninit() }; FIELDS_MAX * 2]
}

/// What matters of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum Method {
    /// Its response has no body.
    Head,
    /// To do it twice is to do it once.
    Idempotent,
    /// Anything else.
    Other,
}

/// The head of a request.
#[derive(Debug)]
pub(in crate::proxy::http) struct Head<'a, 'b> {
    pub(in crate::proxy::http) method: &'b str,
    pub(in crate::proxy::http) kind: Method,
    /// Path and query, or `*`.
    pub(in crate::proxy::http) target: &'b str,
    /// The authority of the target or the field `Host`; none only in HTTP/1.0.
    pub(in crate::proxy::http) host: Option<&'b str>,
    /// HTTP/1.0 or 1.1.
    pub(in crate::proxy::http) minor: u8,
    pub(in crate::proxy::http) fields: &'a [Header<'b>],
    pub(in crate::proxy::http) framing: Framing,
    /// The connection stays open, as far as the client says.
    pub(in crate::proxy::http) keep_alive: bool,
    /// It waits for `100 Continue`.
    pub(in crate::proxy::http) expects: bool,
    /// The protocol that it wants to change to.
    pub(in crate::proxy::http) upgrade: Option<&'b str>,
    /// How long the head is.
    pub(in crate::proxy::http) length: usize,
}

/// Reads a head; none if its end has not come.
pub(in crate::proxy::http) fn read<'a, 'b>(
    bytes: &'b [u8],
    room: &'a mut [MaybeUninit<Header<'b>>],
    (fields_max, body_max): (usize, u64),
) -> Result<Option<Head<'a, 'b>>, Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLong),
        Err(httparse::Error::Version) => return Err(version(bytes)),
        Err(error) => return Err(Refusal::Bad(words(error))),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::Bad("the request line is not complete"));
    };
    let fields: &'a [Header<'b>] = parsed.headers;
    if fields.len() > fields_max {
        return Err(Refusal::HeadTooLong);
    }
    if fields::has_bare_line_feed(&bytes[..length]) {
        return Err(Refusal::Bad("a line ends without CR"));
    }
    if method.len() > METHOD_MAX {
        return Err(Refusal::Bad("the method is too long"));
    }
    if method == "CONNECT" {
        return Err(Refusal::Tunnel);
    }
    let said = Said::of(fields)?;
    let framing = said.framing(minor, body_max)?;
    let (authority, target) = target_of(method, target)?;
    let host = host_of(authority, said.host, minor)?;
    let upgrade = said.upgrade.filter(|protocol| {
        said.wants_upgrade && minor == 1 && is_upgrade(protocol) && !framing.has_content()
    });
    let keep_alive = if minor == 1 { !said.close } else { said.keep_alive && !said.close };
    let expects = said.expects && minor == 1 && framing.has_content();
    let kind = kind_of(method);
    let head = Head {
        method,
        kind,
        target,
        host,
        minor,
        fields,
        framing,
        keep_alive,
        expects,
        upgrade,
        length,
    };
    Ok(Some(head))
}

/// What the fields say about the message itself.
#[derive(Default)]
struct Said<'b> {
    length: Option<u64>,
    chunked: bool,
    host: Option<&'b str>,
    close: bool,
    keep_alive: bool,
    wants_upgrade: bool,
    upgrade: Option<&'b str>,
    expects: bool,
    /// Words of `Connection`.
    options: usize,
}

impl<'b> Said<'b> {
    fn of(fields: &[Header<'b>]) -> Result<Self, Refusal> {
        let mut said = Self::default();
        for field in fields {
            said.add(field)?;
        }
        Ok(said)
    }

    fn add(&mut self, field: &Header<'b>) -> Result<(), Refusal> {
        match Field::of(field.name) {
            Field::ContentLength => {
                let length = fields::length(field.value);
                let length = length.ok_or(Refusal::Bad("Content-Length is no number"))?;
                if self.length.replace(length).is_some() {
                    return Err(Refusal::Bad("Content-Length is there twice"));
                }
            }
            Field::TransferEncoding => {
                if self.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::Bad("Transfer-Encoding is not just chunked"));
                }
                self.chunked = true;
            }
            Field::Host => {
                let host = std::str::from_utf8(field.value).ok().filter(|host| is_host(host));
                let host = host.ok_or(Refusal::Bad("Host is no host"))?;
                if self.host.replace(host).is_some() {
                    return Err(Refusal::Bad("Host is there twice"));
                }
            }
            Field::Connection => {
                for option in fields::list(field.value) {
                    self.options += 1;
                    if self.options > fields::OPTIONS_MAX {
                        return Err(Refusal::Bad("Connection has too many words"));
                    }
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.wants_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            Field::Upgrade => {
                let one = std::str::from_utf8(field.value).ok();
                // Two fields are a list, of which nobody here would know what was chosen.
                self.upgrade = if self.upgrade.is_some() { Some("") } else { one };
            }
            Field::Expect => {
                if !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::Expectation);
                }
                self.expects = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, minor: u8, body_max: u64) -> Result<Framing, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                Err(Refusal::Bad("Content-Length and Transfer-Encoding are both there"))
            }
            (true, None) if minor == 0 => Err(Refusal::Bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) if length > body_max => Err(Refusal::BodyTooLong),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::Empty),
        }
    }
}

fn kind_of(method: &str) -> Method {
    match method {
        "HEAD" => Method::Head,
        "GET" | "OPTIONS" | "TRACE" | "PUT" | "DELETE" => Method::Idempotent,
        _ => Method::Other,
    }
}

/// Authority, and path with query: an absolute target is taken apart (RFC 9112, 3.2.2).
fn target_of<'b>(method: &str, target: &'b str) -> Result<(Option<&'b str>, &'b str), Refusal> {
    // Browsers encode all of these; a reader that cuts at one sees another request.
    let odd =
        |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\');
    // In a query some leave this one as it is; in a path it is none that can go on by HTTP/2.
    let path = target.split('?').next().unwrap_or_default();
    if target.bytes().any(odd) || path.contains('`') {
        return Err(Refusal::Bad("the target has a character that must be encoded"));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let scheme_end = target.find("://").unwrap_or(0);
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refusal::Bad("the target is neither a path nor an http address"));
    }
    let rest = &target[scheme_end + 3..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority) {
        return Err(Refusal::Bad("the target has no host"));
    }
    match path {
        "" if method == "OPTIONS" => Ok((Some(authority), "*")),
        "" => Ok((Some(authority), "/")),
        _ if path.starts_with('/') => Ok((Some(authority), path)),
        _ => Err(Refusal::Bad("the target has no path")),
    }
}

fn host_of<'b>(
    authority: Option<&'b str>,
    said: Option<&'b str>,
    minor: u8,
) -> Result<Option<&'b str>, Refusal> {
    match (authority, said) {
        (Some(authority), Some(said)) if !authority.eq_ignore_ascii_case(said) => {
            Err(Refusal::Bad("Host is not the host of the target"))
        }
        (None, None) if minor == 1 => Err(Refusal::Bad("Host is missing")),
        (authority, said) => Ok(authority.or(said)),
    }
}

/// A name or address with or without a port; empty is allowed (RFC 9112, 3.2).
fn is_host(host: &str) -> bool {
    host.bytes().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']')
    })
}

/// `h2c` would let a client speak past every rule here; a list is not one protocol.
fn is_upgrade(protocol: &str) -> bool {
    let is_word =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'/' | b'_');
    let is_http = protocol.len() >= 2 && protocol.as_bytes()[..2].eq_ignore_ascii_case(b"h2")
        || protocol.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http"))
        || protocol.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("tls"));
    !protocol.is_empty() && protocol.bytes().all(is_word) && !is_http
}

/// A version that is a version gets another answer than noise.
fn version(bytes: &[u8]) -> Refusal {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b'\r']), None) => {
            Refusal::Version
        }
        _ => Refusal::Bad("the version is none"),
    }
}

/// What is wrong, without what was sent.
const fn words(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "the name of a field has an invalid character",
        httparse::Error::HeaderValue => "the value of a field has an invalid character",
        httparse::Error::NewLine => "a line ends without LF",
        httparse::Error::Token => "the request line has an invalid character",
        httparse::Error::Version => "the version is none",
        httparse::Error::Status => "the status is none",
        httparse::Error::TooManyHeaders => "there are too many fields",
    }
}
