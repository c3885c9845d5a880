//! Two processes with one identity, and a node whose certificate has ended.

use super::*;
use crate::identity::create_node_until;

async fn trouble(node: &Node, peer: &str, wanted: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let trouble = node.mesh.trouble(&peer.into()).unwrap_or_default();
        if trouble.contains(wanted) {
            return trouble;
        }
        assert!(Instant::now() < deadline, "{trouble}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// H30: a folder that was copied. The later one is told, and the earlier one goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_identity_the_later_is_refused() {
    let mut cluster = Cluster::connected(["a", "b"]).await;
    // What heartbeats are for: the first one keeps being heard.
    let (stop, mesh) = (cluster["b"].supervisor.stopping(), cluster["b"].mesh.clone());
    let beats = Supervisor::new();
    beats.spawn("beats", TaskKind::Session, async move {
        let mut beat = tokio::time::interval(Duration::from_millis(50));
        while !stop.is_cancelled() {
            beat.tick().await;
            let _ = mesh.request(&"a".into(), Channel::Heartbeat, "x".into(), SOON).await;
        }
    });
    let copy = Node::start(cluster.identities["b"].clone(), free()).await;
    copy.mesh.set_peers(cluster.addresses());
    let why = trouble(&copy, "a", "another process runs as b").await;
    assert!(why.contains("copied") && why.contains("end one of the two"), "{why}");
    assert_eq!(cluster["b"].ask("a", "x").await.unwrap(), "a to b Operate x");
    assert_eq!(cluster["a"].ask("b", "x").await.unwrap(), "b to a Operate x");
    assert_eq!(copy.mesh.link(&"a".into()), LinkState::Unreachable);
    let told = cluster["a"].refusals();
    assert!(told.iter().any(|why| why.contains("another process runs as b")), "{told:?}");

    // It may take the place of one that ended: that is a restart elsewhere.
    cluster.nodes.remove("b");
    copy.is("a", LinkState::Connected).await;
    assert!(beats.stop(LIMIT).await);
}

/// A certificate that has ended: refused with words on both sides, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_refused_and_the_others_go_on() {
    let mut cluster = Cluster::connected(["a", "b", "c"]).await;
    let folder = cluster.root.path().join("late");
    let yesterday = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    let late = create_node_until(&cluster.dir("a"), &"c".into(), &folder, yesterday).unwrap();
    assert!(late.expires_unix_s().unwrap() < i64::try_from(clock::unix_ms() / 1000).unwrap());
    cluster.nodes.remove("c");
    cluster["a"].is("c", LinkState::Refused).await;

    let late = Node::start(Arc::new(late), free()).await;
    let mut addresses = cluster.addresses();
    late.mesh.set_peers(addresses.clone());
    addresses.insert("c".into(), late.mesh.address().to_string());
    cluster["a"].mesh.set_peers(addresses);
    let ours = trouble(&cluster["a"], "c", "xpired").await;
    let theirs = trouble(&late, "a", "xpired").await;
    println!("member: {ours}\nexpired: {theirs}");
    assert!(ours.contains("join again") && theirs.contains("join again"), "{ours}; {theirs}");
    let deadline = Instant::now() + LIMIT;
    while !cluster["a"].refusals().iter().any(|why| why.contains("xpired")) {
        assert!(Instant::now() < deadline, "{:?}", cluster["a"].refusals());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cluster["a"].ask("b", "x").await.unwrap(), "b to a Operate x");
}
