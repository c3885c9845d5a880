//! Talks the PROXY protocol, versions 1 and 2: who the client is, said before its first byte.
//! In: the first bytes of a connection. Out: the client's address. And the other way round.
//! Keeps: a header is at most `HEADER_MAX` bytes and read to its exact end, so that not one byte of
//! the client's own is lost; what is no header is refused, never guessed at: a client that may
//! leave it out could claim to be anybody.
//! Reference: HAProxy's doc/proxy-protocol.txt.
//! Tested by: below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses take 36 bytes; the rest is room for extensions, which are skipped.
pub(super) const HEADER_MAX: usize = 536;
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// Which form is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// A header of so many bytes, and who it says the client is; none: the proxy speaks for itself.
    Header(usize, Option<SocketAddr>),
    /// No header.
    Refused,
}

/// Reads a header.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let begins = |signature: &[u8]| {
        let common = signature.len().min(bytes.len());
        bytes[..common] == signature[..common]
    };
    if begins(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins(b"PROXY ") {
        parse_v1(bytes)
    } else {
        Parsed::Refused
    }
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let within = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if within.len() == V1_MAX { Parsed::Refused } else { Parsed::Incomplete };
    };
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else { return Parsed::Refused };
    let words: Vec<&str> = line.split(' ').collect();
    let said = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let of_family = |ip: &IpAddr| ip.is_ipv4() == (family == "TCP4");
            let ip = |text: &str| text.parse::<IpAddr>().ok().filter(of_family);
            let ports = (port(from_port), port(to_port));
            match (ip(from), ip(to), ports) {
                (Some(from), Some(_), (Some(port), Some(_))) => {
                    Some(Some(SocketAddr::new(from, port)))
                }
                _ => None,
            }
        }
        _ => None,
    };
    said.map_or(Parsed::Refused, |client| Parsed::Header(end + 2, client))
}

/// Digits only: `parse` would take a sign as well.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else { return Parsed::Incomplete };
    let [.., command, family, high, low] = *fixed;
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_MAX || !matches!(command, 0x20 | 0x21) {
        return Parsed::Refused;
    }
    let Some(rest) = bytes.get(V2_FIXED..length) else { return Parsed::Incomplete };
    let client = match (command, family) {
        // LOCAL: a check of the proxy's own. And families without addresses that we know.
        (0x20, _) | (0x21, 0x00) => None,
        (0x21, 0x11) => match rest.first_chunk::<12>() {
            Some([a, b, c, d, _, _, _, _, high, low, ..]) => {
                let ip = Ipv4Addr::new(*a, *b, *c, *d);
                Some(SocketAddr::new(ip.into(), u16::from_be_bytes([*high, *low])))
            }
            None => return Parsed::Refused,
        },
        (0x21, 0x21) => match (rest.first_chunk::<16>(), rest.get(32..34), rest.len() >= 36) {
            (Some(ip), Some(&[high, low]), true) => {
                let ip = Ipv6Addr::from(*ip);
                Some(SocketAddr::new(ip.into(), u16::from_be_bytes([high, low])))
            }
            _ => return Parsed::Refused,
        },
        _ => return Parsed::Refused,
    };
    Parsed::Header(length, client)
}

/// Writes a header: `client` speaks to `server`.
pub(super) fn write(version: Version, client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (from, to) = same_family(client, server);
    match version {
        Version::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), server.port())
                .into_bytes()
        }
        Version::V2 => {
            let mut header = V2_SIGNATURE.to_vec();
            header.push(0x21);
            let mut addresses = Vec::new();
            for ip in [from, to] {
                match ip {
                    IpAddr::V4(ip) => addresses.extend(ip.octets()),
                    IpAddr::V6(ip) => addresses.extend(ip.octets()),
                }
            }
            addresses.extend(client.port().to_be_bytes());
            addresses.extend(server.port().to_be_bytes());
            header.push(if from.is_ipv4() { 0x11 } else { 0x21 });
            header.extend(u16::try_from(addresses.len()).unwrap_or(0).to_be_bytes());
            header.extend(addresses);
            header
        }
    }
}

