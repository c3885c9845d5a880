//! Nodes that come and go, live.

use super::*;

/// As many log entries as make the leader take a snapshot and purge the first ones.
const ENOUGH_FOR_A_SNAPSHOT: usize = 6_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_replaced_live() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    propose(&leader, drain("before")).await;
    let others = cluster.others().await;
    let (gone, follower) = (others[0].inner.me.clone(), &others[1]);
    let new = cluster.start("d").await;
    assert!(!new.is_founded());
    follower.add_member("d".into(), "d:7400".into(), true, SOON).await.unwrap();
    // A voter holds everything by the time it is one.
    assert!(new.is_founded());
    has_drained(&new, "before").await;
    follower.add_member("d".into(), "d:7400".into(), true, SOON).await.unwrap();
    let moved = follower.add_member("d".into(), "d:7500".into(), true, SOON).await;
    assert!(matches!(moved, Err(Error::Refused(Refusal::OtherAddress { .. }))), "{moved:?}");
    cluster.node(&gone).remove_member(&gone, SOON).await.unwrap();
    let mut told = cluster.node(&gone).leadership();
    tokio::time::timeout(LIMIT, told.wait_for(|leadership| leadership.removed))
        .await
        .expect("the removed node is told (H48)")
        .unwrap();
    cluster.stop(&gone).await;
    propose(&new, drain("after")).await;
    cluster.all_have("after").await;
    for node in cluster.nodes() {
        node.linearizable(SOON).await.unwrap();
        let voters = node.leadership().borrow().voters.clone();
        assert!(voters.len() == 3 && voters.contains(&"d".into()) && !voters.contains(&gone));
    }
    // The new set stands a loss of its own.
    let dead = cluster.leader().await.inner.me.clone();
    cluster.stop(&dead).await;
    propose(&cluster.leader().await, drain("survived")).await;
}

/// H48: it was away when it was removed, so it hears of it when it asks for votes; and it does
/// not disturb those that go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_removed_while_it_was_down_is_told_and_does_not_disturb() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let (leader, gone) =
        (cluster.leader().await, cluster.others().await.remove(0).inner.me.clone());
    cluster.stop(&gone).await;
    leader.remove_member(&gone, SOON).await.unwrap();
    leader.remove_member(&gone, SOON).await.unwrap();
    let term = leader.leadership().borrow().raft_term;
    let back = cluster.start(gone.as_str()).await;
    let mut told = back.leadership();
    tokio::time::timeout(LIMIT, told.wait_for(|leadership| leadership.removed))
        .await
        .expect("the removed node is told (H48)")
        .unwrap();
    propose(&leader, drain("x")).await;
    assert_eq!(leader.leadership().borrow().raft_term, term);
    leader.confirm_leadership().await.unwrap();
    // It may come back.
    leader.add_member(gone.clone(), format!("{gone}:7400"), true, SOON).await.unwrap();
    tokio::time::timeout(LIMIT, told.wait_for(|leadership| !leadership.removed))
        .await
        .expect("a member again")
        .unwrap();
    has_drained(&back, "x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_the_leader_hands_over_first() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    let gone = leader.inner.me.clone();
    leader.remove_member(&gone, SOON).await.unwrap();
    cluster.stop(&gone).await;
    let new = cluster.leader().await;
    propose(&new, drain("x")).await;
    assert!(!new.leadership().borrow().voters.contains(&gone));
}

/// H48: three voters, one dead: removing a living one would leave nobody to agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_costs_the_majority_is_refused() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let (leader, others) = (cluster.leader().await, cluster.others().await);
    cluster.stop(&others[0].inner.me).await;
    // At once: it is not enough that the dead one was heard of a moment ago.
    match leader.remove_member(&others[1].inner.me, SOON).await {
        Err(Error::Refused(Refusal::NoMajority { live: 1, needed: 2 })) => {}
        other => panic!("{other:?}"),
    }
    leader.remove_member(&others[0].inner.me, SOON).await.unwrap();
    propose(&leader, drain("x")).await;
}

