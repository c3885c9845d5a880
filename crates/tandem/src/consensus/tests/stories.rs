//! Elections, proposals, restarts, partitions.

use super::*;
use std::time::Instant as Clock;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_founds_and_a_follower_proposes() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let others = cluster.others().await;
    let begun = Clock::now();
    assert_eq!(propose(&others[0], found()).await, Applied::Changed);
    println!("a proposal through a follower took {:?}", begun.elapsed());
    assert_eq!(propose(&others[1], drain("x")).await, Applied::Changed);
    assert!(matches!(propose(&others[1], drain("x")).await, Applied::Ignored { .. }));
    cluster.all_have("x").await;
    for node in cluster.nodes() {
        node.found(members(&["a", "b", "c"])).await.unwrap();
        assert!(node.is_founded());
        assert_eq!(node.state().borrow().state.cluster, Some("0123".into()));
        let leadership = node.leadership().borrow().clone();
        assert_eq!(leadership.voters.len(), 3);
        assert!(!leadership.removed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_of_a_change_finds_it_in_its_state() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let leader = cluster.leader().await;
    for index in 0..50 {
        let name = format!("n{index}");
        propose(&leader, drain(&name)).await;
        assert!(leader.state().borrow().state.draining.contains(&NodeId::new(name.as_str())));
    }
    // A follower that was not asked catches up on request.
    let follower = cluster.others().await.remove(0);
    follower.linearizable(SOON).await.unwrap();
    assert!(follower.state().borrow().state.draining.contains(&NodeId::new("n49")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_one_or_all_keeps_the_state() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    propose(&cluster.leader().await, drain("x")).await;
    cluster.all_have("x").await;
    let follower = cluster.others().await.remove(0).inner.me.clone();
    cluster.stop(&follower).await;
    propose(&cluster.leader().await, drain("y")).await;
    let back = cluster.start(follower.as_str()).await;
    has_drained(&back, "y").await;
    let names = cluster.names();
    for name in &names {
        cluster.stop(name).await;
    }
    for name in &names {
        cluster.start(name.as_str()).await;
    }
    let begun = Clock::now();
    let leader = cluster.leader().await;
    println!("all restarted: a leader after {:?}", begun.elapsed());
    propose(&leader, drain("z")).await;
    for drained in ["x", "y", "z"] {
        cluster.all_have(drained).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_replaced() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    for round in 0..3 {
        let dead = cluster.leader().await.inner.me.clone();
        let begun = Clock::now();
        cluster.stop(&dead).await;
        let leader = cluster.leader().await;
        let elected = begun.elapsed();
        propose(&leader, drain(&format!("x{round}"))).await;
        println!("killed {dead}: a leader after {elected:?}, a write after {:?}", begun.elapsed());
        cluster.start(dead.as_str()).await;
        cluster.all_have(&format!("x{round}")).await;
    }
}

/// Trap: the role stays with a leader that is cut off. The proof does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_cannot_prove_it_and_another_appears() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let (old, others) = (cluster.leader().await, cluster.others().await);
    let begun = Clock::now();
    cluster.net.isolate(&old.inner.me, &cluster.names());
    let new = cluster.leader_of(&others).await;
    println!("isolated {}: a leader after {:?}", old.inner.me, begun.elapsed());
    // At the moment another has a lease, the old one must not.
    assert!(matches!(old.confirm_leadership().await, Err(Error::NotLeading { .. })));
    assert!(old.leadership().borrow().me_leads);
    let refused = old.propose(drain("lost"), Duration::from_millis(300)).await;
    assert!(matches!(refused, Err(Error::NotProposed { .. })), "{refused:?}");
    assert!(old.linearizable(Duration::from_millis(300)).await.is_err());
    propose(&new, drain("kept")).await;
    cluster.net.heal();
    cluster.all_have("kept").await;
    assert!(!old.state().borrow().state.draining.contains(&NodeId::new("lost")));
}

/// H34: heartbeats that arrive, acknowledgements that do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nothing_is_replaced() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let (old, others) = (cluster.leader().await, cluster.others().await);
    cluster.net.with(|switches| {
        for other in &others {
            switches.cuts.insert((other.inner.me.clone(), old.inner.me.clone()));
        }
    });
    let begun = Clock::now();
    let new = cluster.leader_of(&others).await;
    println!("one-way cut: a leader after {:?}", begun.elapsed());
    propose(&new, drain("x")).await;
    cluster.net.heal();
    cluster.all_have("x").await;
}

/// Pre-vote: a node that was cut off does not depose a healthy leader when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_follower_does_not_disturb() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let (leader, others) = (cluster.leader().await, cluster.others().await);
    let term = leader.leadership().borrow().raft_term;
    let cut_off = &others[0];
    cluster.net.isolate(&cut_off.inner.me, &cluster.names());
    // Long enough for it to stand several times: heartbeats of the leader are the clock.
    for _ in 0..60 {
        let mut state = leader.state();
        propose(&leader, Command::Noop).await;
        let _ = tokio::time::timeout(Duration::from_millis(20), state.changed()).await;
        let mut quiet = cut_off.state();
        let _ = tokio::time::timeout(Duration::from_millis(15), quiet.changed()).await;
    }
    assert_eq!(cut_off.leadership().borrow().raft_term, term);
    cluster.net.heal();
    propose(&leader, drain("x")).await;
    cluster.all_have("x").await;
    leader.confirm_leadership().await.unwrap();
    assert_eq!(leader.leadership().borrow().raft_term, term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_proposed() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    for other in cluster.others().await {
        cluster.stop(&other.inner.me).await;
    }
    let last = cluster.nodes().remove(0);
    until("the lease to end", || async { last.confirm_leadership().await.err() }).await;
    let refused = last.propose(drain("x"), Duration::from_millis(200)).await;
    assert!(matches!(refused, Err(Error::NotProposed { .. })), "{refused:?}");
    assert!(refused.unwrap_err().may_pass_by_itself());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_may_have_arrived_is_unknown() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let (leader, others) = (cluster.leader().await, cluster.others().await);
    // The answer does not come back; the leader keeps its majority through the other follower.
    let (me, to) = (others[0].inner.me.clone(), leader.inner.me.clone());
    cluster.net.with(|switches| switches.cuts.insert((to, me)));
    let unknown = others[0].propose(drain("x"), Duration::from_millis(150)).await;
    assert!(matches!(unknown, Err(Error::Unknown { .. })), "{unknown:?}");
    cluster.net.heal();
    cluster.all_have("x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposals_on_a_slow_network() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    cluster.net.with(|switches| switches.delay = Duration::from_millis(5));
    let nodes = cluster.nodes();
    let begun = Clock::now();
    let names: Vec<String> = (0..300).map(|index| format!("n{index}")).collect();
    let work = names.iter().enumerate().map(|(index, name)| {
        let node = nodes[index % nodes.len()].clone();
        async move { propose(&node, drain(name)).await }
    });
    let applied = futures::future::join_all(work).await;
    println!("300 proposals at once took {:?}", begun.elapsed());
    assert!(applied.iter().all(|applied| *applied == Applied::Changed));
    for node in &nodes {
        node.linearizable(SOON).await.unwrap();
        assert_eq!(node.state().borrow().state.draining.len(), 300);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leadership_is_handed_over() {
    let cluster = Cluster::founded(&["a", "b", "c"]).await;
    let others = cluster.others().await;
    let target = others[0].inner.me.clone();
    let begun = Clock::now();
    // Asked of the third node: it reaches the leader by itself.
    others[1].transfer_leadership(&target).await.unwrap();
    println!("transfer took {:?}", begun.elapsed());
    assert_eq!(cluster.leader().await.inner.me, target);
    propose(&others[1], drain("x")).await;
    let nobody = others[1].transfer_leadership(&"z".into()).await;
    assert!(matches!(nobody, Err(Error::Refused(Refusal::NotAVoter { .. }))), "{nobody:?}");
}
