//! Talks to redb: the layout of the file.
//! Tables: `meta` (identity, vote, committed, purged, snapshot), `log` by index, `peers` by name.
//! Every value starts with the version of its encoding (H46).
//! Keeps: H30, H35: a store of another node or cluster is refused.

use super::Error;
use super::log::{Cache, Stored};
use crate::consensus::origin::Run;
use crate::consensus::types::{Entry, LogId, Membership, Snapshot, SnapshotMeta, Vote};
use crate::consensus::wire;
use bytes::Bytes;
use openraft::LogIdOptionExt;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use tandem_core::ids::{ClusterId, NodeId};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const PEERS: TableDefinition<&str, &[u8]> = TableDefinition::new("peers");

const IDENTITY: &str = "identity";
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const SNAPSHOT: &str = "snapshot";

/// redb's own default is 1 GiB; the log is read once, at the start.
const CACHE_BYTES_MAX: usize = 8 << 20;

/// Whose store it is, and which start of it this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// The line of history: 0 from the founding, another number after `recover`.
    pub lineage: u64,
    pub run: Run,
}

/// The content of the file.
pub struct Loaded {
    pub identity: Identity,
    pub cache: Cache,
    pub snapshot: Option<Snapshot>,
    pub peers: BTreeMap<NodeId, Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    Now,
    Later,
}

/// One change of the file.
#[derive(Debug)]
pub enum Op {
    Meta(&'static str, Vec<u8>),
    Log(u64, Vec<u8>),
    /// Drops this entry and all after it.
    Truncate(u64),
    /// Drops this entry and all before it.
    Purge(u64),
    Peer(NodeId, Vec<u8>),
    Forget(NodeId),
    Wipe,
}

impl Op {
    pub fn identity(identity: &Identity) -> io::Result<Self> {
        Ok(Self::Meta(IDENTITY, wire::encode(identity).map_err(io::Error::other)?))
    }

    pub fn vote(vote: &Vote) -> io::Result<Self> {
        Ok(Self::Meta(VOTE, wire::encode(vote).map_err(io::Error::other)?))
    }

    pub fn committed(committed: Option<&LogId>) -> io::Result<Self> {
        Ok(Self::Meta(COMMITTED, wire::encode(&committed).map_err(io::Error::other)?))
    }

    pub fn purged(purged: &LogId) -> io::Result<Self> {
        Ok(Self::Meta(PURGED, wire::encode(purged).map_err(io::Error::other)?))
    }

    pub fn peer(node: NodeId, run: &Run) -> io::Result<Self> {
        Ok(Self::Peer(node, wire::encode(run).map_err(io::Error::other)?))
    }

    pub fn snapshot(snapshot: &Snapshot) -> io::Result<Self> {
        let stored = StoredSnapshot {
            last_log_id: snapshot.meta.last_log_id.clone(),
            membership: snapshot.meta.last_membership.clone(),
            state: snapshot.snapshot.clone(),
        };
        Ok(Self::Meta(SNAPSHOT, wire::encode(&stored).map_err(io::Error::other)?))
    }
}

#[derive(Serialize, Deserialize)]
struct StoredSnapshot {
    last_log_id: Option<LogId>,
    membership: Membership,
    state: Bytes,
}

/// Opens or makes the file; counts this start, which also proves that it can be written.
pub fn open(path: &Path, cluster: &ClusterId, node: &NodeId) -> Result<(Database, Loaded), Error> {
    let fault = |source| Error::Database { path: path.to_owned(), source: Box::new(source) };
    let database = builder().create(path).map_err(|error| fault(error.into()))?;
    let found = load(&database, path)?;
    let mut loaded = match found {
        Some(loaded) => loaded,
        None => Loaded {
            identity: Identity {
                cluster: cluster.clone(),
                node: node.clone(),
                lineage: 0,
                run: Run::first(),
            },
            cache: Cache::default(),
            snapshot: None,
            peers: BTreeMap::new(),
        },
    };
    check_owner(&loaded.identity, path, cluster, node)?;
    loaded.identity.run = loaded.identity.run.next();
    let op = Op::identity(&loaded.identity).map_err(|error| fault(error.into()))?;
    write(&database, [&op], Durable::Now).map_err(fault)?;
    Ok((database, loaded))
}

/// Opens a file that must be there, without counting a start.
pub fn open_existing(path: &Path) -> Result<(Database, Loaded), Error> {
    let nothing = || Error::Nothing { path: path.to_owned() };
    if !path.exists() {
        return Err(nothing());
    }
    let database = builder().open(path).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => Error::InUse { path: path.to_owned() },
        other => Error::Database { path: path.to_owned(), source: Box::new(other.into()) },
    })?;
    let loaded = load(&database, path)?.ok_or_else(nothing)?;
    Ok((database, loaded))
}

