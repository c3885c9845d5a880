//! Running nodes: folders that were mixed up, and a clock that is an hour off.

use super::place::{LIMIT, Place};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use tandem::identity::create_many;
use tandem_core::ids::NodeId;

fn serves(instance: &Value) -> bool {
    instance["state"] == "running" && instance["phase"] == "active"
}

/// The data of another Tandem cluster, with its record of promises: kept, and said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_cluster_is_quarantined_and_kept() {
    let (mut ours, mut theirs) = (Place::new(), Place::new());
    for place in [&mut ours, &mut theirs] {
        place.start();
        place.instance(serves).await;
        place.stop_everything().await;
    }
    let services = ours.dir().join("services");
    fs::rename(&services, ours.root.path().join("own")).unwrap();
    fs::rename(theirs.dir().join("services"), &services).unwrap();
    let control = fs::read(ours.data().join("global/pg_control")).unwrap();
    ours.start();
    let shown = ours.instance(|instance| instance["state"] == "quarantined").await;
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.contains("TDM0508") && reason.contains("tandem reinit"), "{shown}");
    assert_eq!(fs::read(ours.data().join("global/pg_control")).unwrap(), control, "not touched");
    assert!(!ours.log().contains("panicked"), "{}", ours.log());

    // Put right, it serves again.
    ours.stop_everything().await;
    fs::rename(&services, theirs.dir().join("services")).unwrap();
    fs::rename(ours.root.path().join("own"), &services).unwrap();
    ours.start();
    ours.instance(serves).await;
}

/// Nothing that keeps a node from serving rests on the time of day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_an_hour_off() {
    let mut place = Place::new();
    place.start();
    place.instance(serves).await;
    for offset_ms in ["3600000", "-3600000"] {
        place.stop_daemon().await;
        place.set("TANDEM_TEST_CLOCK_OFFSET_MS", offset_ms);
        place.start();
        place.instance(serves).await;
        // And from cold: elected, promoted, active, with the history of another clock.
        place.stop_everything().await;
        place.start();
        place.instance(serves).await;
    }
    assert!(!place.log().contains("panicked"), "{}", place.log());
}

/// A machine that was copied: the copy is told so, and the cluster does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_of_the_same_name() {
    let mut place = Place::without_identity();
    create_many(place.root.path(), "shop", &[NodeId::new("a"), NodeId::new("b")]).unwrap();
    let root = place.root.path().to_owned();
    let (peer, api) = (place.ports["peer"], place.ports["api"]);
    place.nodes = format!(
        "[nodes.b]\naddress = \"127.0.0.2:{peer}\"\napi = \"127.0.0.2:{api}\"\n\
         role = \"witness\""
    );
    place.start();
    let _b = place.start_as("b", &place.config(), &root.join("b"), "b.log");
    place.instance(serves).await;

    let copied = Command::new("cp").arg("-a").args([root.join("b"), root.join("copy")]).status();
    assert!(copied.unwrap().success());
    // With the agreed configuration it would not even have the addresses that it stands for.
    fs::remove_file(root.join("copy/agreed.toml")).unwrap();
    let elsewhere = place.text().replace("127.0.0.2", "127.0.0.3");
    fs::write(root.join("elsewhere.toml"), elsewhere).unwrap();
    let _copy = place.start_as("b", &root.join("elsewhere.toml"), &root.join("copy"), "copy.log");
    let log = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let deadline = Instant::now() + LIMIT;
    while !log("copy.log").contains("another process runs as b") {
        assert!(Instant::now() < deadline, "{}", log("copy.log"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(log("copy.log").contains("end one of the two"), "{}", log("copy.log"));
    let api = format!("http://{}", place.address("api"));
    let events = place.run(&["events", "--json", "--api", &api]).await;
    assert!(events.stdout.contains("peer.refused"), "{events:?}");
    let status = place.run(&["status", "--json", "--api", &api]).await;
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["nodes"][1]["state"], "up", "the first one goes on: {status}");
    place.instance(serves).await;
}
