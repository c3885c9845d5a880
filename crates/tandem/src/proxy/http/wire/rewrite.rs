//! Writes the heads that go on: of a request for an endpoint, of a response for a client.
//! In: a head that was read, who the client is. Out: bytes.
//! Keeps: framing is written anew from what was understood; what was for this hop only ends here,
//! whatever `Connection` calls it; who the client is says its connection, and a head only where the
//! one before is trusted.
//! Not here: what is refused (`request.rs`, `response.rs`).
//! Tested by: below.

use super::fields::{self, Field};
use super::framing::Framing;
use super::{request, response};
use crate::proxy::balancer::owners::Routed;
use httparse::Header;
use std::io::Write;
use std::net::IpAddr;

/// Who sent a request, and how.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy::http) struct Origin {
    pub(in crate::proxy::http) ip: IpAddr,
    pub(in crate::proxy::http) is_encrypted: bool,
    /// What it says of others is believed.
    pub(in crate::proxy::http) is_trusted: bool,
}

impl Origin {
    const fn scheme(self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }
}

/// Writes the head of a request as an endpoint gets it.
pub(in crate::proxy::http) fn request(
    out: &mut Vec<u8>,
    head: &request::Head<'_, '_>,
    origin: Origin,
) {
    line(out, &[head.method, " ", head.target, " HTTP/1.1"]);
    let named = fields::names_others(head.fields);
    let mut teaches = false;
    for field in head.fields {
        let keep = match Field::of(field.name) {
            Field::Te => {
                let is_trailers = |it: &[u8]| it.eq_ignore_ascii_case(b"trailers");
                teaches |= fields::list(field.value).any(is_trailers);
                false
            }
            Field::Claim => origin.is_trusted,
            Field::Expect => head.expects,
            Field::Cookie => true,
            Field::Other => !(named && fields::is_named(head.fields, field.name)),
            _ => false,
        };
        if keep {
            copy(out, field);
        }
    }
    // HTTP/1.0 may have none, HTTP/1.1 must have one, if only an empty one.
    line(out, &["Host: ", head.host.unwrap_or_default()]);
    framing(out, head.framing);
    // RFC 9110, 10.1.4: whoever sends it says that it is for the next hop alone.
    if teaches {
        line(out, &["TE: trailers"]);
    }
    match (teaches, head.upgrade) {
        (true, None) => line(out, &["Connection: TE"]),
        (true, Some(protocol)) => line(out, &["Connection: TE, upgrade\r\nUpgrade: ", protocol]),
        (false, Some(protocol)) => line(out, &["Connection: upgrade\r\nUpgrade: ", protocol]),
        (false, None) => {}
    }
    forwarded(out, head, origin);
    out.extend_from_slice(b"\r\n");
}

/// Says as what an endpoint gets a request: which partition, and under which epoch its owner has
/// it. `end` is where the head ended before anything of that was written, by which it may be
/// written anew for another endpoint.
pub(in crate::proxy::http) fn routed(
    out: &mut Vec<u8>,
    end: usize,
    Routed { partition, epoch, at: _ }: Routed,
) {
    out.truncate(end.saturating_sub(2));
    out.extend_from_slice(b"Tandem-Partition: ");
    number(out, u64::from(partition.0));
    out.extend_from_slice(b"\r\nTandem-Epoch: ");
    number(out, epoch.0);
    out.extend_from_slice(b"\r\n\r\n");
}

/// Says who the client is.
fn forwarded(out: &mut Vec<u8>, head: &request::Head<'_, '_>, origin: Origin) {
    let believed = |wanted: Field| {
        let said = head.fields.iter().filter(move |it| Field::of(it.name) == wanted);
        said.filter(move |_| origin.is_trusted).map(|it| it.value)
    };
    let ip = origin.ip;
    list(out, "X-Forwarded-For: ", believed(Field::ForwardedFor));
    address(out, ip);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    let scheme = believed(Field::ForwardedProto).next();
    out.extend_from_slice(scheme.unwrap_or(origin.scheme().as_bytes()));
    out.extend_from_slice(b"\r\n");
    let host = believed(Field::ForwardedHost).next().or(head.host.map(str::as_bytes));
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
    }
    list(out, "Forwarded: ", believed(Field::Forwarded));
    out.extend_from_slice(if ip.is_ipv4() { b"for=" } else { b"for=\"[" });
    address(out, ip);
    out.extend_from_slice(if ip.is_ipv4() { b";proto=" } else { b"]\";proto=" });
    out.extend_from_slice(origin.scheme().as_bytes());
    if let Some(host) = head.host.filter(|host| !host.is_empty()) {
        for part in [";host=\"", host, "\""] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The values so far, and room for one more.
fn list<'b>(out: &mut Vec<u8>, name: &str, values: impl Iterator<Item = &'b [u8]>) {
    out.extend_from_slice(name.as_bytes());
    for value in values.filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// How a response goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) struct Onward<'a> {
    /// How the client finds its end.
    pub(in crate::proxy::http) framing: Framing,
    /// The client's connection stays open.
    pub(in crate::proxy::http) keep_alive: bool,
    /// The client speaks HTTP/1.0.
    pub(in crate::proxy::http) is_old: bool,
    /// A cookie to set: the whole value.
    pub(in crate::proxy::http) cookie: Option<&'a str>,
}

