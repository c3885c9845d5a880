//! What the end of a connection tells.

use super::*;
use LinkState::{Connected, Refused, Reset, Unreachable};

#[tokio::test]
async fn a_dead_process_is_refused_within_milliseconds() {
    let mut cluster = Cluster::connected(["a", "b", "c"]).await;
    let b = cluster.nodes.remove("b").unwrap();
    let (address, since) = (b.mesh.address(), Instant::now());
    b.supervisor.stopping().cancel();
    cluster["a"].links_to("b", |links| links.ends_with(&[Reset, Refused])).await;
    let took = since.elapsed();
    println!("refused after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    cluster["c"].is("b", Refused).await;
    assert_eq!(cluster["a"].mesh.link(&"c".into()), Connected);

    drop(b);
    let again = Node::start(cluster.identities["b"].clone(), address).await;
    again.mesh.set_peers(cluster.addresses());
    cluster["a"].is("b", Connected).await;
    again.is("a", Connected).await;
    cluster["a"].ask("b", "back?").await.unwrap();
}

/// A relay accepts for the dead process and closes at once.
#[tokio::test]
async fn two_connections_closed_without_a_byte_are_refused() {
    let cluster = Cluster::apart(["a", "b"]).await;
    let relay = TcpListener::bind(free()).await.unwrap();
    let address = relay.local_addr().unwrap().to_string();
    cluster["a"].mesh.set_peers([("b".into(), address)].into());
    let accept = async {
        loop {
            drop(relay.accept().await.unwrap());
        }
    };
    tokio::select! {
        () = cluster["a"].links_to("b", |links| links == [Refused]) => {}
        () = accept => {}
    }
}

/// A frozen process: its kernel accepts, and nothing answers. That is not "refused".
#[tokio::test]
async fn a_silent_port_is_unreachable() {
    let cluster = Cluster::apart(["a", "b"]).await;
    cluster["b"].mesh.set_peers(cluster.addresses());
    let silent = std::net::TcpListener::bind(free()).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    cluster["a"].mesh.set_peers([("b".into(), address)].into());
    let says = |node: &Node| {
        let trouble = node.mesh.trouble(&"b".into()).unwrap_or_default();
        trouble.contains("does not answer")
    };
    let until = Instant::now() + LIMIT;
    while !says(&cluster["a"]) {
        assert!(Instant::now() < until, "{:?}", cluster["a"].mesh.trouble(&"b".into()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cluster["a"].mesh.link(&"b".into()), Unreachable);
    // Moved to where it is, it is dialled without waiting for the next turn.
    cluster["a"].mesh.set_peers(cluster.addresses());
    cluster["a"].is("b", Connected).await;
}

/// A new address counts once the peer's daemon was restarted: until then it is where it was.
#[tokio::test]
async fn a_peer_that_is_to_move_is_kept_until_it_has_moved() {
    let mut cluster = Cluster::connected(["a", "b"]).await;
    let later = std::net::TcpListener::bind(free()).unwrap();
    let new = later.local_addr().unwrap();
    drop(later);
    let moved: BTreeMap<NodeId, String> = [("b".into(), new.to_string())].into();
    cluster["a"].mesh.set_peers(moved.clone());
    cluster["a"].ask("b", "still there?").await.unwrap();
    cluster["a"].mesh.disconnect(&"b".into());
    // Lost on the way, the link comes back where the peer still is, and was never refused.
    cluster["a"].links_to("b", |links| links == [Connected, Reset, Connected]).await;
    cluster["a"].ask("b", "and now?").await.unwrap();

    let b = cluster.nodes.remove("b").unwrap();
    assert!(b.supervisor.stop(SOON).await);
    drop(b);
    cluster["a"].is("b", Refused).await;
    let again = Node::start(cluster.identities["b"].clone(), new).await;
    again.mesh.set_peers(cluster.addresses());
    cluster["a"].is("b", Connected).await;
    cluster["a"].ask("b", "moved?").await.unwrap();
    assert_eq!(cluster["a"].mesh.link(&"b".into()), Connected);
}

#[tokio::test]
async fn a_dropped_connection_is_replaced() {
    let cluster = Cluster::connected(["a", "b"]).await;
    cluster["a"].mesh.disconnect(&"b".into());
    cluster["a"].links_to("b", |links| links == [Connected, Reset, Connected]).await;
    cluster["a"].ask("b", "hello").await.unwrap();
    assert_eq!(cluster["b"].mesh.link(&"a".into()), Connected);
}

/// H48: a removed member is cut off, is told why, and can come back.
#[tokio::test]
async fn a_removed_member_is_cut_off_and_told() {
    let cluster = Cluster::connected(["a", "b"]).await;
    cluster["a"].mesh.set_peers(BTreeMap::new());
    cluster["b"].is("a", Unreachable).await;
    let trouble = cluster["b"].mesh.trouble(&"a".into()).unwrap();
    assert!(trouble.contains("b is not a member here"), "{trouble}");
    let error = cluster["a"].ask("b", "hello").await.unwrap_err();
    assert!(matches!(error, Error::UnknownPeer { .. }), "{error}");

    cluster["a"].mesh.set_peers(cluster.addresses());
    cluster["a"].is("b", Connected).await;
    cluster["b"].is("a", Connected).await;
    cluster["b"].ask("a", "hello").await.unwrap();
}

#[tokio::test]
async fn a_mesh_ends_with_its_supervisor() {
    let mut cluster = Cluster::connected(["a", "b"]).await;
    let node = cluster.nodes.remove("a").unwrap();
    assert!(node.supervisor.stop(SOON).await);
    assert!(!node.supervisor.broken().is_cancelled());
}

const CHILD_DIR: &str = "TANDEM_TEST_PEER_DIR";
const CHILD_LISTEN: &str = "TANDEM_TEST_PEER_LISTEN";
const CHILD_PEER: &str = "TANDEM_TEST_PEER_ADDRESS";

/// Node b as a process of its own, for the test below; alone it does nothing.
#[tokio::test]
#[ignore = "the child process of another test"]
async fn a_process_to_kill() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let identity = Arc::new(Identity::load(dir.as_ref()).unwrap());
    let listen = std::env::var(CHILD_LISTEN).unwrap().parse().unwrap();
    let node = Node::start(identity, listen).await;
    node.mesh.set_peers([("a".into(), std::env::var(CHILD_PEER).unwrap())].into());
    // Its parent kills it; should the parent have died, it does not stay for long.
    let _ =
        tokio::time::timeout(Duration::from_secs(60), node.supervisor.stopping().cancelled()).await;
}

/// SIGKILL: the kernel closes everything, and the next dial is refused. No timer is involved.
#[tokio::test]
async fn a_killed_process_is_known_at_once() {
    let mut cluster = Cluster::apart(["a", "b"]).await;
    let b = cluster.nodes.remove("b").unwrap();
    let (dir, address) = (cluster.dir("b"), b.mesh.address());
    assert!(b.supervisor.stop(SOON).await);
    cluster["a"].mesh.set_peers([("b".into(), address.to_string())].into());
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "peers::tests::links::a_process_to_kill"])
        .env(CHILD_DIR, dir)
        .env(CHILD_LISTEN, address.to_string())
        .env(CHILD_PEER, cluster["a"].mesh.address().to_string())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    cluster["a"].is("b", Connected).await;
    cluster["a"].ask("b", "hello").await.unwrap();
    let since = Instant::now();
    child.start_kill().unwrap();
    cluster["a"].links_to("b", |links| links.ends_with(&[Connected, Reset, Refused])).await;
    let took = since.elapsed();
    println!("a killed process was refused after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    child.wait().await.unwrap();
}
