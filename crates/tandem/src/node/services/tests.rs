//! The front doors of one node, which follow one configuration after the other.

use super::folders::Folders;
use super::fronts::Fronts;
use super::ports::Ports;
use super::*;
use crate::consensus::Agreed;
use crate::driver::hub::Hub;
use crate::node::NodeArgs;
use crate::runtime::supervisor::Supervisor;
use crate::telemetry::events::EventLog;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};
use tandem_core::cluster::state::{Appointment, ClusterState, Phase, ServiceState};
use tandem_core::facts::{DoorUse, NodeFacts, Process, Told};
use tandem_core::ids::ConfigVersion;
use tandem_core::time::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(20);

/// One node that has begun, and nothing but its doors.
struct Node {
    fronts: Fronts,
    ground: Arc<Ground>,
    agreed: watch::Sender<Agreed>,
    _dir: tempfile::TempDir,
}

fn of(services: &[&str]) -> Config {
    let bind = own();
    let nodes =
        format!("cluster = \"shop\"\n[nodes.a]\naddress = \"127.0.0.1:7400\"\nbind = \"{bind}\"\n");
    Config::parse(&[nodes, services.concat()].concat(), "t").unwrap()
}

fn agreed(config: &Config, version: u64) -> Agreed {
    // One copy of each runs here, as far as anybody knows.
    let (term, primary) = (Term(1), NodeId::from("a"));
    let appointment = Appointment { term, primary, rules: Vec::new(), phase: Phase::Active };
    let service = ServiceState { appointment: Some(appointment), ..ServiceState::default() };
    let state = ClusterState {
        spec: config.spec(),
        services: config.commands.keys().map(|id| (id.clone(), service.clone())).collect(),
        config_version: ConfigVersion(version),
        config_text: config.text.clone(),
        ..ClusterState::default()
    };
    Agreed { state: Arc::new(state), index: version }
}

impl Node {
    fn begins(services: &[&str]) -> Self {
        let config = of(services);
        let dir = tempfile::tempdir().unwrap();
        let (folder, node) = (dir.path().to_owned(), NodeId::from("a"));
        let identity = crate::identity::create_cluster(&folder, "shop", &node).unwrap();
        let agreed = watch::Sender::new(agreed(&config, 1));
        let args =
            NodeArgs { config: folder.join("t"), node: node.clone(), dir: folder, routes: None };
        let ports = Ports::of((ConfigVersion(1), &config));
        let ground = Arc::new(Ground {
            args,
            version: ConfigVersion(1),
            config,
            identity: Arc::new(identity),
            routes: BTreeMap::new(),
            hub: Arc::new(Hub::new(node.clone())),
            explanations: Arc::default(),
            events: EventLog::new(node),
            supervisor: Supervisor::new(),
            folders: Folders::default(),
            ports,
        });
        let fronts = Fronts::open(&ground).unwrap();
        fronts.let_in(&agreed.subscribe());
        Self { fronts, ground, agreed, _dir: dir }
    }

    /// The commands whose copies wait for a door of this node.
    fn says(&self) -> Vec<ServiceId> {
        self.ground.hub.own().doors.into_keys().collect()
    }

    /// What waits.
    async fn follows(&self, services: &[&str]) -> Vec<String> {
        let config = of(services);
        let version = self.agreed.borrow().index + 1;
        self.agreed.send_replace(agreed(&config, version));
        let config = (ConfigVersion(version), &config);
        self.fronts.follow(config, &self.agreed.subscribe()).await
    }
}

/// An address of this machine that nobody but this test has: what it frees stays free.
fn own() -> Ipv4Addr {
    static TESTS: AtomicU8 = AtomicU8::new(0);
    thread_local! {
        static OWN: Ipv4Addr = {
            let [.., process] = std::process::id().to_be_bytes();
            Ipv4Addr::new(127, 79, process, 1 + TESTS.fetch_add(1, Ordering::Relaxed))
        };
    }
    OWN.with(|own| *own)
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind((own(), 0)).unwrap().local_addr().unwrap()
}

/// A command with a port that nobody listens at.
fn command(name: &str, clustering: &str, more: &str) -> String {
    let port = free().port();
    format!(
        "[services.{name}]\nkind = \"command\"\nclustering = \"{clustering}\"\n\
         replication = \"none\"\ncommand = [\"/bin/true\"]\nport = {port}\n{more}\n"
    )
}

fn tcp(name: &str, at: SocketAddr, upstream: &str) -> String {
    format!(
        "[services.{name}]\nkind = \"tcp\"\nclustering = \"load-balanced\"\n\
         replication = \"none\"\nhealth = false\nlisten = \"{at}\"\nupstreams = [{upstream}]\n"
    )
}

