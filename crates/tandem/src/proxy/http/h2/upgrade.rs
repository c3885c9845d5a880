//! Talks of the protocols to which a connection of HTTP/1.1 changes, and as which a stream of
//! HTTP/2 is opened (extended CONNECT, RFC 8441).
//! In: a name; the key of a WebSocket, which HTTP/2 has no need of. Out: the protocol; the answer
//! that proves that the key was read (RFC 6455, 4.2.2).
//! Tested by: below, `tests/h2/`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;

/// A protocol that both have, whose bytes are the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum Upgrade {
    WebSocket,
    /// Datagrams through a proxy (RFC 9298).
    ConnectUdp,
    /// Packets through a proxy (RFC 9484).
    ConnectIp,
}

impl Upgrade {
    const ALL: [Self; 3] = [Self::WebSocket, Self::ConnectUdp, Self::ConnectIp];

    /// None if one of both has no such protocol.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(name))
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::ConnectUdp => "connect-udp",
            Self::ConnectIp => "connect-ip",
        }
    }
}

/// What every server appends to a key.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key for an endpoint that wants one, of a client that sent none.
pub(super) fn key() -> String {
    STANDARD.encode(rand::random::<[u8; 16]>())
}

/// What answers a key.
pub(super) fn accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(MAGIC);
    STANDARD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_in_the_standard() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_ne!(key(), key());
    }
}
