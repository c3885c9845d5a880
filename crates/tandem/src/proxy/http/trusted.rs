//! Talks about networks: whose word about other clients is believed.
//! In: text such as `10.0.0.0/8`. Out: whether an address is in it, who a client really is.
//! Tested by: below.

use super::wire::fields::{self, Field};
use super::wire::rewrite::Origin;
use httparse::Header;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    bits: u32,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| NotANetwork)?;
        if ip != ip.to_canonical() {
            // Addresses are compared as what they are: this one would match nobody.
            return Err(NotANetwork);
        }
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &&str| bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => all,
            Some(bits) => Some(bits)
                .filter(is_number)
                .and_then(|bits| bits.parse().ok())
                .filter(|bits| *bits <= all)
                .ok_or(NotANetwork)?,
        };
        Ok(Self { ip, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

impl Network {
    /// Whether an address is in it.
    pub fn contains(self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                same(u128::from(net.to_bits()), u128::from(ip.to_bits()), self.bits + 96)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => same(net.to_bits(), ip.to_bits(), self.bits),
            _ => false,
        }
    }
}

/// The client that the last trusted proxy saw: each proxy adds the one before it to
/// `X-Forwarded-For`, so that what stands left of the first stranger is only that one's word.
pub(super) fn client(fields: &[Header<'_>], origin: Origin, trusted: &[Network]) -> IpAddr {
    let mut client = origin.ip;
    if !origin.is_trusted {
        return client;
    }
    let said = fields.iter().filter(|field| Field::of(field.name) == Field::ForwardedFor);
    let said: Vec<&[u8]> = said.flat_map(|field| fields::list(field.value)).collect();
    for word in said.into_iter().rev() {
        let Some(ip) = address(word) else { break };
        client = ip;
        if !trusted.iter().any(|network| network.contains(ip)) {
            break;
        }
    }
    client
}

/// An address, with a port behind it or not, as some proxies write it.
fn address(word: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(word).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<IpAddr>().ok();
    let ip = ip.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|at| at.ip()));
    ip.map(|ip| ip.to_canonical())
}

/// Whether the first `bits` of 128 are the same.
const fn same(a: u128, b: u128, bits: u32) -> bool {
    (a ^ b).leading_zeros() >= bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_network_or_not() {
        let is_in = |network: &str, ip: &str| {
            network.parse::<Network>().unwrap().contains(ip.parse().unwrap())
        };
        assert!(is_in("10.0.0.0/8", "10.255.0.1") && !is_in("10.0.0.0/8", "11.0.0.1"));
        assert!(is_in("10.0.0.0/8", "::ffff:10.1.1.1"), "the same address in other clothes");
        assert!(is_in("192.0.2.7", "192.0.2.7") && !is_in("192.0.2.7", "192.0.2.6"));
        assert!(is_in("0.0.0.0/0", "1.2.3.4") && !is_in("0.0.0.0/0", "2001:db8::1"));
        assert!(is_in("2001:db8::/32", "2001:db8::1") && !is_in("2001:db8::/32", "2001:db9::1"));
        assert!(is_in("::/0", "::1"));
        for bad in [
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1",
            "",
            "a",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "10.0.0/8",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(NotANetwork), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_first_stranger_from_the_right() {
        let trusted = ["10.0.0.0/8".parse::<Network>().unwrap()];
        let client = |peer: &str, said: &[&str]| {
            let field =
                |value: &&'static str| Header { name: "x-forwarded-for", value: value.as_bytes() };
            let said: Vec<&'static str> =
                said.iter().map(|value| &*String::leak((*value).to_owned())).collect();
            let fields: Vec<Header<'_>> = said.iter().map(field).collect();
            let ip = peer.parse().unwrap();
            let is_trusted = trusted[0].contains(ip);
            super::client(&fields, Origin { ip, is_encrypted: false, is_trusted }, &trusted)
                .to_string()
        };
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), "192.0.2.1", "a stranger's word");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["::ffff:203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "one of our own");
    }
}