/// Writes the head of a response as the client gets it.
pub(in crate::proxy::http) fn response(
    out: &mut Vec<u8>,
    head: &response::Head<'_, '_>,
    onward: Onward<'_>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(head.status));
    line(out, &[" ", head.reason]);
    let switches = head.status == 101;
    let named = fields::names_others(head.fields);
    let mut length = None;
    for field in head.fields {
        let keep = match Field::of(field.name) {
            Field::ContentLength => {
                length = Some(field);
                false
            }
            Field::TransferEncoding | Field::Connection | Field::Hop => false,
            Field::Upgrade => switches,
            _ => !(named && fields::is_named(head.fields, field.name)),
        };
        if keep {
            copy(out, field);
        }
    }
    match (onward.framing, length) {
        // The length of what is not there: of a HEAD, of what the client has already.
        (Framing::Empty, Some(length)) if !matches!(head.status, 100..=199 | 204) => {
            copy(out, length);
        }
        (other, _) => framing(out, other),
    }
    if switches {
        line(out, &["Connection: upgrade"]);
    } else if head.is_interim() {
        // Says nothing about the connection.
    } else if !onward.keep_alive {
        line(out, &["Connection: close"]);
    } else if onward.is_old {
        line(out, &["Connection: keep-alive"]);
    }
    if let Some(cookie) = onward.cookie {
        line(out, &["Set-Cookie: ", cookie]);
    }
    out.extend_from_slice(b"\r\n");
}

fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Empty | Framing::Close => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => line(out, &["Transfer-Encoding: chunked"]),
    }
}

/// In digits. Every head has some, and the general way to write them takes longer than all else
/// of a head.
fn number(out: &mut Vec<u8>, mut number: u64) {
    let from = out.len();
    loop {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[from..].reverse();
}

fn address(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        let _ = write!(out, "{ip}");
        return;
    };
    let [a, b, c, d] = ip.octets();
    number(out, u64::from(a));
    for octet in [b, c, d] {
        out.push(b'.');
        number(out, u64::from(octet));
    }
}

