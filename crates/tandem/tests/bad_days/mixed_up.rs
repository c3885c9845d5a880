//! Running nodes: folders that were mixed up, and a clock that is an hour off.

use super::place::Place;
use serde_json::Value;
use std::fs;

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
