//! Talks heads of HTTP/2 as HTTP/1.1 writes them, and the other way.
//! In: what the frames held, or bytes that were written here. Out: the other one.
//! Keeps: what a client sent by HTTP/2 is written as HTTP/1.1 and then read by the reader that
//! reads everybody's, so that nothing is allowed in one of them that the other one refuses. A
//! field that frames a message of HTTP/1.1 is never taken from HTTP/2.
//! Not here: that reader (`wire/request.rs`, `wire/response.rs`).
//! Tested by: `tests/h2/`.

use super::Takes;
use super::upgrade::{self, Upgrade};
use crate::proxy::http::wire::fields::{self, Field};
use crate::proxy::http::wire::framing::Framing;
use crate::proxy::http::wire::{request, response};
use http::header::{CONTENT_LENGTH, COOKIE, HOST, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use std::io::{self, Write};

/// A head as it came, and what it says of itself.
pub(super) struct Written {
    pub(super) text: Vec<u8>,
    /// Its body comes in chunks.
    pub(super) is_chunked: bool,
    /// That it comes so though its length is known: trailers may follow, and HTTP/1.1 has them
    /// behind chunks only, which have no length beside them (RFC 9112, 6.2 and 7.1.2).
    pub(super) counted: Option<u64>,
}

/// Why a head cannot be written: its stream breaks the rules of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What may be in no head of HTTP/2: it would speak about another connection (RFC 9113, 8.2.2).
fn is_forbidden(name: &str) -> bool {
    matches!(
        Field::of(name),
        Field::Connection | Field::TransferEncoding | Field::Upgrade | Field::Hop
    ) && !name.starts_with("proxy-auth")
}

/// The length of a body that is written in chunks all the same.
fn counted(fields: &HeaderMap, has_ended: bool, takes: Takes) -> Option<u64> {
    let may = match takes {
        Takes::Length => false,
        Takes::Either => fields.contains_key(TRAILER),
        Takes::Both => true,
    };
    if has_ended || !may {
        return None;
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let (Some(length), None) = (lengths.next(), lengths.next()) else { return None };
    fields::length(length.as_bytes())
}

/// Writes a request. `opens`: as what it is to be opened by extended CONNECT. Those that are longer
/// than `body_max` keep their length, by which they are refused.
pub(super) fn request(
    parts: &http::request::Parts,
    (has_ended, opens): (bool, Option<Upgrade>),
    (takes, body_max): (Takes, u64),
) -> Result<Written, Malformed> {
    let mut text = Vec::with_capacity(512);
    let method = if opens.is_some() { &Method::GET } else { &parts.method };
    request_line(&mut text, method, &parts.uri);
    let is_all = has_ended || opens.is_some();
    let counted = counted(&parts.headers, is_all, takes);
    let counted = counted.filter(|length| *length <= body_max);
    let is_chunked = fields(&mut text, &parts.headers, (is_all, counted.is_some()))?;
    let mut cookies = parts.headers.get_all(COOKIE).iter().peekable();
    if cookies.peek().is_some() {
        // They may come in crumbs, which HTTP/1.1 does not know (RFC 9113, 8.2.3).
        let crumbs: Vec<&[u8]> = cookies.map(HeaderValue::as_bytes).collect();
        field(&mut text, "cookie", &crumbs.join(&b"; "[..]));
    }
    if is_chunked {
        field(&mut text, "transfer-encoding", b"chunked");
    }
    if let Some(protocol) = opens {
        field(&mut text, "connection", b"upgrade");
        field(&mut text, "upgrade", protocol.name().as_bytes());
    }
    if opens == Some(Upgrade::WebSocket) {
        field(&mut text, "sec-websocket-key", upgrade::key().as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    Ok(Written { text, is_chunked, counted })
}

/// With the authority in the target, so that the reader finds a field `Host` that differs from it.
fn request_line(text: &mut Vec<u8>, method: &Method, uri: &Uri) {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let _ = match uri.authority() {
        Some(authority) if *method == Method::CONNECT => {
            write!(text, "CONNECT {authority} HTTP/1.1\r\n")
        }
        Some(authority) if path == "*" && *method == Method::OPTIONS => {
            write!(text, "OPTIONS http://{authority} HTTP/1.1\r\n")
        }
        Some(authority) if path.starts_with('/') => {
            write!(text, "{method} http://{authority}{path} HTTP/1.1\r\n")
        }
        Some(_) | None => write!(text, "{method} {path} HTTP/1.1\r\n"),
    };
}

/// Writes the fields of a request; true if its body has to come in chunks.
fn fields(
    text: &mut Vec<u8>,
    fields: &HeaderMap,
    (has_ended, is_counted): (bool, bool),
) -> Result<bool, Malformed> {
    let mut has_length = false;
    for (name, value) in fields {
        if is_forbidden(name.as_str()) {
            return Err(Malformed);
        }
        if name == COOKIE || (is_counted && name == CONTENT_LENGTH) {
            continue;
        }
        if name == CONTENT_LENGTH {
            has_length = true;
            if has_ended && value != "0" {
                return Err(Malformed);
            }
        }
        field(text, name.as_str(), value.as_bytes());
    }
    Ok(!has_ended && !has_length)
}

/// Reads a request as it is written for an endpoint. `at` is where it goes, if it does not say;
/// `opens`: as what it is opened.
pub(in crate::proxy::http) fn onward(
    head: &request::Head<'_, '_>,
    (scheme, at): (&'static str, &str),
    opens: Option<Upgrade>,
) -> io::Result<http::Request<()>> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidData);
    let host = head.host.filter(|host| !host.is_empty()).unwrap_or(at);
    let mut fields = HeaderMap::with_capacity(head.fields.len());
    let authority = host.parse::<http::uri::Authority>().unwrap_or_else(|_| {
        // Odd, but nothing that HTTP/1.1 refuses: it goes where HTTP/1.1 has it.
        http::uri::Authority::from_static("invalid")
    });
    if authority.as_str() != host {
        fields.insert(HOST, HeaderValue::from_str(host).map_err(|_| bad(()))?);
    }
    let is_key = |it: &httparse::Header<'_>| it.name.eq_ignore_ascii_case("sec-websocket-key");
    for it in head.fields {
        let keep = match Field::of(it.name) {
            Field::Connection | Field::TransferEncoding | Field::Upgrade | Field::Host => false,
            Field::Hop => false,
            _ => opens != Some(Upgrade::WebSocket) || !is_key(it),
        };
        if keep {
            append(&mut fields, it)?;
        }
    }
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(head.target);
    let method = if opens.is_some() { "CONNECT" } else { head.method };
    let request = http::Request::builder().method(method).version(http::Version::HTTP_2);
    let uri = uri.build().map_err(|_| bad(()))?;
    let mut request = request.uri(uri).body(()).map_err(|_| bad(()))?;
    *request.headers_mut() = fields;
    Ok(request)
}

fn append(fields: &mut HeaderMap, field: &httparse::Header<'_>) -> io::Result<()> {
    let name = HeaderName::from_bytes(field.name.as_bytes());
    let value = HeaderValue::from_bytes(field.value);
    let (Ok(name), Ok(value)) = (name, value) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    fields.append(name, value);
    Ok(())
}

/// Writes a response. `has_ended`: its head is all of it.
pub(super) fn response(
    parts: &http::response::Parts,
    has_ended: bool,
    (kind, takes): (request::Method, Takes),
) -> Result<Written, Malformed> {
    let mut text = Vec::with_capacity(512);
    let status = parts.status;
    let reason = status.canonical_reason().unwrap_or_default();
    let _ = write!(text, "HTTP/1.1 {} {reason}\r\n", status.as_u16());
    let is_bodiless = kind == request::Method::Head
        || status.is_informational()
        || matches!(status.as_u16(), 204 | 304);
    let counted = counted(&parts.headers, has_ended || is_bodiless, takes);
    let mut has_length = false;
    for (name, value) in &parts.headers {
        if is_forbidden(name.as_str()) {
            return Err(Malformed);
        }
        if name == CONTENT_LENGTH {
            if counted.is_some() {
                continue;
            }
            has_length = true;
        }
        field(&mut text, name.as_str(), value.as_bytes());
    }
    let is_chunked = !is_bodiless && !has_length && !has_ended;
    if is_chunked {
        field(&mut text, "transfer-encoding", b"chunked");
    } else if !is_bodiless && !has_length {
        field(&mut text, "content-length", b"0");
    }
    text.extend_from_slice(b"\r\n");
    Ok(Written { text, is_chunked, counted })
}

/// Says how long a body is that was written in chunks.
pub(super) fn says_length(fields: &mut HeaderMap, framing: Framing, length: Option<u64>) {
    if let (Framing::Chunked, Some(length)) = (framing, length) {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Reads a response as it is written for a client.
pub(super) fn answer(head: &response::Head<'_, '_>, status: u16) -> io::Result<http::Response<()>> {
    let mut fields = HeaderMap::with_capacity(head.fields.len());
    for it in head.fields {
        match Field::of(it.name) {
            Field::Connection | Field::TransferEncoding | Field::Upgrade | Field::Hop => {}
            _ => append(&mut fields, it)?,
        }
    }
    let status = StatusCode::from_u16(status).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    Ok(response)
}

/// Whether a stream ends with its head.
pub(super) const fn is_all(framing: Framing) -> bool {
    matches!(framing, Framing::Empty | Framing::Length(0))
}