fn copy(out: &mut Vec<u8>, field: &Header<'_>) {
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value);
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::ids::{Epoch, PartitionId};
    use tandem_core::time::Timestamp;

    const STRANGER: Origin = Origin {
        ip: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        is_encrypted: false,
        is_trusted: false,
    };

    fn sent_on(bytes: &str, origin: Origin) -> String {
        let mut room = request::no_fields();
        let head = request::read(bytes.as_bytes(), &mut room, (100, 1_000)).unwrap().unwrap();
        let mut out = Vec::new();
        request(&mut out, &head, origin);
        String::from_utf8(out).unwrap()
    }

    fn answered(bytes: &str, onward: Onward<'_>) -> String {
        let mut room = request::no_fields();
        let head = response::read(bytes.as_bytes(), &mut room, request::Method::Other);
        let mut out = Vec::new();
        response(&mut out, &head.unwrap().unwrap(), onward);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_and_addresses_are_written_as_anybody_writes_them() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = b"x".to_vec();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        for value in [0, 9, 10, 200, 65_535, u64::MAX] {
            assert_eq!(written(&|out| number(out, value)), format!("x{value}"));
        }
        for ip in ["0.0.0.0", "192.0.2.10", "255.255.255.255", "2001:db8::1"] {
            assert_eq!(written(&|out| address(out, ip.parse().unwrap())), format!("x{ip}"));
        }
    }

    #[test]
    fn only_the_door_says_whose_a_request_is() {
        let bytes = "GET /a HTTP/1.1\r\nHost: shop\r\nTandem-Partition: 1\r\n\
             tandem_partition: 2\r\nTandem-Epoch: 9\r\nTandem-Other: x\r\n\r\n";
        let trusted = Origin { is_trusted: true, ..STRANGER };
        let mut out = sent_on(bytes, trusted).into_bytes();
        let end = out.len();
        for (partition, epoch) in [(7, 123), (7, 4)] {
            let (partition, epoch) = (PartitionId(partition), Epoch(epoch));
            let at = Timestamp(0);
            routed(&mut out, end, Routed { partition, epoch, at });
        }
        let text = String::from_utf8(out).unwrap();
        let ours: Vec<&str> = text.lines().filter(|line| line.contains("andem")).collect();
        assert_eq!(ours, ["Tandem-Other: x", "Tandem-Partition: 7", "Tandem-Epoch: 4"], "{text}");
        assert!(text.ends_with("Epoch: 4\r\n\r\n"), "{text}");
    }

    #[test]
    fn what_was_for_this_hop_ends_here() {
        let sent = sent_on(
            "POST /a?b HTTP/1.1\r\nHost: shop\r\n\
             Connection: keep-alive, X-Hop, content-length, Host\r\n\
             X-Hop: 1\r\nKeep-Alive: 5\r\nTE: gzip, trailers\r\nProxy-Connection: x\r\n\
             Upgrade: a\r\n\
             Content_Length: 9\r\nContent-Length: 007\r\nTrailer: Digest\r\nA:  b \r\n\r\n",
            STRANGER,
        );
        let wanted = "POST /a?b HTTP/1.1\r\nTrailer: Digest\r\nA: b\r\nHost: shop\r\n\
             Content-Length: 7\r\nTE: trailers\r\nConnection: TE\r\nX-Forwarded-For: 192.0.2.1\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: shop\r\n\
             Forwarded: for=192.0.2.1;proto=http;host=\"shop\"\r\n\r\n";
        assert_eq!(sent, wanted);
    }

    #[test]
    fn strangers_do_not_say_who_they_are_and_trusted_ones_do() {
        let head = "GET http://shop:80/ HTTP/1.1\r\nHost: SHOP:80\r\nX-Forwarded-For: 1.1.1.1\r\n\
             Forwarded: for=1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
             X-Real-IP: 1.1.1.1\r\nX-Forwarded-Port: 1\r\nX_Forwarded_For: 2.2.2.2\r\n\
             X-Forwarded-For: 3.3.3.3\r\n\r\n";
        let sent = sent_on(head, STRANGER);
        let wanted = "GET / HTTP/1.1\r\nHost: shop:80\r\nX-Forwarded-For: 192.0.2.1\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: shop:80\r\n\
             Forwarded: for=192.0.2.1;proto=http;host=\"shop:80\"\r\n\r\n";
        assert_eq!(sent, wanted);
        let ip = "2001:db8::1".parse().unwrap();
        let sent = sent_on(head, Origin { ip, is_encrypted: true, is_trusted: true });
        let wanted = "GET / HTTP/1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Forwarded-Port: 1\r\n\
             Host: shop:80\r\n\
             X-Forwarded-For: 1.1.1.1, 3.3.3.3, 2001:db8::1\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: evil\r\n\
             Forwarded: for=1.1.1.1, for=\"[2001:db8::1]\";proto=https;host=\"shop:80\"\r\n\r\n";
        assert_eq!(sent, wanted);
    }

    #[test]
    fn only_one_plain_protocol_is_changed_to() {
        let sent = |protocol: &str, more: &str| {
            let head = format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade{more}\r\n\
                 Upgrade: {protocol}\r\n\r\n"
            );
            sent_on(&head, STRANGER).contains("\r\nConnection: upgrade\r\nUpgrade: ")
        };
        assert!(sent("websocket", ""));
        assert!(sent("websocket", ", HTTP2-Settings\r\nHTTP2-Settings: AAA"));
        for refused in ["h2c", "H2", "websocket, h2c", "TLS/1.0", "HTTP/2.0", ""] {
            assert!(!sent(refused, ""), "{refused}");
        }
        assert!(!sent("websocket", "\r\nContent-Length: 3"));
        assert!(!sent("websocket", "\r\nUpgrade: h2c"));
    }

    #[test]
    fn a_response_says_what_the_client_shall_do() {
        let head = "HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\
             Upgrade: h2\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n\r\n";
        let onward =
            Onward { framing: Framing::Length(3), keep_alive: true, is_old: false, cookie: None };
        let start = "HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: a=b\r\nContent-Length: 3\r\n";
        assert_eq!(answered(head, onward), format!("{start}\r\n"));
        let old = Onward { is_old: true, cookie: Some("s=1"), ..onward };
        let end = "Connection: keep-alive\r\nSet-Cookie: s=1\r\n\r\n";
        assert_eq!(answered(head, old), format!("{start}{end}"));
        let close = Onward { keep_alive: false, ..onward };
        assert_eq!(answered(head, close), format!("{start}Connection: close\r\n\r\n"));
        let head = "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n";
        let empty = Onward { framing: Framing::Empty, ..onward };
        assert_eq!(answered(head, empty), head);
        let head = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        assert_eq!(answered(head, empty), head);
        let switched = answered(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            empty,
        );
        let wanted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Connection: upgrade\r\n\r\n";
        assert_eq!(switched, wanted);
    }

    /// Each of its words is looked for among all fields.
    #[test]
    fn connection_has_few_words() {
        let head = |words: usize| {
            let words = vec!["x"; words].join(",");
            format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {words}\r\nConnection: y\r\n\r\n")
        };
        let read = |bytes: &str| {
            let mut room = request::no_fields();
            request::read(bytes.as_bytes(), &mut room, (100, 1_000)).map(|head| head.is_some())
        };
        assert_eq!(read(&head(31)), Ok(true));
        assert_eq!(read(&head(32)), Err(request::Refusal::Bad("Connection has too many words")));
        assert_eq!(read(&head(9_999)), Err(request::Refusal::Bad("Connection has too many words")));
    }
}
