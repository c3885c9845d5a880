//! Talks about the fields of HTTP heads: which ones concern a proxy, and what their values are.
//! In: names and values. Out: `Field`, lists, numbers.
//! Costs: a name is compared with those of its length only, and nothing is copied.
//! Not here: what becomes of them (`rewrite.rs`).
//! Tested by: below.

use httparse::Header;

/// The most words that `Connection` may have: each is looked for among all fields.
pub(in crate::proxy::http) const OPTIONS_MAX: usize = 32;

/// What a field is to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum Field {
    ContentLength,
    TransferEncoding,
    Host,
    Connection,
    Upgrade,
    Expect,
    Te,
    Cookie,
    Forwarded,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    /// Says who the client is in other words, which a stranger may not.
    Claim,
    /// Says as what an endpoint gets the request, which only the door may.
    Routed,
    /// For the next hop only.
    Hop,
    /// Looks like one of those above to those who take `_` for `-`, as CGI does.
    Lookalike,
    Other,
}

impl Field {
    pub(in crate::proxy::http) fn of(name: &str) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let hop = |is_it: bool| if is_it { Self::Hop } else { Self::Other };
        let found = match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("cookie") => Self::Cookie,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            9 if is("forwarded") => Self::Forwarded,
            9 if is("x-real-ip") => Self::Claim,
            10 if is("connection") => Self::Connection,
            10 => hop(is("keep-alive")),
            12 if is("tandem-epoch") => Self::Routed,
            14 if is("content-length") => Self::ContentLength,
            14 => hop(is("http2-settings")),
            15 if is("x-forwarded-for") => Self::ForwardedFor,
            16 if is("x-forwarded-host") => Self::ForwardedHost,
            16 if is("tandem-partition") => Self::Routed,
            16 => hop(is("proxy-connection")),
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("x-forwarded-proto") => Self::ForwardedProto,
            18 => hop(is("proxy-authenticate")),
            19 => hop(is("proxy-authorization")),
            _ => Self::Other,
        };
        match found {
            Self::Other if begins_with_forwarded(name) => Self::Claim,
            Self::Other if name.contains('_') => lookalike(name),
            _ => found,
        }
    }
}

fn begins_with_forwarded(name: &str) -> bool {
    name.len() > 12 && name.as_bytes()[..12].eq_ignore_ascii_case(b"x-forwarded-")
}

fn lookalike(name: &str) -> Field {
    match Field::of(&name.replace('_', "-")) {
        Field::Other => Field::Other,
        _ => Field::Lookalike,
    }
}

/// The words of a list, without empty ones.
pub(in crate::proxy::http) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

/// The names and values of cookies.
pub(in crate::proxy::http) fn pairs(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|byte| *byte == b';').filter_map(|it| {
        let at = it.iter().position(|byte| *byte == b'=')?;
        Some((it[..at].trim_ascii(), it[at + 1..].trim_ascii()))
    })
}

/// Digits and nothing else, as many as fit.
pub(in crate::proxy::http) fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// Which fields the message's `Connection` names: for the next hop only, whatever they are.
pub(in crate::proxy::http) fn is_named(fields: &[Header<'_>], name: &str) -> bool {
    let connections = fields.iter().filter(|field| Field::of(field.name) == Field::Connection);
    connections.flat_map(|it| list(it.value)).any(|it| it.eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether `Connection` names anything but what every proxy knows: then names must be looked for.
pub(in crate::proxy::http) fn names_others(fields: &[Header<'_>]) -> bool {
    let known: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
    let is_known = |word: &[u8]| known.iter().any(|known| word.eq_ignore_ascii_case(known));
    let connections = fields.iter().filter(|field| Field::of(field.name) == Field::Connection);
    connections.flat_map(|it| list(it.value)).any(|word| !is_known(word))
}

/// The parser takes a bare LF for the end of a line, and a CR only before an LF.
pub(in crate::proxy::http) fn has_bare_line_feed(head: &[u8]) -> bool {
    let count = |wanted: u8| head.iter().filter(|byte| **byte == wanted).count();
    count(b'\n') != count(b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_lookalikes_too() {
        assert_eq!(Field::of("Content-LENGTH"), Field::ContentLength);
        assert_eq!(Field::of("content_length"), Field::Lookalike);
        assert_eq!(Field::of("Transfer_Encoding"), Field::Lookalike);
        assert_eq!(Field::of("X_Forwarded-For"), Field::Lookalike);
        assert_eq!(Field::of("X-Forwarded-Port"), Field::Claim);
        assert_eq!(Field::of("x-forwarded-"), Field::Other);
        assert_eq!(Field::of("Keep-Alive"), Field::Hop);
        assert_eq!(Field::of("HTTP2-Settings"), Field::Hop);
        assert_eq!(Field::of("X_My_Field"), Field::Other);
        assert_eq!(Field::of("Accept"), Field::Other);
        assert_eq!(Field::of("Tandem-PARTITION"), Field::Routed);
        assert_eq!(Field::of("tandem_epoch"), Field::Lookalike);
    }

    #[test]
    fn a_length_is_digits() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"18446744073709551615"), Some(u64::MAX));
        let bad: &[&[u8]] =
            &[b"", b"+1", b"-1", b"1 1", b"1,1", b"0x1", b"1.0", b"18446744073709551616"];
        for bad in bad {
            assert_eq!(length(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_connection_names_is_found_in_every_one_of_them() {
        let field = |name, value: &'static str| Header { name, value: value.as_bytes() };
        let fields = [
            field("Connection", "close, X-One ,,"),
            field("connection", "x-two"),
            field("X-Two", ""),
        ];
        assert!(names_others(&fields));
        assert!(is_named(&fields, "x-one") && is_named(&fields, "X-Two"));
        assert!(!is_named(&fields, "x-three"));
        assert!(!names_others(&[field("Connection", "Close, keep-alive"), field("A", "b")]));
    }
}
