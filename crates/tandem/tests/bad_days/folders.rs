//! What is found in a node's folder: identity, data, the Raft store, and a disk without room.

use super::place::{Place, postgres_user};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tandem::consensus::{Consensus, ConsensusConfig, RaftTiming, RaftTransport, TransportError};
use tandem::identity::{Identity, create_many};
use tandem::runtime::supervisor::Supervisor;
use tandem::service::postgres::Binaries;
use tandem_core::ids::{ClusterId, NodeId};

#[tokio::test]
async fn no_identity_a_damaged_one_and_another_nodes() {
    let place = Place::without_identity();
    place.node().await.refused("TDM0301", 3);
    create_many(place.root.path(), "shop", &[NodeId::new("a")]).unwrap();

    let text = place.text().replace("[services", "[nodes.b]\naddress = \"127.0.0.1:9\"\n[services");
    let two = place.root.path().join("two.toml");
    fs::write(&two, text).unwrap();
    let ended = place.node_with(&two, "b", &place.dir()).await;
    assert!(ended.refused("TDM0304", 3).contains("its certificate is of node a"));

    let secret = place.dir().join("identity/secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(place.node().await.refused("TDM0305", 3).contains("chmod 600"));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&secret, "short").unwrap();
    place.node().await.refused("TDM0303", 1);
}

/// Somebody's data directory, as far as anybody looks at it before a start.
fn data(place: &Place, version: &str, owner: Option<(u32, u32)>) {
    fs::create_dir_all(place.data()).unwrap();
    fs::write(place.data().join("PG_VERSION"), version).unwrap();
    if let Some((user, group)) = owner {
        chown(place.data(), Some(user), Some(group)).unwrap();
    }
}

#[tokio::test]
async fn data_of_another_version() {
    let place = Place::new();
    data(&place, "14\n", postgres_user().map(|user| (user.uid.as_raw(), user.gid.as_raw())));
    let ended = place.node().await;
    let report = ended.refused("TDM0503", 3);
    assert!(report.contains("PostgreSQL 14") && report.contains("pg_upgrade"), "{report}");
    assert_eq!(fs::read_to_string(place.data().join("PG_VERSION")).unwrap(), "14\n");
}

#[tokio::test]
async fn data_of_another_owner() {
    if postgres_user().is_none() {
        return println!("SKIPPED: only root can make files of another user");
    }
    let place = Place::new();
    // The version is the programs' own: the owner is what this is about.
    let major = Binaries::find(None).await.unwrap().major();
    data(&place, &format!("{major}\n"), Some((4321, 4321)));
    let ended = place.node().await;
    let report = ended.refused("TDM0504", 3);
    assert!(report.contains("belongs to user 4321"), "{report}");
}

struct Nobody;

impl RaftTransport for Nobody {
    fn call(
        &self,
        _: NodeId,
        _: bytes::Bytes,
        _: Duration,
    ) -> futures::future::BoxFuture<'static, Result<bytes::Bytes, TransportError>> {
        Box::pin(futures::future::ready(Err(TransportError::Unreachable)))
    }
}

/// A store with a founded cluster of one in it.
async fn raft_store(path: &Path, cluster: ClusterId, me: &str) {
    let supervisor = Supervisor::new();
    let me = NodeId::new(me);
    let timing = RaftTiming::default();
    let config = ConsensusConfig { me: me.clone(), cluster, path: path.to_owned(), timing };
    let consensus = Consensus::start(config, Arc::new(Nobody), supervisor.clone()).await.unwrap();
    consensus.found([(me, "127.0.0.1:1".into())].into()).await.unwrap();
    consensus.shutdown().await;
    assert!(supervisor.stop(Duration::from_secs(10)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raft_store_that_cannot_be_used() {
    let place = Place::new();
    let path = place.dir().join("raft.redb");
    // As root permissions do not hinder, a folder in its place does.
    fs::create_dir(&path).unwrap();
    assert!(place.node().await.refused("TDM0401", 1).contains("raft.redb"));
    fs::remove_dir(&path).unwrap();

    fs::write(&path, "this is not a database\n".repeat(1000)).unwrap();
    let kept = fs::read(&path).unwrap();
    assert!(place.node().await.refused("TDM0402", 1).contains("join it again"));
    assert_eq!(fs::read(&path).unwrap(), kept, "nothing was changed");
    fs::remove_file(&path).unwrap();

    raft_store(&path, "f".repeat(32).as_str().into(), "a").await;
    assert!(place.node().await.refused("TDM0403", 3).contains("belongs to cluster ffff"));
    fs::remove_file(&path).unwrap();
    let cluster = Identity::load(&place.dir()).unwrap().cluster().clone();
    raft_store(&path, cluster.clone(), "z").await;
    assert!(place.node().await.refused("TDM0403", 3).contains("belongs to node z"));

    fs::remove_file(&path).unwrap();
    raft_store(&path, cluster, "a").await;
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[64..half].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    let ended = place.node().await;
    ended.refused("TDM0402", 1);
}

#[tokio::test]
async fn a_full_disk_at_the_start() {
    let place = Place::new();
    let disk = place.dir();
    let mounted = |arguments: &[&str], command: &str| {
        Command::new(command).args(arguments).arg(&disk).output().is_ok_and(|o| o.status.success())
    };
    let identity = place.root.path().join("identity");
    fs::rename(disk.join("identity"), &identity).unwrap();
    if !mounted(&["-t", "tmpfs", "-o", "size=4m,mode=0755", "bad-days"], "mount") {
        return println!("SKIPPED: a disk that can be filled needs the right to mount");
    }
    let _unmount = Unmount(&disk);
    let copied = Command::new("cp").arg("-a").arg(&identity).arg(&disk).status().unwrap();
    assert!(copied.success());
    let filler = disk.join("filler");
    let full = fs::write(&filler, vec![0; 8 << 20]);
    assert!(full.is_err(), "the disk is full");
    let ended = place.node().await;
    let report = ended.refused("TDM0404", 1);
    assert!(report.contains("No space left") && report.contains("make room"), "{report}");
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
