//! Talks the peers' protocol: greetings, then requests and answers in frames.
//! In and out: frames of `[u32 length][postcard header][body]`.
//! Keeps: H46, the version leads each greeting and governs every later message of the connection;
//! H35, a greeting carries cluster, node and incarnation.
//! Tested by: below.

use super::Channel;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tandem_core::ids::{ClusterId, NodeId};
use tokio_util::codec::LengthDelimitedCodec;

/// Raised whenever a message changes its meaning or form.
pub const VERSION: u16 = 1;

/// Before the peer has said who it is, it gets little memory.
pub const GREETING_BYTES_MAX: usize = 4 << 10;
/// A chunk of a snapshot with room to spare.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
/// Headers are at most a failure's text.
pub const HEADER_BYTES_MAX: usize = 8 << 10;
/// What one request or answer may carry.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES_MAX;
const FAILURE_CHARS_MAX: usize = 1 << 10;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Random for each start of the process.
    pub incarnation: u64,
}

/// How a node is refused that is no member: the dialling side knows it by these words.
pub fn stranger(node: &NodeId) -> String {
    format!("{node} is not a member here; add it to the configuration")
}

/// The first message in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    Hello(Hello),
    /// No, and why.
    Refused(String),
}

/// Why a greeting or frame could not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misunderstood {
    #[error(
        "it speaks version {version} of the peer protocol, this node version {VERSION}; upgrade \
         one of them"
    )]
    Version { version: u16 },
    #[error("it sent something that is not of the peer protocol")]
    Garbage,
}

impl Greeting {
    pub fn encode(&self) -> Bytes {
        let bytes = postcard::to_stdvec(&VERSION)
            .and_then(|bytes| postcard::to_extend(self, bytes))
            .unwrap_or_default();
        Bytes::from(bytes)
    }

    pub fn decode(frame: &[u8]) -> Result<Self, Misunderstood> {
        let (version, rest) =
            postcard::take_from_bytes::<u16>(frame).map_err(|_| Misunderstood::Garbage)?;
        if version != VERSION {
            return Err(Misunderstood::Version { version });
        }
        postcard::from_bytes(rest).map_err(|_| Misunderstood::Garbage)
    }
}

/// What leads each frame after the greetings; the body is the rest of the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Header {
    Request { id: u64, channel: u8 },
    Response { id: u64 },
    Failed { id: u64, failure: Failure },
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    Handler(String),
    Busy,
    UnknownChannel(u8),
}

impl Failure {
    /// A handler's words, cut to what fits into a header.
    pub fn of_handler(message: &str) -> Self {
        Self::Handler(message.chars().take(FAILURE_CHARS_MAX).collect())
    }
}

impl Header {
    pub fn frame(&self, body: &[u8]) -> Bytes {
        let mut frame = postcard::to_stdvec(self).unwrap_or_default();
        frame.extend_from_slice(body);
        Bytes::from(frame)
    }

    pub fn split(frame: BytesMut) -> Result<(Self, Bytes), Misunderstood> {
        let mut frame = frame.freeze();
        let (header, body) =
            postcard::take_from_bytes::<Self>(&frame).map_err(|_| Misunderstood::Garbage)?;
        let header_bytes = frame.len() - body.len();
        Ok((header, frame.split_off(header_bytes)))
    }
}

impl Channel {
    pub(super) const ALL: [Self; 3] = [Self::Heartbeat, Self::Raft, Self::Operate];

    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Heartbeat => 0,
            Self::Raft => 1,
            Self::Operate => 2,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.number() == number)
    }
}

/// The codec for greetings; `widen` it once the peer is known.
pub fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(GREETING_BYTES_MAX).new_codec()
}

/// Allows frames of full size.
pub fn widen(codec: &mut LengthDelimitedCodec) {
    codec.set_max_frame_length(FRAME_BYTES_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_go_both_ways() {
        for channel in Channel::ALL {
            assert_eq!(Channel::from_number(channel.number()), Some(channel));
        }
        assert_eq!(Channel::from_number(3), None);
    }

    /// H46: what follows an unknown version is not looked at.
    #[test]
    fn another_version_is_named() {
        let greeting = Greeting::Refused("because".into());
        let bytes = greeting.encode();
        assert_eq!(Greeting::decode(&bytes), Ok(greeting));
        let mut later = bytes.to_vec();
        later[0] = 9;
        assert_eq!(Greeting::decode(&later), Err(Misunderstood::Version { version: 9 }));
        assert_eq!(Greeting::decode(&[9, 255]), Err(Misunderstood::Version { version: 9 }));
        assert_eq!(Greeting::decode(&[]), Err(Misunderstood::Garbage));
        assert_eq!(Greeting::decode(&[1, 7]), Err(Misunderstood::Garbage));
    }

    #[test]
    fn a_frame_is_header_and_body() {
        let failure = Failure::of_handler(&"\u{20ac}".repeat(5000));
        for header in [
            Header::Request { id: u64::MAX, channel: 2 },
            Header::Response { id: 1 },
            Header::Failed { id: 7, failure },
        ] {
            assert!(header.frame(b"").len() <= HEADER_BYTES_MAX);
            let frame = BytesMut::from(&header.frame(b"body")[..]);
            assert_eq!(Header::split(frame), Ok((header, Bytes::from_static(b"body"))));
        }
        assert_eq!(Header::split(BytesMut::from(&[250][..])), Err(Misunderstood::Garbage));
    }
}
