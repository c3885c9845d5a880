//! Talks to the store of a node that is not running: makes it the only voter after the majority
//! was lost for good.
//! In: the file. Out: `Recovered`, for the operator to judge what may be lost.
//! The whole log is kept, also what is not known to be committed: an entry that was acknowledged
//! may have reached this node without the news that it was committed, and keeping it loses nothing.
//! The price: a proposal whose outcome was reported as unknown may take effect now. What only the
//! lost nodes held is lost; choose the node with the greatest last index.
//! Nodes left behind: the vote is raised far above theirs, and, since that alone would not stop two
//! of them from outvoting this one later, the store starts a new line of history: they are refused
//! until they come back with an empty node directory. They can still agree among themselves; they
//! must not be started.
//! Keeps: H30, H48.
//! Tested by: `tests/recovery.rs`.

use super::disk::{self, Durable, Loaded, Op};
use super::{Error, disk::Identity};
use crate::consensus::types::{Entry, LogId, Member, Proposal, TypeConfig, Vote};
use crate::consensus::wire;
use crate::runtime::clock;
use openraft::entry::EntryPayload;
use openraft::type_config::alias::LeaderIdOf;
use openraft::vote::RaftLeaderId;
use openraft::{LogIdOptionExt, Membership};
use redb::Database;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tandem_core::cluster::command::{Command, Config};
use tandem_core::cluster::state::ClusterState;
use tandem_core::ids::{ClusterId, NodeId};

/// Terms between the lost cluster and the recovered one: more than elections in its whole life.
const TERMS_AHEAD: u64 = 1_000_000;

/// What is known, and what may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The cluster.
    pub cluster: ClusterId,
    /// The last log entry that is here; entries after it, if there were any, are lost.
    pub last_index: Option<u64>,
    /// The last one that this node knew to be agreed; those after it become agreed now.
    pub committed_index: Option<u64>,
    /// Who took part before.
    pub members_before: BTreeSet<NodeId>,
    /// The term in which the lost cluster was last seen.
    pub raft_term_before: u64,
    /// The term of the recovered one.
    pub raft_term: u64,
}

/// What a node that is not running holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// As it would be recovered.
    pub recovered: Recovered,
    /// What is agreed, or becomes it with the recovery.
    pub state: ClusterState,
}

/// Looks at the store of `me`, which must not be running, and changes nothing.
///
/// # Errors
/// The store cannot be read, is another node's, or has nothing in it.
pub fn survivor(path: &Path, me: &NodeId) -> Result<Survivor, crate::consensus::Error> {
    let node = me.clone();
    apart(path, move |file| {
        let (_, loaded, last) = open(file, &node)?;
        let state = folded(&loaded, file)?;
        Ok(Survivor { recovered: recovered(&loaded, &last), state })
    })
}

/// Makes `me`, which must not be running, the only voter, and has `config` agreed: the lost nodes
/// are not in it, since nothing can be decided while it waits for them.
///
/// # Errors
/// The store cannot be read or written, is another node's, or has nothing in it.
pub fn recover(
    path: &Path,
    me: &NodeId,
    address: String,
    config: Option<Config>,
) -> Result<Recovered, crate::consensus::Error> {
    let node = me.clone();
    apart(path, move |file| rewrite(file, &node, address, config))
}

/// On a thread of its own: a panic inside the database over a damaged file ends only that.
fn apart<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> Result<T, Error> + Send + 'static,
) -> Result<T, crate::consensus::Error> {
    let file = path.to_owned();
    let work = std::thread::Builder::new()
        .name("raft-recover".into())
        .spawn(move || work(&file))
        .map_err(Error::Thread)?;
    let result = work.join().unwrap_or_else(|_| Err(Error::Panicked { path: path.to_owned() }));
    Ok(result?)
}

fn open(path: &Path, me: &NodeId) -> Result<(Database, Loaded, LogId), Error> {
    let (database, loaded) = disk::open_existing(path)?;
    let identity = &loaded.identity;
    if identity.node != *me {
        return Err(Error::OtherNode {
            path: path.to_owned(),
            expected: me.clone(),
            found: identity.node.clone(),
        });
    }
    match loaded.cache.last() {
        Some(last) => Ok((database, loaded, last)),
        None => Err(Error::Nothing { path: path.to_owned() }),
    }
}

