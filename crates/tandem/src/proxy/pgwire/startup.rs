//! Talks to a new client until it has said what it wants: reads its first packets, bounded in size.
//! In: a fresh stream. Out: `Request`.
//! States: Negotiating → (each encryption request is answered 'N', once) Negotiating → Request.
//! Keeps: never reads a byte beyond the packet, so that the rest can be copied untouched; never
//! allocates more than PostgreSQL itself would. TLS at the door is not offered yet.
//! Not here: the limit in time (`session.rs`).
//! Tested by: below, and `tests/startup.rs`.

use std::fmt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// PostgreSQL's MAX_STARTUP_PACKET_LENGTH: what may follow the length word.
pub(in crate::proxy) const CONTENT_MAX: usize = 10_000;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
/// Longest cancel key of protocol 3.2.
pub(in crate::proxy) const CANCEL_KEY_MAX: usize = 256;

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Error {
    #[error("the client left during its startup")]
    Io(#[from] std::io::Error),
    #[error("a startup packet of {0} bytes; this is not a PostgreSQL client")]
    Length(u32),
    #[error("protocol {major}.{minor} is not supported")]
    Version { major: u16, minor: u16 },
    #[error("the startup packet is malformed")]
    Malformed,
    #[error("the client asks for encryption again and again")]
    Negotiation,
}

/// What a client wants.
#[derive(Debug)]
pub(in crate::proxy) enum Request {
    /// A session.
    Session(Startup),
    /// To cancel what another session is doing.
    Cancel(CancelRequest),
}

/// A StartupMessage, as it came.
pub(in crate::proxy) struct Startup {
    /// The whole packet, to be sent on unchanged.
    pub(in crate::proxy) packet: Vec<u8>,
}

impl fmt::Debug for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Startup").field("bytes", &self.packet.len()).finish()
    }
}

impl Startup {
    /// Names and values of the parameters.
    pub(in crate::proxy) fn parameters(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut words = self.packet.get(8..).unwrap_or_default().split(|byte| *byte == 0);
        std::iter::from_fn(move || {
            let name = words.next().filter(|name| !name.is_empty())?;
            Some((name, words.next()?))
        })
    }
}

/// Names a session, and proves the right to cancel it. Never logged.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct CancelKey {
    pub(in crate::proxy) process: u32,
    pub(in crate::proxy) secret: Box<[u8]>,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelKey(..)")
    }
}

/// A CancelRequest, as it came.
pub(in crate::proxy) struct CancelRequest {
    pub(in crate::proxy) packet: Vec<u8>,
    pub(in crate::proxy) key: CancelKey,
}

impl fmt::Debug for CancelRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelRequest(..)")
    }
}

/// Reads packets until one is a request.
pub(in crate::proxy) async fn read<S>(client: &mut S) -> Result<Request, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut asked_ssl, mut asked_gss) = (false, false);
    loop {
        let packet = read_packet(client).await?;
        let asked = match word(&packet, 4) {
            SSL => &mut asked_ssl,
            GSS => &mut asked_gss,
            CANCEL => return cancel(packet),
            version => return session(version, packet),
        };
        if std::mem::replace(asked, true) || packet.len() != 8 {
            return Err(Error::Negotiation);
        }
        client.write_all(b"N").await?;
    }
}

async fn read_packet<S: AsyncRead + Unpin>(client: &mut S) -> Result<Vec<u8>, Error> {
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let length = u32::from_be_bytes(head);
    let total = usize::try_from(length).unwrap_or(usize::MAX);
    if !(8..=CONTENT_MAX + 4).contains(&total) {
        return Err(Error::Length(length));
    }
    let mut packet = vec![0; total];
    packet[..4].copy_from_slice(&head);
    client.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

fn cancel(packet: Vec<u8>) -> Result<Request, Error> {
    let secret: Box<[u8]> = packet.get(12..).unwrap_or_default().into();
    if secret.is_empty() || secret.len() > CANCEL_KEY_MAX {
        return Err(Error::Malformed);
    }
    let key = CancelKey { process: word(&packet, 8), secret };
    Ok(Request::Cancel(CancelRequest { packet, key }))
}

fn session(version: u32, packet: Vec<u8>) -> Result<Request, Error> {
    let [a, b, c, d] = version.to_be_bytes();
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if major != 3 {
        return Err(Error::Version { major, minor });
    }
    if packet.len() < 9 || packet.last() != Some(&0) {
        return Err(Error::Malformed);
    }
    Ok(Request::Session(Startup { packet }))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    u32::from_be_bytes(four.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_bytes(bytes: &[u8]) -> (Result<Request, Error>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let result = read(&mut near).await;
        drop(near);
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.unwrap();
        (result, answer)
    }

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(rest.len() + 8).unwrap();
        [&length.to_be_bytes(), &code.to_be_bytes(), rest].concat()
    }

    #[tokio::test]
    async fn encryption_is_declined_and_the_packet_kept_verbatim() {
        let startup = packet(196_608, b"user\0me\0options\0-c a=b\0\0");
        let bytes = [packet(SSL, b""), packet(GSS, b""), startup.clone()].concat();
        let (request, answer) = read_bytes(&bytes).await;
        let Ok(Request::Session(session)) = request else { panic!("{request:?}") };
        assert_eq!(answer, b"NN");
        assert_eq!(session.packet, startup);
        let parameters: Vec<_> = session.parameters().collect();
        assert_eq!(parameters, [(&b"user"[..], &b"me"[..]), (b"options", b"-c a=b")]);
    }

    #[tokio::test]
    async fn a_cancel_key_may_be_long() {
        for length in [4, 32, 256] {
            let bytes = packet(CANCEL, &[&7u32.to_be_bytes()[..], &vec![9; length]].concat());
            let (request, _) = read_bytes(&bytes).await;
            let Ok(Request::Cancel(cancel)) = request else { panic!("{request:?}") };
            assert_eq!((cancel.key.process, cancel.key.secret.len()), (7, length));
            assert!(!format!("{cancel:?}{:?}", cancel.key).contains('9'));
        }
    }

    #[tokio::test]
    async fn hostile_packets_are_errors() {
        let cases: &[&[u8]] = &[
            b"",
            b"\0\0",
            b"\0\0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff\0\x03\0\0",
            b"\x7f\xff\xff\xff\0\x03\0\0",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\x64\0\x03\0\0user\0",
            &packet(131_072, b"user\0me\0\0"),
            &packet(196_608, b""),
            &packet(196_608, b"user\0me"),
            &packet(CANCEL, b""),
            &packet(CANCEL, &[1; 4]),
            &packet(CANCEL, &[1; 4 + 257]),
            &packet(SSL, b"more"),
            &[packet(SSL, b""), packet(SSL, b"")].concat(),
            &packet(196_608, &vec![0; CONTENT_MAX - 3]),
        ];
        for case in cases {
            assert!(read_bytes(case).await.0.is_err(), "{case:?}");
        }
        assert!(read_bytes(&packet(196_608, &vec![0; CONTENT_MAX - 4])).await.0.is_ok());
    }
}