/// Who is new finds the address free that another one had.
#[tokio::test]
async fn a_door_that_is_another_one_is_open_at_its_old_address_at_once() {
    let at = free();
    let by_key = |count: u32| {
        let more = format!("listen = \"{at}\"\npartitions = {count}\n");
        command("work", "active-active", &more)
    };
    let alone = command("work", "active-passive", &format!("listen = \"{at}\"\n"));
    let node = Node::begins(&[&by_key(4)]);
    for next in [by_key(8), alone.clone(), tcp("other", at, "\"127.0.0.1:1\""), alone] {
        let waits = node.follows(&[&next]).await;
        assert_eq!(waits, [""; 0], "{next}");
        TcpStream::connect(at).await.unwrap();
    }
}

/// By another key it would belong to another owner.
#[tokio::test]
async fn inv15_what_waits_at_a_door_by_key_that_counts_otherwise_is_told_to_come_again() {
    let at = free();
    let by = |more: &str| {
        let more = format!("listen = \"{at}\"\npartitions = 4\ndoor = \"http\"\n{more}\n");
        command("work", "active-active", &more)
    };
    let by_shop = "partition_key = { header = \"X-Shop\" }";
    let by_cookie = "partition_key = { cookie = \"sid\" }";
    let trusting = format!("{by_shop}\ntrusted = [\"10.0.0.0/8\"]");
    let proxied = format!("{by_shop}\naccept_proxy = true");
    let node = Node::begins(&[&by(by_shop)]);
    let held = || node.fronts.leased.snapshots()[0].held;
    let changes = [by_shop, by_cookie, by_shop, &trusting, by_shop, &proxied];
    for (before, after) in changes.into_iter().zip(&changes[1..]) {
        let mut client = TcpStream::connect(at).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: shop\r\nX-Shop: 1\r\nCookie: sid=1\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut client, request).await.unwrap();
        let waits = async {
            while held() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, waits).await.unwrap();
        for hold_max in ["60s", "70s"] {
            let same = by(&format!("{before}\nhold_max = \"{hold_max}\""));
            assert_eq!(node.follows(&[&same]).await, [""; 0]);
            assert_eq!(held(), 1, "that changes no key");
        }
        assert_eq!(node.follows(&[&by(&format!("{after}\nhold_max = \"60s\""))]).await, [""; 0]);
        assert_eq!(held(), 0, "{after}: it is another door");
        let mut answer = String::new();
        let read = tokio::time::timeout(LIMIT, client.read_to_string(&mut answer));
        read.await.unwrap_or_else(|_| panic!("{after}: it waits still")).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{after}: {answer}");
        assert!(answer.contains("Retry-After"), "{after}: {answer}");
    }
}

/// Whose answer is its name.
async fn endpoint(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Supervisor::new().spawn("endpoint", TaskKind::Session, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, name.as_bytes()).await;
        }
    });
    address
}

async fn answers(address: SocketAddr) -> String {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let read = tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer));
    read.await.unwrap().unwrap();
    answer
}

/// It leads where it did, and says what it has there, until it leads elsewhere.
#[tokio::test]
async fn a_led_door_that_cannot_change_is_led_on() {
    let (at, taken, other) = (free(), TcpListener::bind((own(), 0)).await.unwrap(), free());
    let (web, jobs) = (command("web", "active-passive", ""), command("jobs", "active-passive", ""));
    let front = |at: SocketAddr, to: &str| tcp("front", at, to);
    let to_web = front(at, "{ service = \"web\" }");
    let node = Node::begins(&[&web, &jobs, &to_web]);
    assert_eq!(node.says(), [ServiceId::from("web")]);
    let one = endpoint("one").await;
    let to_one = format!("\"{one}\"");
    let is_taken = taken.local_addr().unwrap();
    for to in [to_one.as_str(), "{ service = \"jobs\" }", &to_one] {
        for _ in 0..2 {
            let waits = node.follows(&[&web, &jobs, &front(is_taken, to)]).await;
            assert!(waits.len() == 1 && waits[0].contains("front"), "{waits:?}");
            assert_eq!(node.says(), [ServiceId::from("web")], "{to}");
            let led = node.fronts.led.is_guided(&"front".into());
            assert!(led, "{to}");
        }
    }
    // It could change meanwhile.
    assert_eq!(node.follows(&[&web, &jobs, &front(other, &to_one)]).await, [""; 0]);
    assert_eq!((answers(other).await.as_str(), node.says().len()), ("one", 0));
    let to_jobs = front(is_taken, "{ service = \"jobs\" }");
    assert_eq!(node.follows(&[&web, &jobs, &to_jobs]).await.len(), 1);
    assert_eq!((answers(other).await.as_str(), node.says().len()), ("one", 0), "as it was");
    drop(taken);
    assert_eq!(node.follows(&[&web, &jobs, &to_jobs]).await, [""; 0]);
    assert_eq!(node.says(), [ServiceId::from("jobs")]);
}