fn recovered(loaded: &Loaded, last: &LogId) -> Recovered {
    let raft_term_before = term_before(loaded, last);
    Recovered {
        cluster: loaded.identity.cluster.clone(),
        last_index: Some(last.index),
        committed_index: committed(loaded).index(),
        members_before: members_before(loaded),
        raft_term_before,
        raft_term: raft_term_before + TERMS_AHEAD,
    }
}

/// Everything in the store, agreed for certain or not.
fn folded(loaded: &Loaded, path: &Path) -> Result<ClusterState, Error> {
    let mut state = ClusterState::default();
    let mut from = 0;
    if let Some(kept) = &loaded.snapshot {
        state = wire::decode(&kept.snapshot).map_err(|source| Error::Unreadable {
            path: path.to_owned(),
            what: "snapshot",
            source,
        })?;
        from = kept.meta.last_log_id.next_index();
    }
    for stored in loaded.cache.entries.range(from..).map(|(_, stored)| stored) {
        if let EntryPayload::Normal(Proposal(command)) = &stored.entry.payload {
            state.apply(command);
        }
    }
    Ok(state)
}

fn rewrite(
    path: &Path,
    me: &NodeId,
    address: String,
    config: Option<Config>,
) -> Result<Recovered, Error> {
    let (database, loaded, last) = open(path, me)?;
    let state = folded(&loaded, path)?;
    let expected = state.config_version;
    let identity = &loaded.identity;
    let term_before = term_before(&loaded, &last);
    let term = term_before + TERMS_AHEAD;
    let leader = LeaderIdOf::<TypeConfig>::new(term, me.clone());
    let log_id = LogId { leader_id: leader.clone(), index: last.index + 1 };
    let alone = Membership::new(
        vec![BTreeSet::from([me.clone()])],
        BTreeMap::from([(me.clone(), Member { address })]),
    )
    .map_err(|_| Error::Nothing { path: path.to_owned() })?;
    let entry = Entry { log_id, payload: EntryPayload::Membership(alone) };
    let mut commands = Vec::new();
    if let Some(config) = config {
        commands = state.vouched_gone(&config.spec, clock::unix_ms());
        commands.push(Command::Configure { expected, config: Box::new(config) });
    }
    let entries = (last.index + 2..).zip(commands).map(|(index, command)| Entry {
        log_id: LogId { leader_id: leader.clone(), index },
        payload: EntryPayload::Normal(Proposal(command)),
    });
    let entries: Vec<_> = std::iter::once(entry).chain(entries).collect();
    let vote = Vote { leader_id: leader, committed: false };
    let lineage = rand::random::<u64>() | 1;
    let recovered = recovered(&loaded, &last);
    let identity = Identity { lineage, ..identity.clone() };
    let fault = |source| Error::Database { path: path.to_owned(), source: Box::new(source) };
    let ops = (|| {
        let mut ops = vec![Op::identity(&identity)?, Op::vote(&vote)?, Op::Wipe];
        for entry in &entries {
            let bytes = wire::encode(entry).map_err(std::io::Error::other)?;
            ops.push(Op::Log(entry.log_id.index, bytes));
        }
        Ok(ops)
    })()
    .map_err(|error: std::io::Error| fault(error.into()))?;
    disk::write(&database, &ops, Durable::Now).map_err(fault)?;
    Ok(recovered)
}

fn term_before(loaded: &Loaded, last: &LogId) -> u64 {
    let voted = loaded.cache.vote.as_ref().map_or(0, |vote| vote.leader_id.term);
    voted.max(last.leader_id.term)
}

fn committed(loaded: &Loaded) -> Option<LogId> {
    let snapshot = loaded.snapshot.as_ref().and_then(|kept| kept.meta.last_log_id.clone());
    loaded.cache.committed.clone().max(snapshot)
}

fn members_before(loaded: &Loaded) -> BTreeSet<NodeId> {
    let in_log =
        loaded.cache.entries.values().rev().find_map(|stored| match &stored.entry.payload {
            EntryPayload::Membership(membership) => {
                Some(membership.nodes().map(|(node, _)| node.clone()).collect())
            }
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        });
    in_log.unwrap_or_else(|| {
        let kept = loaded.snapshot.as_ref().map(|kept| &kept.meta.last_membership);
        kept.map(|kept| kept.nodes().map(|(node, _)| node.clone()).collect()).unwrap_or_default()
    })
}