/// On a busy machine, for longer than a lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_heard_of_a_little_late_counts_as_alive() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let (leader, others) = (cluster.leader().await, cluster.others().await);
    let (late, goes) = (&others[0].inner.me, &others[1].inner.me);
    let answers = (late.clone(), leader.inner.me.clone());
    cluster.net.with(|switches| switches.cuts.insert(answers));
    let hears_again = async {
        tokio::time::sleep(RaftTiming::default().election_max * 3).await;
        cluster.net.heal();
    };
    let (removed, ()) = tokio::join!(leader.remove_member(goes, SOON), hears_again);
    removed.unwrap();
    propose(&leader, drain("x")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_catch_up_stays_a_learner() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    let late =
        leader.add_member("d".into(), "d:7400".into(), true, Duration::from_millis(700)).await;
    assert!(matches!(late, Err(Error::Refused(Refusal::Behind { .. }))), "{late:?}");
    assert_eq!(leader.leadership().borrow().learners, BTreeSet::from(["d".into()]));
    leader.remove_member(&"d".into(), SOON).await.unwrap();
    let mut leadership = leader.leadership();
    tokio::time::timeout(LIMIT, leadership.wait_for(|now| now.learners.is_empty()))
        .await
        .expect("removed")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_voter_stays() {
    let cluster = Cluster::founded(&["a"]).await;
    let refused = cluster.node(&"a".into()).remove_member(&"a".into(), SOON).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::LastVoter { .. }))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_far_behind_node_gets_a_snapshot() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    propose(&leader, found()).await;
    propose(&leader, drain("first")).await;
    let late = cluster.others().await.remove(0).inner.me.clone();
    cluster.stop(&late).await;
    let begun = std::time::Instant::now();
    for _ in 0..ENOUGH_FOR_A_SNAPSHOT / 500 {
        let batch = (0..500).map(|_| propose(&leader, Command::Noop));
        futures::future::join_all(batch).await;
    }
    println!("{ENOUGH_FOR_A_SNAPSHOT} proposals took {:?}", begun.elapsed());
    until("the first entries to be purged", || async {
        (leader.metrics().purged?.index > 100).then_some(())
    })
    .await;
    // One that was away, and one that is new.
    let back = cluster.start(late.as_str()).await;
    let new = cluster.start("d").await;
    leader.add_member("d".into(), "d:7400".into(), true, SOON).await.unwrap();
    propose(&leader, drain("last")).await;
    for node in [&back, &new] {
        has_drained(node, "last").await;
        has_drained(node, "first").await;
        assert!(node.metrics().snapshot.is_some());
        assert_eq!(node.state().borrow().state, leader.state().borrow().state);
    }
    // The snapshot and the log after it survive a restart, alone.
    cluster.stop(&"d".into()).await;
    let again = cluster.start("d").await;
    assert!(again.state().borrow().state.draining.contains(&NodeId::new("first")));
    assert!(again.state().borrow().index > ENOUGH_FOR_A_SNAPSHOT as u64 / 2);
}

/// H36: the leader that made both majorities count died before it completed the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_completes_a_change() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let (leader, others) = (cluster.leader().await, cluster.others().await);
    let now = leader.metrics().membership_config;
    let (gone, rest) = (others[0].inner.me.clone(), others[1].inner.me.clone());
    let before: BTreeSet<NodeId> = now.voter_ids().collect();
    let after: BTreeSet<NodeId> = before.iter().filter(|node| **node != gone).cloned().collect();
    let nodes: BTreeMap<NodeId, Member> =
        now.nodes().map(|(node, member)| (node.clone(), member.clone())).collect();
    let both = openraft::Membership::new(vec![before, after.clone()], nodes).unwrap();
    let blank = openraft::EntryPayload::Blank;
    leader.inner.raft.append_membership(both, blank, []).await.unwrap();
    leader.transfer_leadership(&rest).await.unwrap();
    let mut leadership = leader.leadership();
    let complete = leadership.wait_for(|now| now.voters == after && now.learners.is_empty());
    tokio::time::timeout(LIMIT, complete).await.expect("completed").unwrap();
    propose(&cluster.node(&rest), drain("x")).await;
}
