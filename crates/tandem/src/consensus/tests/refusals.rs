//! What must not be listened to.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_and_changes_nothing() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    let term = leader.leadership().borrow().raft_term;
    let mut seed = 7_u64;
    for length in 0..500 {
        let mut bytes = Vec::with_capacity(length);
        for _ in 0..length {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((seed >> 56) as u8);
        }
        assert!(leader.handle("b".into(), Bytes::from(bytes.clone())).await.is_err());
        if let Some(version) = bytes.first_mut() {
            *version = 1;
            assert!(leader.handle("b".into(), Bytes::from(bytes)).await.is_err());
        }
    }
    let version = leader.handle("b".into(), Bytes::from_static(&[2, 0, 0])).await.unwrap_err();
    assert!(version.contains("version 2"), "{version}");
    propose(&leader, drain("x")).await;
    assert_eq!(leader.leadership().borrow().raft_term, term);
}

/// H35: two clusters that share an address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused() {
    let (ours, theirs) = (Cluster::founded(&["a", "b", "c"]).await, Cluster::empty());
    let stranger = ConsensusConfig { cluster: "ffff".into(), ..theirs.config("b") };
    let stranger = theirs.try_start(stranger).await.unwrap();
    let message = wire::Message {
        origin: stranger.inner.caller.origins.own(),
        body: wire::Request::Lead { task: wire::Task::Propose(drain("x")), within: SOON },
    };
    let bytes = Bytes::from(wire::encode(&message).unwrap());
    let refused = ours.leader().await.handle("b".into(), bytes).await.unwrap_err();
    assert!(refused.contains("cluster ffff"), "{refused}");
}

/// H35: a store that is not this node's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_of_another_node_or_cluster_is_refused() {
    let cluster = Cluster::founded(&["a"]).await;
    let path = cluster.path("a");
    let in_use = cluster.try_start(cluster.config("a")).await.unwrap_err();
    assert!(matches!(in_use, Error::Store(StoreError::Database { .. })), "{in_use:?}");
    cluster.stop(&"a".into()).await;
    let node = ConsensusConfig { path: path.clone(), ..cluster.config("b") };
    let refused = cluster.try_start(node).await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::OtherNode { .. })), "{refused:?}");
    let other = ConsensusConfig { cluster: "ffff".into(), ..cluster.config("a") };
    let refused = cluster.try_start(other).await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::OtherCluster { .. })), "{refused:?}");
    cluster.start("a").await;
    cluster.leader().await;
}

/// H30: a voter that lost its store must not vote again as if nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_with_an_empty_store_is_refused_until_it_is_added_again() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    propose(&leader, drain("x")).await;
    cluster.all_have("x").await;
    let lost = cluster.others().await.remove(0).inner.me.clone();
    cluster.stop(&lost).await;
    std::fs::remove_file(cluster.path(lost.as_str())).unwrap();
    let empty = cluster.start(lost.as_str()).await;
    empty.found(members(&["a", "b", "c"])).await.unwrap();
    assert!(empty.propose(drain("y"), Duration::from_millis(500)).await.is_err());
    // It does not count: with one more node gone there is no majority.
    let other = cluster.others().await.into_iter().find(|node| node.inner.me != lost).unwrap();
    cluster.stop(&other.inner.me).await;
    until("the lease to end", || async { leader.confirm_leadership().await.err() }).await;
    let refused = leader.propose(drain("y"), Duration::from_millis(500)).await;
    assert!(matches!(refused, Err(Error::NotProposed { .. })), "{refused:?}");
    cluster.start(other.inner.me.as_str()).await;
    let sound: Vec<_> = cluster.nodes().into_iter().filter(|node| node.inner.me != lost).collect();
    let leader = cluster.leader_of(&sound).await;
    leader.remove_member(&lost, SOON).await.unwrap();
    leader.add_member(lost.clone(), format!("{lost}:7400"), true, SOON).await.unwrap();
    has_drained(&empty, "x").await;
    propose(&empty, drain("z")).await;
}

/// H30: the file was put back from a copy, and with it a vote that was given is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_with_an_older_store_is_refused() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let node = cluster.others().await.remove(0).inner.me.clone();
    let (path, copy) = (cluster.path(node.as_str()), cluster.dir.path().join("copy"));
    cluster.stop(&node).await;
    std::fs::copy(&path, &copy).unwrap();
    let back = cluster.start(node.as_str()).await;
    propose(&back, drain("x")).await;
    has_drained(&back, "x").await;
    cluster.stop(&node).await;
    std::fs::copy(&copy, &path).unwrap();
    let older = cluster.start(node.as_str()).await;
    assert!(older.propose(drain("y"), Duration::from_millis(500)).await.is_err());
    let leader = cluster.leader().await;
    propose(&leader, drain("z")).await;
    assert!(!leader.state().borrow().state.draining.contains(&NodeId::new("y")));
}

/// H30: a copy that was started as often as the original has all numbers right but the random one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_started_as_often_is_told_apart_by_its_nonce() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    let other = cluster.others().await.remove(0);
    let (name, sound) = (other.inner.me.clone(), other.inner.caller.origins.own());
    leader.inner.caller.origins.check(&name, &sound).await.unwrap();
    let mut copy = sound.clone();
    copy.run.nonce = sound.run.nonce.wrapping_add(1);
    let refused = leader.inner.caller.origins.check(&name, &copy).await.unwrap_err().to_string();
    assert!(refused.contains("older copy") && refused.contains("join it again"), "{refused}");
    leader.inner.caller.origins.check(&name, &sound).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_without_oneself_is_refused() {
    let cluster = Cluster::empty();
    let node = cluster.start("a").await;
    let refused = node.found(members(&["b", "c"])).await;
    assert!(matches!(refused, Err(Error::NotInMembers { .. })), "{refused:?}");
    assert!(!node.is_founded());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timing_that_contradicts_itself_is_refused() {
    let cluster = Cluster::empty();
    let timing = RaftTiming { heartbeat: Duration::from_secs(1), ..RaftTiming::default() };
    let refused = cluster.try_start(ConsensusConfig { timing, ..cluster.config("a") }).await;
    assert!(matches!(refused, Err(Error::Timing(_))), "{refused:?}");
}
