//! The example's worker, as somebody would copy it: whatever door a visitor comes through, each
//! shop is counted in one place.

use crate::clients::once;
use crate::machines::Machines;
use crate::{NODES, free_port, started};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

/// One visit: which it was of its shop, and who counted it.
async fn visit(door: SocketAddr, shop: &str) -> (u64, String) {
    let request = format!("GET /{shop}/ HTTP/1.1\r\nHost: shop\r\n\r\n");
    let (head, body) = once(door, &request).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head} {body}");
    let words: Vec<&str> = body.split([' ', ',']).collect();
    let [_, "visit", visit, "", "counted", "by", node, ..] = words[..] else { panic!("{body}") };
    (visit.parse().unwrap(), node.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_worker_counts_each_shop_in_one_place() {
    let mut machines = Machines::new(&NODES);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/active-active-by-key");
    let worker = example.join("worker.pl").canonicalize().unwrap();
    let text = fs::read_to_string(example.join("tandem.toml")).unwrap();
    let (_, service) = text.split_once("[services.visits]").unwrap();
    let listen = free_port();
    let mut service = format!("\n[services.visits]{service}");
    for (old, new) in [
        ("/srv/worker.pl", worker.display().to_string()),
        ("listen = 8080", format!("listen = {listen}")),
        ("port = 9080", format!("port = {}", free_port())),
    ] {
        assert!(service.contains(old), "{old}: {service}");
        service = service.replace(old, &new);
    }
    started(&mut machines, &service).await;
    // What moves is counted anew.
    let is_shared_out = |status: &Value| {
        let nodes = status["services"][0]["partitions"]["nodes"].as_array();
        nodes.is_some_and(|all| all.iter().all(|it| it["owned"] == 4 && it["releasing"] == 0))
    };
    for node in NODES {
        machines.until(node, "all is shared out", is_shared_out).await;
    }
    let door = |node: &str| SocketAddr::new(machines.of(node).api.ip(), listen);
    for shop in 0..8 {
        let mut by = None;
        for (times, node) in NODES.into_iter().enumerate() {
            let (visit, counted_by) = visit(door(node), &format!("shop-{shop}")).await;
            assert_eq!(visit, times as u64 + 1, "shop {shop} at the door of {node}");
            assert_eq!(*by.get_or_insert(counted_by.clone()), counted_by);
        }
    }
    let (_, owner) = visit(door("a"), "shop-0").await;
    let other = NODES.into_iter().find(|node| **node != owner).unwrap();
    machines.tandem(other, &["drain", &owner]).success();
    let limit = Instant::now() + LIMIT;
    loop {
        let (again, next) = visit(door(other), "shop-0").await;
        if next != owner {
            assert_eq!(again, 1, "{next} counts anew");
            return;
        }
        assert!(Instant::now() < limit, "{owner} still counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
