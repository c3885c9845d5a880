//! Reads are spread over the standbys by capacity, and go on while one of them dies.

use super::cluster::{Running, example};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use tandem::dev::DevConfig;
use tandem::node::login::{Role, login};
use tandem_core::ids::NodeId;
use tokio_postgres::{Client, NoTls};

const SERVICE: &str = "orders";
/// Where somebody else's servers are reached.
const STRANGERS: u16 = 7654;

/// Through a node's door for reads; where it led, once it did.
async fn reads(running: &Running, door: &NodeId) -> Option<(Client, NodeId)> {
    let (client, node, _) = session(running, (door, 5433)).await?;
    Some((client, node))
}

/// Through a node's door at a port; where it led, and whether one can only read there.
async fn session(
    running: &Running,
    (door, port): (&NodeId, u16),
) -> Option<(Client, NodeId, bool)> {
    let layout = running.dev().layout();
    let at = SocketAddr::new(running.door(door, SERVICE).ip(), port);
    let mut config = tokio_postgres::Config::new();
    config.host(at.ip().to_string()).port(at.port()).user("app").dbname("app");
    config.password(running.dev().password("app").unwrap());
    let (client, connection) = config.connect(NoTls).await.ok()?;
    #[allow(clippy::disallowed_methods, reason = "a test has no supervisor")]
    tokio::spawn(async move {
        // It ends with its server.
        let _ = connection.await;
    });
    let row = client.query_one("SELECT inet_server_addr(), pg_is_in_recovery()", &[]).await.ok()?;
    let ip: IpAddr = row.get(0);
    let node = layout.nodes.iter().find(|place| place.ip == ip).unwrap().node.clone();
    Some((client, node, row.get(1)))
}