/// A header has one family: where they differ, both are written as IPv6.
fn same_family(client: SocketAddr, server: SocketAddr) -> (IpAddr, IpAddr) {
    let (from, to) = (client.ip().to_canonical(), server.ip().to_canonical());
    if from.is_ipv4() == to.is_ipv4() {
        return (from, to);
    }
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    };
    (wide(from), wide(to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fuzz::cases;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_wherever_it_is_cut() {
        let pairs =
            [("192.0.2.7:5000", "198.51.100.1:443"), ("[2001:db8::7]:5000", "[2001:db8::1]:443")];
        for (client, server) in pairs {
            for version in [Version::V1, Version::V2] {
                let mut bytes = write(version, address(client), address(server));
                let length = bytes.len();
                for cut in 0..length {
                    assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete, "{version:?} {cut}");
                }
                bytes.extend(b"GET / HTTP/1.1");
                assert_eq!(parse(&bytes), Parsed::Header(length, Some(address(client))));
            }
        }
    }

    #[test]
    fn families_that_differ_are_written_as_one() {
        let bytes = write(Version::V1, address("192.0.2.7:5000"), address("[2001:db8::1]:443"));
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 5000 443\r\n");
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        assert_eq!(parse(b"PROXY UNKNOWN\r\nx"), Parsed::Header(15, None));
        let mut local = V2_SIGNATURE.to_vec();
        local.extend([0x20, 0x00, 0, 3, 1, 2, 3]);
        assert_eq!(parse(&local), Parsed::Header(19, None));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
            "PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
            long.as_str(),
        ] {
            assert_eq!(parse(text.as_bytes()), Parsed::Refused, "{text}");
        }
        for tail in
            [[0x31, 0x11, 0, 12], [0x21, 0x11, 0, 4], [0x21, 0x11, 255, 255], [0x21, 9, 0, 0]]
        {
            let mut bytes = V2_SIGNATURE.to_vec();
            bytes.extend(tail);
            bytes.extend([0; 12]);
            assert_eq!(parse(&bytes), Parsed::Refused, "{tail:?}");
        }
    }

    /// The plainest reading of a line: its address, if it is a header.
    fn plain(line: &str) -> Option<Option<SocketAddr>> {
        let line = line.strip_prefix("PROXY ")?;
        if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
            return Some(None);
        }
        let [family, from, to, from_port, to_port] =
            line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(from_port) || !is_number(to_port) {
            return None;
        }
        let at = |ip: &str, port: &str| match family {
            "TCP4" => format!("{ip}:{port}").parse().ok(),
            "TCP6" => format!("[{ip}]:{port}").parse().ok().filter(|_| !ip.contains('%')),
            _ => None,
        };
        at(to, to_port).and(at(from, from_port)).map(Some)
    }

    #[test]
    fn fuzz_headers_are_read_to_their_end_and_not_beyond() {
        let pieces: &[&[u8]] =
            &[b"\r\n", b" ", b"PROXY ", b"UNKNOWN", b"TCP6", b"::1", b"+", b"65536", V2_SIGNATURE];
        let ends = ["192.0.2.7:5000", "198.51.100.1:443", "[2001:db8::7]:5", "[::ffff:1.2.3.4]:6"];
        cases(5_000, |random| {
            let version = random.pick(&[Version::V1, Version::V2]);
            let mut bytes =
                write(version, address(random.pick(&ends)), address(random.pick(&ends)));
            if random.one_in(8) {
                bytes = b"PROXY UNKNOWN\r\n".to_vec();
            }
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
            if !random.one_in(4) {
                random.mutate(&mut bytes, pieces);
            }
            bytes.resize(bytes.len().max(HEADER_MAX + random.below(9)), b'x');
            let whole = parse(&bytes);
            assert_ne!(whole, Parsed::Incomplete, "so much is enough to tell");
            let length = if let Parsed::Header(length, _) = whole { length } else { usize::MAX };
            assert!(length <= HEADER_MAX || length == usize::MAX);
            for end in 0..bytes.len() {
                let part = parse(&bytes[..end]);
                let is_same = part == whole;
                assert!(is_same || (part == Parsed::Incomplete && end < length), "{end}");
            }
            if let (true, Parsed::Header(length, said)) = (bytes.starts_with(b"P"), whole) {
                let line = std::str::from_utf8(&bytes[..length - 2]).unwrap();
                assert_eq!(plain(line), Some(said), "{line}");
            }
        });
    }
}
