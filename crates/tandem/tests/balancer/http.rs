//! The same for requests: an HTTP service in front of endpoints that die, and a configuration that
//! changes under traffic on connections that are kept.

use super::machines::Machines;
use super::{NAMES, apply, both, door, upstream, write};
use crate::traffic::Endpoint;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

pub fn service(door: SocketAddr, upstreams: &str, more: &str) -> String {
    let port = door.port();
    format!(
        "\n[services.web]\nkind = \"http\"\nclustering = \"load-balanced\"\n\
         replication = \"none\"\nbalance = \"round-robin\"\nslow_start = \"0s\"\n\
         health = {{ interval = \"200ms\", fall = 2, rise = 1, path = \"/healthz\" }}\n\
         listen = {port}\nupstreams = [{upstreams}]\n{more}"
    )
}

/// One connection that is kept.
struct Client(TcpStream);

impl Client {
    async fn connect(door: SocketAddr) -> Self {
        Self(TcpStream::connect(door).await.unwrap())
    }

    /// Status, head and body; none if the connection ends.
    async fn ask(&mut self, more: &str) -> Option<(u16, String, String)> {
        let request = format!("GET / HTTP/1.1\r\nHost: shop\r\n{more}\r\n");
        self.0.write_all(request.as_bytes()).await.ok()?;
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split("Content-Length: ").nth(1)?;
                let length: usize = length.lines().next()?.parse().ok()?;
                if body.len() >= length {
                    let status = head.split(' ').nth(1)?.parse().ok()?;
                    return Some((status, head.to_owned(), body.to_owned()));
                }
            }
            let read = timeout(LIMIT, self.0.read_buf(&mut bytes)).await.expect("an answer");
            if read.ok()? == 0 {
                return None;
            }
        }
    }

    async fn letter(&mut self) -> String {
        self.ask("").await.expect("an answer").2
    }
}

/// Clients that ask without a pause, and what they were told.
struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Traffic {
    #[allow(clippy::disallowed_methods, reason = "a test has no supervisor")]
    fn start(doors: &[SocketAddr]) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let run = |door: SocketAddr| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut wrong = Vec::new();
                let mut client = Client::connect(door).await;
                while !stop.load(Ordering::Relaxed) {
                    match client.ask("").await {
                        Some((200, ..)) => _ = done.fetch_add(1, Ordering::Relaxed),
                        Some((_, head, body)) => wrong.push(format!("{head} {body}")),
                        None => {
                            wrong.push("cut".to_owned());
                            client = Client::connect(door).await;
                        }
                    }
                }
                wrong
            })
        };
        let tasks = doors.iter().map(|door| run(*door)).collect();
        Self { stop, done, tasks }
    }

    /// How many requests were served; none was not.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            assert_eq!(task.await.unwrap(), Vec::<String>::new());
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_service_is_balanced_through_everything() {
    let mut machines = Machines::new(&NAMES);
    let mut endpoints = [Endpoint::http('x').await, Endpoint::http('y').await];
    write(&machines, &service(door(&machines, "a"), &both(&endpoints), "sticky = \"place\"\n"));
    let check = Machines::run(&["config", "check", &machines.config_path()]).success();
    assert!(check.out.contains("service web: http, load-balanced × none"), "{}", check.out);
    super::found(&mut machines, &endpoints).await;
    a_cookie_means_the_same_on_every_node(&machines).await;
    an_endpoint_dies_under_traffic(&machines, &mut endpoints).await;
    changes_under_traffic_fail_nothing(&machines, &endpoints).await;
}

async fn a_cookie_means_the_same_on_every_node(machines: &Machines) {
    let mut client = Client::connect(door(machines, "a")).await;
    let (_, head, letter) = client.ask("").await.unwrap();
    let cookie = head.split("Set-Cookie: ").nth(1).unwrap().split(';').next().unwrap();
    for node in NAMES {
        for _ in 0..3 {
            let mut client = Client::connect(door(machines, node)).await;
            let (status, _, again) = client.ask(&format!("Cookie: {cookie}\r\n")).await.unwrap();
            assert_eq!((status, again), (200, letter.clone()), "{node}");
        }
    }
    machines.took("sticky on every node");
}

async fn an_endpoint_dies_under_traffic(machines: &Machines, endpoints: &mut [Endpoint; 2]) {
    let traffic = Traffic::start(&NAMES.map(|node| door(machines, node)));
    endpoints[0].stop().await;
    let is = |state: &'static str, endpoint: &Endpoint| {
        let address = Value::from(endpoint.address.to_string());
        move |status: &Value| {
            let all = status["balanced"][0]["upstreams"].as_array().unwrap();
            all.iter().any(|it| it["address"] == address && it["state"] == state)
        }
    };
    machines.until("a", "it is down", is("down", &endpoints[0])).await;
    endpoints[0].restart().await;
    machines.until("a", "it is back", is("up", &endpoints[0])).await;
    let done = traffic.stop().await;
    println!("{done} requests while an endpoint died and came back");
    let status = machines.status("a").unwrap();
    let http = &status["balanced"][0]["http"];
    assert!(http["requests_total"].as_u64() > Some(0), "{status:#}");
    assert_eq!(http["responses_total"][4], 0, "{status:#}");
    let page = machines.tandem("a", &["status"]).success().out;
    assert!(page.contains("web  http load-balanced none  by round-robin  at a"), "{page}");
    assert!(page.contains(" requests, "), "{page}");
    machines.took("an endpoint died and came back");
}

async fn changes_under_traffic_fail_nothing(machines: &Machines, endpoints: &[Endpoint; 2]) {
    let doors = NAMES.map(|node| door(machines, node));
    let mut kept = Client::connect(doors[1]).await;
    kept.letter().await;
    let traffic = Traffic::start(&doors);
    let [x, y] = [0, 1].map(|at| endpoints[at].address);
    let steps = [
        service(doors[0], &format!("{{ address = \"{x}\", drain = true }}, \"{y}\""), ""),
        service(doors[0], &format!("\"{y}\""), "in_flight_max = 50\nkeep_alive = \"5min\"\n"),
        service(doors[0], &both(endpoints), "retry = false\nupstream_idle_max = 0\n"),
        service(doors[0], &both(endpoints), "head_max = \"8kB\"\nbody_max = \"1MB\"\n"),
    ];
    for (at, text) in steps.iter().enumerate() {
        apply(machines, text).await;
        if at == 0 {
            for node in NAMES {
                let drains = |it: &Value| upstream(it, &endpoints[0])["state"] == "draining";
                machines.until(node, "it drains", drains).await;
            }
            for _ in 0..4 {
                assert_eq!(kept.letter().await, "y", "the connection stays, its requests move");
            }
        }
    }
    let done = traffic.stop().await;
    kept.letter().await;
    println!("{done} requests during four changes");
    machines.took("changed under traffic");
}
