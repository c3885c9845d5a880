//! The file: what a restart finds, and files that something damaged.

use super::log::Log;
use super::*;
use crate::consensus::types::{Entry, LogId, Member, Proposal, TypeConfig};
use crate::consensus::wire::Garbage;
use openraft::Membership;
use openraft::entry::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::alias::LeaderIdOf;
use openraft::vote::RaftLeaderId;
use std::collections::BTreeSet;
use tandem_core::cluster::command::Command;

async fn open(path: &Path) -> Result<Opened, Error> {
    Store::open(path, &"0123".into(), &"a".into()).await
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderIdOf::<TypeConfig>::new(term, "a".into()), index }
}

fn entry(term: u64, index: u64) -> Entry {
    let command = Command::Drain { node: "x".into(), draining: index.is_multiple_of(2) };
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Proposal(command)) }
}

fn founding() -> Entry {
    let nodes = BTreeMap::from([("a".into(), Member { address: "a:7400".into() })]);
    let membership = Membership::new(vec![BTreeSet::from(["a".into()])], nodes).unwrap();
    Entry { log_id: log_id(0, 0), payload: EntryPayload::Membership(membership) }
}

async fn filled(path: &Path) -> Vec<Entry> {
    let mut log = Log(open(path).await.unwrap().store);
    let mut entries = vec![founding()];
    entries.extend((1..40).map(|index| entry(1, index)));
    log.blocking_append(entries.clone()).await.unwrap();
    let vote = Vote { leader_id: LeaderIdOf::<TypeConfig>::new(3, "b".into()), committed: true };
    log.save_committed(Some(log_id(1, 20))).await.unwrap();
    log.save_vote(&vote).await.unwrap();
    log.0.close().await;
    entries
}

#[tokio::test]
async fn a_restart_finds_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let entries = filled(&path).await;
    let opened = open(&path).await.unwrap();
    assert_eq!(opened.identity.run.start, 2);
    let mut log = Log(opened.store);
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries);
    assert_eq!(log.read_vote().await.unwrap().unwrap().leader_id.term, 3);
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 20)));
    // Another leader's entries replace the tail, and the head is purged.
    log.truncate_after(Some(log_id(1, 29))).await.unwrap();
    log.blocking_append([entry(4, 30), entry(4, 31)]).await.unwrap();
    log.purge(log_id(1, 9)).await.unwrap();
    log.0.close().await;
    let mut log = Log(open(&path).await.unwrap().store);
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 9)));
    assert_eq!(state.last_log_id, Some(log_id(4, 31)));
    let kept = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(kept.first().map(|entry| entry.log_id.index), Some(10));
    assert_eq!(kept.len(), 22);
    assert_eq!(log.limited_get_log_entries(12, 15).await.unwrap().len(), 3);
    let (end, start) = (12, 15);
    assert!(log.try_get_log_entries(start..end).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_closed_store_is_an_error_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log(open(&dir.path().join("raft.redb")).await.unwrap().store);
    log.0.close().await;
    log.0.close().await;
    assert!(log.blocking_append([founding()]).await.is_err());
}

#[tokio::test]
async fn a_log_with_a_hole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    filled(&path).await;
    damage(&path, Op::Log(50, crate::consensus::wire::encode(&entry(1, 50)).unwrap()));
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(refused, Error::Hole { expected: 40, found: 50, .. }), "{refused:?}");
}

/// H46: written by a newer program.
#[tokio::test]
async fn an_unknown_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    filled(&path).await;
    damage(&path, Op::Meta("vote", vec![9, 9, 9]));
    let refused = open(&path).await.err().unwrap();
    let Error::Unreadable { what: "vote", source: Garbage::Version { found: 9 }, .. } = refused
    else {
        panic!("{refused:?}");
    };
}

fn damage(path: &Path, op: Op) {
    let (database, _) = disk::open_existing(path).unwrap();
    disk::write(&database, [&op], disk::Durable::Now).unwrap();
}

#[tokio::test]
async fn what_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path()).await.err().unwrap();
    assert!(matches!(folder, Error::Database { .. }), "{folder:?}");
    let path = dir.path().join("text");
    std::fs::write(&path, "this is not a database\n".repeat(1000)).unwrap();
    let text = open(&path).await.err().unwrap();
    assert!(matches!(text, Error::Database { .. }), "{text:?}");
    let nowhere = open(&dir.path().join("no/such/folder")).await.err().unwrap();
    assert!(matches!(nowhere, Error::Database { .. }), "{nowhere:?}");
}

/// Bytes flipped and tails cut off: an error, or nothing that matters: every entry, the vote and
/// what was committed are as they were; never the end of the process.
#[tokio::test]
async fn a_damaged_file_is_an_error_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let entries = filled(&path).await;
    let sound = std::fs::read(&path).unwrap();
    let victim = dir.path().join("damaged");
    let mut refused = 0;
    let mut seed = 11_u64;
    for round in 0..60 {
        let mut bytes = sound.clone();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (seed >> 33) as usize % bytes.len();
        if round % 3 == 0 {
            bytes.truncate(at);
        } else {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0xA5);
        }
        std::fs::write(&victim, &bytes).unwrap();
        match open(&victim).await {
            Ok(opened) => {
                let mut log = Log(opened.store);
                assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries, "round {round}");
                let vote = log.read_vote().await.unwrap().unwrap();
                assert_eq!((vote.leader_id.term, vote.committed), (3, true), "round {round}");
                let committed = log.read_committed().await.unwrap();
                assert_eq!(committed, Some(log_id(1, 20)), "round {round}");
                log.0.close().await;
            }
            Err(_) => refused += 1,
        }
    }
    println!("{refused} of 60 damaged files were refused, the others were sound where it matters");
    assert!(refused > 0);
}

/// A disk that runs full: the write fails in words, nothing is acknowledged after it, and what was
/// acknowledged before is there once there is room again.
#[tokio::test]
async fn a_full_disk_is_an_error_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Ok(_disk) = crate::dev::disk::Disk::mount(dir.path(), 16 << 20) else {
        println!("SKIPPED: a disk that can be filled needs the right to mount");
        return;
    };
    let path = dir.path().join("raft.redb");
    let mut log = Log(open(&path).await.unwrap().store);
    log.blocking_append([founding()]).await.unwrap();
    let filler = dir.path().join("filler");
    crate::dev::disk::fill(dir.path()).unwrap();
    let (mut kept, mut failure) = (1, None);
    for index in 1..20_000 {
        match log.blocking_append([entry(1, index)]).await {
            Ok(()) => kept += 1,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let failure = failure.expect("the disk to be full");
    let words = crate::telemetry::problem::chain(&failure);
    assert!(words.contains("No space left"), "{words}");
    assert!(log.blocking_append([entry(1, kept)]).await.is_err(), "nothing is written after it");
    log.0.close().await;
    // A start writes too, and says so.
    if let Err(error) = open(&path).await {
        let words = crate::telemetry::problem::chain(&error);
        assert!(words.contains("No space left") && words.contains("raft.redb"), "{words}");
    }
    std::fs::remove_file(filler).unwrap();
    let mut log = Log(open(&path).await.unwrap().store);
    let found = log.try_get_log_entries(..).await.unwrap();
    assert!(found.len() as u64 >= kept, "{} of {kept}", found.len());
    log.0.close().await;
}
