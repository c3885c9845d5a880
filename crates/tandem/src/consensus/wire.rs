//! Talks to the peers' Raft side: what a message is, as bytes.
//! In / Out: `Message`, behind one byte that names the version of the encoding.
//! Keeps: H46, an unknown version is an error and not a guess; a garbled message is an error and
//! takes no more memory than it has bytes.
//! Tested by: below, and `tests/refusals.rs`.

use super::membership::Change;
use super::origin::Origin;
use super::refusal::Refusal;
use super::types::{LogId, SnapshotMeta, TypeConfig, Vote};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tandem_core::cluster::command::Command;
use tandem_core::cluster::state::Applied;
use tandem_core::ids::NodeId;

/// Version of the encoding, on the wire and on disk.
const VERSION: u8 = 1;

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    /// There are none.
    #[error("it is empty")]
    Empty,
    /// Written by another version of this program (H46).
    #[error("it has version {found} of the encoding, this program knows {VERSION}")]
    Version {
        /// The version it has.
        found: u8,
    },
    /// Cannot be decoded.
    #[error("it cannot be decoded")]
    Encoding(#[source] postcard::Error),
    /// More follows than was expected.
    #[error("{bytes} bytes follow its end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// What is sent, and who says so.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message<T> {
    pub origin: Origin,
    pub body: T,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
    Snapshot(Piece),
    /// The receiver is no member any more, since this entry (H48).
    Removed(LogId),
    /// To the leader; it answers within this time.
    Lead {
        task: Task,
        within: Duration,
    },
}

/// Part of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct Piece {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub offset: u64,
    pub total: u64,
    pub bytes: Bytes,
}

/// What only the leader can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    Propose(Command),
    ReadIndex,
    Change(Change),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Response {
    Append(AppendEntriesResponse<TypeConfig>),
    /// The vote; and, if the candidate is no member any more, since which entry (H48).
    Vote {
        response: VoteResponse<TypeConfig>,
        gone: Option<LogId>,
    },
    Transfer(TransferLeaderResponse<TypeConfig>),
    /// The piece was taken; with the last one, the snapshot was installed.
    Snapshot(Option<SnapshotResponse<TypeConfig>>),
    Noted,
    Outcome(Outcome),
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Applied(Applied),
    Done,
    /// Everything committed before the question is at or before this index.
    Index(u64),
    /// Surely not done: this node does not lead, or cannot prove it. Perhaps that one does.
    Elsewhere(Option<NodeId>),
    /// Perhaps done, perhaps not.
    Unknown,
    Refused(Refusal),
    /// Raft has stopped on the node that was asked.
    Stopped,
}

/// Encodes behind the version.
///
/// # Errors
/// A value that the encoding does not know: none of this module's.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Garbage> {
    postcard::to_extend(value, vec![VERSION]).map_err(Garbage::Encoding)
}

/// Decodes, strictly.
///
/// # Errors
/// Anything but one whole value of the known version.
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Garbage> {
    let (version, body) = bytes.split_first().ok_or(Garbage::Empty)?;
    if *version != VERSION {
        return Err(Garbage::Version { found: *version });
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(Garbage::Encoding)?;
    if rest.is_empty() { Ok(value) } else { Err(Garbage::Trailing { bytes: rest.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_named_and_never_a_panic() {
        assert_eq!(decode::<Request>(&[]).unwrap_err(), Garbage::Empty);
        assert_eq!(decode::<Request>(&[9, 1]).unwrap_err(), Garbage::Version { found: 9 });
        assert_eq!(decode::<u64>(&[VERSION, 1, 2]).unwrap_err(), Garbage::Trailing { bytes: 1 });
        let mut seed = 1_u64;
        for length in 0..2000 {
            let mut bytes = vec![VERSION];
            for _ in 0..length % 97 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((seed >> 56) as u8);
            }
            let _ = decode::<Message<Request>>(&bytes);
            let _ = decode::<Message<Response>>(&bytes);
        }
    }

    #[test]
    fn a_cut_message_is_garbage() {
        let task = Task::Propose(Command::Drain { node: "a".into(), draining: true });
        let request = Request::Lead { task, within: Duration::from_millis(5) };
        let bytes = encode(&request).unwrap();
        assert!(decode::<Request>(&bytes).is_ok());
        for cut in 0..bytes.len() {
            assert!(decode::<Request>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
