//! Talks the two fields by which HTTP/1.1 opens a WebSocket, which HTTP/2 has no need of.
//! In: a key. Out: the answer that proves that it was read (RFC 6455, 4.2.2).
//! Tested by: below.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;

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
