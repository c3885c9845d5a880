//! What operators are told of who owns what.

use crate::NODES;
use crate::ledger::Workers;
use crate::machines::Machines;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn json(machines: &Machines, node: &str, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&machines.tandem(node, &arguments).success().out).unwrap()
}

/// Status and explanation say of each partition what its worker wrote itself.
pub fn who_owns_what(machines: &Machines, workers: &Workers) {
    let status = json(machines, "c", &["status"]);
    let nodes = status["services"][0]["partitions"]["nodes"].as_array().unwrap().clone();
    let owner = |id: u32| {
        let owns = |it: &&Value| it["owned_ids"].as_array().unwrap().contains(&id.into());
        nodes.iter().find(owns).map(|it| it["node"].as_str().unwrap().to_owned())
    };
    for (id, line) in workers {
        assert_eq!(owner(*id).as_deref(), Some(line.node.as_str()), "partition {id}: {nodes:?}");
    }
    for (id, line) in workers.iter().take(2) {
        let one = json(machines, "b", &["explain", "work", "--partition", &id.to_string()]);
        assert_eq!((&one["owner"], &one["state"]), (&line.node.as_str().into(), &"owned".into()));
        assert_eq!((&one["epoch"], &one["waits_for"]), (&line.epoch.into(), &Value::Null));
        assert!(!one["plans"].as_array().unwrap().is_empty(), "of its owner's copy: {one}");
    }
    let one = json(machines, "a", &["explain", "work", "--key", "shop-17"]);
    assert_eq!((&one["partition"], &one["count"]), (&6.into(), &12.into()), "by the hash: {one}");
    let refused = machines.tandem("a", &["explain", "work", "--partition", "12"]);
    assert!(refused.err.contains("ask for one from 0 to 11"), "{}", refused.err);
    let page = machines.tandem("a", &["explain", "work"]).success().out;
    assert!(page.contains("Who may own what:") && page.contains("copy of b, "), "{page}");
}

/// What Prometheus reads of a node.
fn metrics(machines: &Machines, node: &str) -> String {
    let mut stream = TcpStream::connect(machines.of(node).api).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// The numbers of it, while every node has its share.
pub fn in_numbers(machines: &Machines) {
    let lines = [
        "tandem_partitions{service=\"work\"} 12",
        "tandem_partitions_unowned{service=\"work\"} 0",
        "tandem_partitions_owned{service=\"work\",node=\"c\"} 4",
        "tandem_partitions_wanted{service=\"work\",node=\"c\"} 4",
        "tandem_partitions_releasing{service=\"work\",node=\"c\"} 0",
        "tandem_partition_overdue_total{service=\"work\"} 0",
    ];
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let page = metrics(machines, "b");
        let Some(line) = lines.iter().find(|line| !page.contains(**line)) else { break };
        // It may hear of the last moves a moment after those whom they concern.
        assert!(Instant::now() < limit, "{line}: {page}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let page = metrics(machines, "c");
    let overdue = "tandem_partition_overdue_total{service=\"work\"} 1";
    assert!(page.contains(overdue), "its copy was ended once: {page}");
    let lost = |it: &&str| it.starts_with("tandem_partition_moves_total") && it.contains("lost");
    let count = |it: &str| it.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(page.lines().filter(lost).map(count).sum::<u64>() > 0, "b's were taken: {page}");
}

/// Asked while a copy is asked to release and does not: who is waited for, and for how long.
pub fn who_is_waited_for(machines: &Machines, node: &str, partition: u32) {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let one = json(machines, "b", &["explain", "work", "--partition", &partition.to_string()]);
        if one["state"] == "releasing" {
            assert_eq!((&one["owner"], &one["waits_for"]), (&node.into(), &node.into()), "{one}");
            assert!(one["releasing_ms"].as_u64().is_some_and(|ms| ms < 30_000), "{one}");
            return;
        }
        assert!(Instant::now() < limit, "it was not asked back: {one}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A round is one event, not one for each partition.
pub fn rounds(machines: &Machines) {
    for node in NODES {
        let events = machines.tandem(node, &["events"]).success().out;
        println!(
            "{}",
            events.lines().filter(|it| it.contains("partitions.")).collect::<Vec<_>>().join("\n")
        );
    }
    let events = machines.tandem("b", &["events"]).success().out;
    for said in ["partitions.moved", "partitions.taken", "partitions.asked"] {
        assert!(events.contains(said), "{said}: {events}");
    }
    let released = "4 partitions are to be released: c to ";
    assert!(events.contains(released), "{events}");
}
