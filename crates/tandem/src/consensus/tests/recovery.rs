//! After the loss of a majority.

use super::*;
use crate::consensus::recover;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_alone_and_the_others_cannot_come_back() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    propose(&leader, found()).await;
    propose(&leader, drain("kept")).await;
    cluster.all_have("kept").await;
    let (left, lost) = (leader.inner.me.clone(), cluster.others().await);
    for name in cluster.names() {
        cluster.stop(&name).await;
    }
    let recovered = recover(&cluster.path(left.as_str()), &left, "new:7400".into(), None).unwrap();
    println!("{recovered:?}");
    assert_eq!(recovered.members_before.len(), 3);
    assert!(recovered.committed_index <= recovered.last_index);
    assert!(recovered.raft_term > recovered.raft_term_before);
    let alone = cluster.start(left.as_str()).await;
    cluster.leader_of(std::slice::from_ref(&alone)).await;
    assert!(alone.state().borrow().state.draining.contains(&NodeId::new("kept")));
    propose(&alone, drain("alone")).await;
    // The lost ones come back: a majority of what was, and still no danger to what is.
    let ghosts = [
        cluster.start(lost[0].inner.me.as_str()).await,
        cluster.start(lost[1].inner.me.as_str()).await,
    ];
    let ghost = cluster.leader_of(&ghosts).await;
    propose(&ghost, drain("ghost")).await;
    alone.confirm_leadership().await.unwrap();
    propose(&alone, drain("still alone")).await;
    assert!(!alone.state().borrow().state.draining.contains(&NodeId::new("ghost")));
    assert_eq!(alone.leadership().borrow().voters, BTreeSet::from([left.clone()]));
    // Emptied, they join again: all of them first, since one that is empty belongs to whoever
    // speaks to it first, which may be a ghost.
    for node in &lost {
        cluster.stop(&node.inner.me).await;
        std::fs::remove_file(cluster.path(node.inner.me.as_str())).unwrap();
    }
    for node in &lost {
        let name = node.inner.me.clone();
        let back = cluster.start(name.as_str()).await;
        alone.add_member(name.clone(), format!("{name}:7400"), true, SOON).await.unwrap();
        has_drained(&back, "still alone").await;
    }
    cluster.stop(&left).await;
    propose(&cluster.leader().await, drain("whole")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_recover_from_is_an_error() {
    let cluster = Cluster::empty();
    let recover_a = || recover(&cluster.path("a"), &"a".into(), "a:7400".into(), None);
    let error = recover_a().unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Nothing { .. })), "{error:?}");
    cluster.start("a").await;
    let error = recover_a().unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::InUse { .. })), "in use: {error:?}");
    cluster.stop(&"a".into()).await;
    let error = recover_a().unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Nothing { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_owner_recovers() {
    let cluster = Cluster::founded(&["a"]).await;
    cluster.stop(&"a".into()).await;
    let error = recover(&cluster.path("a"), &"b".into(), "b:7400".into(), None).unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::OtherNode { .. })), "{error:?}");
}