/// Applies changes in order, all or none.
pub fn write<'a>(
    database: &Database,
    ops: impl IntoIterator<Item = &'a Op>,
    durable: Durable,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(match durable {
        Durable::Now => Durability::Immediate,
        Durable::Later => Durability::None,
    })?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut log = transaction.open_table(LOG)?;
        let mut peers = transaction.open_table(PEERS)?;
        for op in ops {
            match op {
                Op::Meta(key, value) => drop(meta.insert(*key, value.as_slice())?),
                Op::Log(index, value) => drop(log.insert(*index, value.as_slice())?),
                Op::Truncate(from) => log.retain_in(*from.., |_, _| false)?,
                Op::Purge(upto) => log.retain_in(..=*upto, |_, _| false)?,
                Op::Peer(node, value) => drop(peers.insert(node.as_str(), value.as_slice())?),
                Op::Forget(node) => drop(peers.remove(node.as_str())?),
                Op::Wipe => peers.retain(|_, _| false)?,
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Without the check, redb may panic over a file that something else damaged.
    builder.set_cache_size(CACHE_BYTES_MAX).set_check_integrity_on_open(true);
    builder
}

fn check_owner(
    identity: &Identity,
    path: &Path,
    cluster: &ClusterId,
    node: &NodeId,
) -> Result<(), Error> {
    if identity.cluster != *cluster {
        return Err(Error::OtherCluster {
            path: path.to_owned(),
            expected: cluster.clone(),
            found: identity.cluster.clone(),
        });
    }
    if identity.node != *node {
        return Err(Error::OtherNode {
            path: path.to_owned(),
            expected: node.clone(),
            found: identity.node.clone(),
        });
    }
    Ok(())
}

#[derive(Default)]
struct Raw {
    meta: BTreeMap<String, Vec<u8>>,
    log: Vec<(u64, Vec<u8>)>,
    peers: Vec<(String, Vec<u8>)>,
}

fn read(database: &Database) -> Result<Raw, redb::Error> {
    let transaction = database.begin_read()?;
    let mut raw = Raw::default();
    if transaction.list_tables()?.next().is_none() {
        return Ok(raw);
    }
    for line in transaction.open_table(META)?.iter()? {
        let (key, value) = line?;
        raw.meta.insert(key.value().to_owned(), value.value().to_vec());
    }
    for line in transaction.open_table(LOG)?.iter()? {
        let (index, value) = line?;
        raw.log.push((index.value(), value.value().to_vec()));
    }
    for line in transaction.open_table(PEERS)?.iter()? {
        let (node, value) = line?;
        raw.peers.push((node.value().to_owned(), value.value().to_vec()));
    }
    Ok(raw)
}

/// `None` for a file without anything in it.
fn load(database: &Database, path: &Path) -> Result<Option<Loaded>, Error> {
    let raw = read(database)
        .map_err(|source| Error::Database { path: path.to_owned(), source: Box::new(source) })?;
    let Some(identity) = decode_meta::<Identity>(&raw, path, IDENTITY)? else {
        return Ok(None);
    };
    let purged = decode_meta::<LogId>(&raw, path, PURGED)?;
    let mut entries = BTreeMap::new();
    for (expected, (index, bytes)) in (purged.next_index()..).zip(&raw.log) {
        let entry: Entry = decode(bytes, path, "log")?;
        for found in [*index, entry.log_id.index] {
            if found != expected {
                return Err(Error::Hole { path: path.to_owned(), expected, found });
            }
        }
        entries.insert(*index, Stored { entry, bytes: bytes.len() });
    }
    let snapshot = decode_meta::<StoredSnapshot>(&raw, path, SNAPSHOT)?.map(|stored| Snapshot {
        meta: SnapshotMeta { last_log_id: stored.last_log_id, last_membership: stored.membership },
        snapshot: stored.state,
    });
    let mut peers = BTreeMap::new();
    for (node, bytes) in &raw.peers {
        peers.insert(NodeId::new(node.as_str()), decode(bytes, path, "list of peers")?);
    }
    let cache = Cache {
        entries,
        purged,
        vote: decode_meta(&raw, path, VOTE)?,
        committed: decode_meta::<Option<LogId>>(&raw, path, COMMITTED)?.flatten(),
    };
    Ok(Some(Loaded { identity, cache, snapshot, peers }))
}

fn decode_meta<T: for<'de> Deserialize<'de>>(
    raw: &Raw,
    path: &Path,
    key: &'static str,
) -> Result<Option<T>, Error> {
    raw.meta.get(key).map(|bytes| decode(bytes, path, key)).transpose()
}

fn decode<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    path: &Path,
    what: &'static str,
) -> Result<T, Error> {
    wire::decode(bytes).map_err(|source| Error::Unreadable { path: path.to_owned(), what, source })
}