fn count(sessions: &[(Client, NodeId)]) -> BTreeMap<&NodeId, usize> {
    sessions.iter().fold(BTreeMap::new(), |mut counts, (_, node)| {
        *counts.entry(node).or_default() += 1;
        counts
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_spread_by_capacity_and_outlive_a_standby() {
    let mut text = example("load-balanced-primary-replica");
    if let Ok(bin_dir) = std::env::var("TANDEM_BIN_DIR") {
        let kind = "kind = \"postgres\"\n";
        text = text.replace(kind, &format!("{kind}bin_dir = {bin_dir:?}\n"));
    }
    let running = Running::start(text).await;
    let primary = running.primary_with_two_standbys(SERVICE).await;
    running.took("founded");
    let nodes = running.nodes();
    let share = async || whole_shares(&running).filter(|whole| *whole == 2).map(drop);
    running.until("the door gives both all that is theirs", share).await;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        sessions.push(reads(&running, &nodes[0]).await.unwrap());
    }
    let counts = count(&sessions);
    assert_eq!(counts.get(&primary), None, "{counts:?}");
    // Whichever founded the cluster is the primary: a has capacity 2 where it is a standby.
    let expected = |node: &&NodeId| match (node.as_str(), primary.as_str()) {
        ("a", _) => 8,
        (_, "a") => 6,
        _ => 4,
    };
    for node in nodes.iter().filter(|node| **node != primary) {
        assert_eq!(counts.get(node), Some(&expected(&node)), "{node} of {counts:?}");
    }
    let said = running.tandem(&["status"]);
    assert!(said.contains("reads, as this node's door spreads them"), "{said}");
    running.took("spread");

    let lost = nodes.iter().rev().find(|node| **node != primary && **node != nodes[0]).unwrap();
    running.dev().kill_node(lost).await.unwrap();
    let mut after = Vec::new();
    for _ in 0..20 {
        after.push(reads(&running, &nodes[0]).await.expect("a session for reads"));
    }
    assert_eq!(count(&after).get(lost), None, "{:?}", count(&after));
    running.took("20 sessions as a standby dies");
    running.dev().restore_node(lost).unwrap();
    let back = async || {
        let (_, node) = reads(&running, &nodes[0]).await?;
        (node == *lost).then_some(())
    };
    running.until("the standby gets reads again", back).await;
    running.took("it gets reads again");
    drop((sessions, after));
    what_lags_serves_no_reads(&running).await;
    servers_of_somebody_else_are_asked_for_their_role(&running).await;
    running.stop().await;
}

/// How many replicas get all of their share: one that came after the other gets it slowly.
fn whole_shares(running: &Running) -> Option<usize> {
    let status: serde_json::Value =
        serde_json::from_str(&running.tandem(&["status", "--json"])).ok()?;
    let service = status["services"].as_array()?.iter().find(|it| it["name"] == SERVICE)?;
    let replicas = service["readers"].as_array()?.iter();
    Some(replicas.filter(|it| it["share_percent"] == 100).count())
}

/// As its superuser, on its own machine.
async fn superuser(running: &Running, node: &NodeId, statement: &str) {
    let dir = &running.dev().layout().place(node).unwrap().dir;
    let login = login(dir, &SERVICE.into(), Role::Superuser).unwrap();
    let mut config = tokio_postgres::Config::new();
    config.host_path(login.socket.unwrap()).port(login.port).user(login.user);
    config.dbname(login.database).password(login.password.reveal());
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::select! {
        end = connection => panic!("{statement}: {end:?}"),
        done = client.batch_execute(statement) => done.unwrap(),
    }
}

/// A replica that does not show what it has been sent gets no new sessions until it does.
async fn what_lags_serves_no_reads(running: &Running) {
    let (nodes, primary) = (running.nodes(), running.primary_with_two_standbys(SERVICE).await);
    let late = nodes.iter().find(|node| **node != primary).unwrap();
    // Those that are open count, so that each new one goes where fewer are.
    let leads_there = async || {
        let mut sessions = Vec::new();
        for _ in 0..12 {
            sessions.push(reads(running, &nodes[0]).await?);
        }
        Some(sessions.iter().any(|(_, node)| node == late))
    };
    running.until("it serves", async || leads_there().await?.then_some(())).await;
    superuser(running, late, "SELECT pg_wal_replay_pause()").await;
    let (writer, ..) = session(running, (&nodes[0], 5432)).await.unwrap();
    writer.batch_execute("CREATE TABLE shown_late (i int)").await.unwrap();
    running.until("it serves no reads", async || (!leads_there().await?).then_some(())).await;
    running.took("a replica that lags gets no reads");
    for _ in 0..3 {
        assert_eq!(leads_there().await, Some(false), "it still lags");
    }
    superuser(running, late, "SELECT pg_wal_replay_resume()").await;
    running.until("it serves again", async || leads_there().await?.then_some(())).await;
    running.took("it gets reads again");
}

/// The same servers, as if something else ran them: only what says that it is a replica gets work.
async fn servers_of_somebody_else_are_asked_for_their_role(running: &Running) {
    let layout = running.dev().layout();
    let file = |name: &str| layout.root.join(name);
    std::fs::write(file("password"), running.dev().password("app").unwrap() + "\n").unwrap();
    let instance = |place| {
        let (_, address) = layout.instances(place).pop().unwrap();
        format!("\"{address}\"")
    };
    let upstreams: Vec<String> = layout.nodes.iter().map(instance).collect();
    let text = layout.config_text(&DevConfig::default())
        + &format!(
            "[services.strangers]\nkind = \"tcp\"\nclustering = \"load-balanced\"\n\
             replication = \"none\"\nlisten = {STRANGERS}\nupstreams = [{}]\n\
             [services.strangers.health]\ninterval = \"200ms\"\nfall = 1\nrise = 1\n\
             postgres = {{ role = \"replica\", user = \"app\", database = \"app\", \
             password_file = {:?} }}\n",
            upstreams.join(", "),
            file("password"),
        );
    std::fs::write(file("strangers.toml"), text).unwrap();
    let said = running.tandem(&["config", "apply", &file("strangers.toml").display().to_string()]);
    let nodes = running.nodes();
    let only_replicas = async || {
        let seen = running.tandem(&["status"]);
        let told = seen.matches("its checks fail: it is a primary, not a replica").count() == 1;
        for _ in 0..6 {
            let (_, _, reads_only) = session(running, (&nodes[0], STRANGERS)).await?;
            if !reads_only {
                return None;
            }
        }
        told.then_some(())
    };
    running.until(&format!("replicas only: {said}"), only_replicas).await;
    running.took("roles of somebody else's servers");
    let before = running.primary_with_two_standbys(SERVICE).await;
    running.tandem(&["switchover", SERVICE]);
    let follows = async || {
        only_replicas().await?;
        let (_, node, _) = session(running, (&nodes[0], STRANGERS)).await?;
        (node == before).then_some(())
    };
    running.until("the old primary gets reads, the new one none", follows).await;
    running.took("roles changed");
}