/// As its node says it.
fn copy(process: Process, withdrawn: Option<Timestamp>) -> InstanceFacts {
    InstanceFacts { process, serving: Some(Term(1)), withdrawn, ..InstanceFacts::default() }
}

/// Which waits for whoever may have something there, to the end of its last connection.
#[tokio::test]
async fn inv14_a_door_that_closes_answers_a_copy_of_a_node_that_was_added_since() {
    let web = command("web", "active-passive", "");
    let of_its_own =
        format!("{web}listen = \"127.0.0.1:0\"\nhold_max = \"60s\"\ndrain_max = \"60s\"\n");
    let at = free();
    let of_its_own = of_its_own.replace("127.0.0.1:0", &at.to_string());
    let of_another = [web.as_str(), &tcp("front", at, "{ service = \"web\" }")].concat();
    let with_b = [web.as_str(), "[nodes.b]\naddress = \"127.0.0.2:7400\"\n"].concat();
    for before in [of_its_own, of_another] {
        let node = Node::begins(&[&before]);
        let (web, b) = (ServiceId::from("web"), NodeId::from("b"));
        let port = node.ground.config.commands[&web].port.unwrap();
        let listener = TcpListener::bind((own(), port)).await.unwrap();
        let serves = copy(Process::Primary, None);
        node.ground.hub.publish(&web, &serves, crate::runtime::clock::now());
        let client = TcpStream::connect(at).await.unwrap();
        let accepted = tokio::time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        assert_eq!(node.follows(&[&with_b]).await, [""; 0]);
        TcpStream::connect(at).await.unwrap_err();
        let facts = NodeFacts {
            ended: Default::default(),
            node: b.clone(),
            told: Told { start: 1, number: 1 },
            config_version: ConfigVersion(2),
            draining: false,
            doors: BTreeMap::new(),
            links: BTreeMap::new(),
            instances: [(web.clone(), copy(Process::Primary, Some(Timestamp(7))))].into(),
        };
        node.ground.hub.heard(facts);
        let obeys = Some(DoorUse { obeys: Timestamp(7), in_flight: 0 });
        let told = || node.ground.hub.own().doors.get(&web)?.get(&b).copied();
        let mut changed = node.ground.hub.own_changed();
        let heard = async {
            while told() != obeys {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, heard).await.unwrap_or_else(|_| panic!("{before}"));
        drop((client, accepted));
        let ended = async {
            while node.ground.hub.own().doors.contains_key(&web) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, ended).await.unwrap_or_else(|_| panic!("{before}"));
    }
}

/// Whoever is appointed may be long in starting, and its node may be all that is left by then.
#[tokio::test]
async fn what_waits_at_a_copy_whose_node_was_removed_is_cut_once_another_one_serves() {
    let at = free();
    let door = format!("listen = \"{at}\"\nhold_max = \"60s\"\ndrain_max = \"60s\"\n");
    let web = command("web", "active-passive", &door);
    let [.., process, test] = own().octets();
    let there = Ipv4Addr::new(127, 80, process, test);
    let b = format!("[nodes.b]\naddress = \"127.0.0.2:7400\"\nbind = \"{there}\"\n");
    let node = Node::begins(&[&web, &b]);
    let (id, b) = (ServiceId::from("web"), NodeId::from("b"));
    let listener = node.ground.config.commands[&id].port.map(|port| (there, port)).unwrap();
    let listener = TcpListener::bind(listener).await.unwrap();
    node.agreed.send_modify(|agreed| {
        let mut state = ClusterState::clone(&agreed.state);
        let appointed = state.services.get_mut(&id).unwrap().appointment.as_mut().unwrap();
        appointed.primary = b.clone();
        agreed.state = Arc::new(state);
    });
    let mut client = TcpStream::connect(at).await.unwrap();
    let says = || NodeFacts {
        ended: Default::default(),
        node: b.clone(),
        told: Told { start: 1, number: 1 },
        config_version: ConfigVersion(1),
        draining: false,
        doors: BTreeMap::new(),
        links: BTreeMap::new(),
        instances: [(id.clone(), copy(Process::Primary, None))].into(),
    };
    let is_led = async {
        loop {
            node.ground.hub.heard(says());
            let soon = Duration::from_millis(200);
            if let Ok(accepted) = tokio::time::timeout(soon, listener.accept()).await {
                break accepted.unwrap();
            }
        }
    };
    let _waits = tokio::time::timeout(LIMIT, is_led).await.unwrap();
    assert_eq!(node.follows(&[&web]).await, [""; 0]);
    node.ground.hub.publish(&id, &copy(Process::Primary, None), crate::runtime::clock::now());
    let end = tokio::time::timeout(LIMIT, client.read_u8()).await.expect("an end");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
