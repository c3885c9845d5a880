//! Other doors to the copies of a command: one of requests and one of connections, besides its own.
//! What is planned with the copies loses nothing there either (INV-14).

use super::{Machines, NODES, Shop, serve, started};
use crate::traffic::{Asks, Traffic};
use std::fs;
use std::net::{SocketAddr, TcpListener};

/// Where they listen on each node.
struct Fronts {
    http: u16,
    tcp: u16,
}

impl Fronts {
    fn new() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { http: free(), tcp: free() }
    }

    /// As their owner writes them.
    fn text(&self) -> String {
        let front = |name: &str, kind: &str, listen: u16| {
            format!(
                "[services.{name}]\nkind = \"{kind}\"\nclustering = \"load-balanced\"\n\
                 replication = \"none\"\nlisten = {listen}\nslow_start = \"0s\"\n\
                 upstreams = [{{ service = \"web\" }}]\n"
            )
        };
        front("pages", "http", self.http) + &front("raw", "tcp", self.tcp)
    }

    fn doors(machines: &Machines, port: u16) -> Vec<SocketAddr> {
        NODES.iter().map(|node| SocketAddr::new(machines.of(node).api.ip(), port)).collect()
    }

    /// Clients of all of them: what they ask at a door of connections is one connection each.
    fn traffic(&self, machines: &Machines) -> [Traffic; 2] {
        let requests = Traffic::start(&Self::doors(machines, self.http), Asks::All);
        [requests, Traffic::start(&Self::doors(machines, self.tcp), Asks::Singly)]
    }
}

fn write(machines: &Machines, shop: &Shop, fronts: &Fronts, mode: &str) {
    shop.write(machines, mode, "");
    let text = fs::read_to_string(machines.config_path()).unwrap();
    fs::write(machines.config_path(), text + &fronts.text()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_doors_follow_copies_as_their_own_does() {
    let mut machines = Machines::new(&NODES);
    let (shop, fronts) = (Shop::new("load-balanced", "http"), Fronts::new());
    started(&mut machines, &shop).await;
    // Both begin while it runs.
    write(&machines, &shop, &fronts, "first");
    machines.applies("a").await;
    let traffic = fronts.traffic(&machines);
    for it in &traffic {
        it.heard_of(3).await;
    }
    let said = machines.tandem("b", &["restart", "web"]).success();
    assert!(said.out.contains("every copy of web was started anew"), "{said:?}");
    machines.tandem("a", &["drain", "c"]).success();
    serve(&machines, "a", 2).await;
    machines.tandem("a", &["undrain", "c"]).success();
    serve(&machines, "a", 3).await;
    write(&machines, &shop, &fronts, "second");
    machines.applies("a").await;
    for it in traffic {
        it.heard(|by| by.keys().filter(|who| who.mode == "second").count() == 3).await;
        it.end("a restart, a drain and a change behind another door").await;
    }
    println!("{}", machines.tandem("b", &["status"]).success().out);
    after_a_daemon_began_with_them(&mut machines, &fronts).await;
}

/// They are there from the start of a daemon, and lead somewhere once it knows what there is.
async fn after_a_daemon_began_with_them(machines: &mut Machines, fronts: &Fronts) {
    machines.stop("b");
    machines.start_joined("b");
    machines.reachable("b").await;
    serve(machines, "b", 3).await;
    let traffic = fronts.traffic(machines);
    for it in &traffic {
        it.heard_of(3).await;
    }
    machines.tandem("b", &["restart", "web"]).success();
    for it in traffic {
        it.end("a restart after a daemon's").await;
    }
}
