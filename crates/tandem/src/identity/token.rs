//! Talks to the tokens of an authority: one string that lets one named node join once.
//! In: a node's name. Out: `JoinToken`; only a hash of its secret stays on the disk.
//! States: Minted → (join, or an hour later) Gone.
//! Tested by: `tests.rs`.

use super::files::{Folder, create_private_dir, io, sync_dir, write_durably};
use super::{Error, Identity};
use crate::runtime::clock;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tandem_core::ids::{ClusterId, NodeId};

/// Long enough to carry the string to another machine, short enough to forget.
const VALID_SECONDS: u64 = 3600;
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;

/// What a node needs to join, printable as one string. It is a secret until it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub(super) address: String,
    pub(super) ca_fingerprint: [u8; 32],
    pub(super) cluster: ClusterId,
    pub(super) host: NodeId,
    pub(super) node: NodeId,
    pub(super) secret: [u8; 32],
    pub(super) expires: u64,
}

/// Why a text is not a join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFlaw {
    /// Something was lost on the way.
    #[error("the join token is not complete; copy all of it, or make a new one")]
    Incomplete,
    /// Made by another version.
    #[error(
        "the join token is of version {version}, this is version {VERSION}; use the same release"
    )]
    Version {
        /// The token's.
        version: u8,
    },
}

impl JoinToken {
    /// The peer port to dial.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same token, used through another address of the same member (NAT, a tunnel).
    #[must_use]
    pub fn through(mut self, address: String) -> Self {
        self.address = address;
        self
    }

    /// The only node that may use it.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// When it ends, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.expires
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("address", &self.address)
            .field("node", &self.node)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_extend(self, vec![VERSION]).map_err(|_| fmt::Error)?;
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for JoinToken {
    type Err = TokenFlaw;

    fn from_str(text: &str) -> Result<Self, TokenFlaw> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| TokenFlaw::Incomplete)?;
        let (bytes, check) =
            bytes.split_last_chunk::<CHECK_BYTES>().ok_or(TokenFlaw::Incomplete)?;
        if blake3::hash(bytes).as_bytes()[..CHECK_BYTES] != check[..] {
            return Err(TokenFlaw::Incomplete);
        }
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| TokenFlaw::Incomplete),
            Some((&version, _)) => Err(TokenFlaw::Version { version }),
            None => Err(TokenFlaw::Incomplete),
        }
    }
}

/// Makes a token with which `node` may join through the peer port at `address` within an hour.
///
/// # Errors
/// This node has no authority, the name is unusable, or the files cannot be written.
pub fn mint_token(dir: &Path, address: &str, node: &NodeId) -> Result<JoinToken, Error> {
    mint_until(dir, address, node, unix_seconds() + VALID_SECONDS)
}

pub(super) fn mint_until(
    dir: &Path,
    address: &str,
    node: &NodeId,
    expires: u64,
) -> Result<JoinToken, Error> {
    let identity = Identity::load(dir)?;
    let folder = Folder::of(dir);
    if !folder.has_authority() {
        return Err(Error::NoAuthority { path: folder.path().to_owned() });
    }
    identity.server_name(node)?;
    create_private_dir(&folder.tokens())?;
    remove_expired(&folder.tokens());
    let secret: [u8; 32] = rand::random();
    let record = Record { node: node.clone(), expires };
    let bytes = serde_json::to_vec(&record)
        .map_err(|error| io("write", folder.path())(std::io::Error::from(error)))?;
    write_durably(&record_path(&folder.tokens(), &secret), &bytes)?;
    Ok(JoinToken {
        address: address.to_owned(),
        ca_fingerprint: identity.ca_fingerprint(),
        cluster: identity.cluster().clone(),
        host: identity.node().clone(),
        node: node.clone(),
        secret,
        expires,
    })
}

/// What stays of a token where it was minted.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub node: NodeId,
    pub expires: u64,
}

impl Record {
    /// The record of a token that may still be used.
    pub fn find(dir: &Path, secret: &[u8; 32]) -> Option<Self> {
        let bytes = fs::read(record_path(&Folder::of(dir).tokens(), secret)).ok()?;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        (record.expires > unix_seconds()).then_some(record)
    }

    /// Uses the token up: true for exactly one caller, and durably before it returns (INV-2).
    pub fn consume(dir: &Path, secret: &[u8; 32]) -> Result<bool, Error> {
        let tokens = Folder::of(dir).tokens();
        let path = record_path(&tokens, secret);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&tokens).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io("remove", &path)(error)),
        }
    }
}

fn record_path(tokens: &Path, secret: &[u8; 32]) -> PathBuf {
    tokens.join(blake3::hash(secret).to_hex().as_str())
}

/// Tidies up; what cannot be removed is refused by its date anyway.
fn remove_expired(tokens: &Path) {
    let Ok(entries) = fs::read_dir(tokens) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let record = fs::read(&path).ok().and_then(|b| serde_json::from_slice::<Record>(&b).ok());
        if record.is_none_or(|record| record.expires <= unix_seconds()) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn unix_seconds() -> u64 {
    clock::unix_ms() / 1000
}
