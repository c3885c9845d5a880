//! The example's worker, as somebody would copy it: whatever door a visitor comes through, each
//! shop is counted in one place.

use crate::LIMIT;
use crate::clients::once;
use crate::machines::Machines;
use crate::{NODES, free_port, started};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/active-active-by-key")
}

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
    let worker = example().join("worker.pl").canonicalize().unwrap();
    let text = fs::read_to_string(example().join("tandem.toml")).unwrap();
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

/// It ends with the test.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A node that says that its copy owns partition 0 under epoch 9, and what comes next whenever it
/// is asked once more.
fn node(says: mpsc::Receiver<&'static str>) -> SocketAddr {
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = api.local_addr().unwrap();
    std::thread::spawn(move || {
        for (version, client) in (1..).zip(api.incoming()) {
            let (Ok(mut client), Ok(more)) = (client, says.recv()) else { return };
            let _asked = client.read(&mut [0; 4096]).unwrap();
            let told = format!(
                r#"{{"service":"visits","node":"a","term":3,"version":{version},"lease_ms":800,
                {more}"partitions":[{{"id":0,"epoch":9,"state":"owned"}}]}}"#
            );
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}", told.len());
            client.write_all(format!("{head}\r\n\r\n{told}").as_bytes()).unwrap();
        }
    });
    address
}

#[tokio::test]
async fn the_examples_worker_turns_away_what_an_earlier_table_led_there() {
    let (tell, says) = mpsc::channel();
    let (api, port) = (node(says), free_port());
    let place = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut command = Command::new("perl");
    let command = command.arg(example().join("worker.pl")).envs([
        ("TANDEM_NODE", "a".to_owned()),
        ("TANDEM_SERVICE", "visits".to_owned()),
        ("TANDEM_API", format!("http://{api}")),
        ("TANDEM_BIND", "127.0.0.1".to_owned()),
        ("TANDEM_PORT", port.to_string()),
    ]);
    let _worker = Worker(command.spawn().unwrap());
    let limit = Instant::now() + LIMIT;
    while TcpStream::connect(place).is_err() {
        assert!(Instant::now() < limit, "it does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = async |epoch: u64| {
        let fields = format!("Tandem-Partition: 0\r\nTandem-Epoch: {epoch}");
        let request = format!("GET /shop/ HTTP/1.1\r\nHost: shop\r\n{fields}\r\n\r\n");
        once(place, &request).await.0[9..12].to_owned()
    };
    // An older release does not say it: what it says last counts.
    for (more, first) in [("", 1), (r#""before":4,"#, 5), ("", 1)] {
        tell.send(more).unwrap();
        while status(first).await != "200" || first > 1 && status(first - 1).await == "200" {
            assert!(Instant::now() < limit, "it does not go by {more:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((status(9).await.as_str(), status(10).await.as_str()), ("200", "421"));
    }
}
