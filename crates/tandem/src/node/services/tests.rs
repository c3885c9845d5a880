//! The front doors of one node, which follow one configuration after the other.

use super::fronts::Fronts;
use super::*;
use crate::consensus::Agreed;
use crate::driver::hub::Hub;
use crate::node::NodeArgs;
use crate::runtime::supervisor::Supervisor;
use crate::telemetry::events::EventLog;
use tandem_core::cluster::state::ClusterState;
use tandem_core::ids::ConfigVersion;
use tokio::net::TcpStream;

/// One node that has begun, and nothing but its doors.
struct Node {
    fronts: Fronts,
    agreed: watch::Sender<Agreed>,
    _dir: tempfile::TempDir,
}

fn of(services: &[&str]) -> Config {
    let nodes = "cluster = \"shop\"\n[nodes.a]\naddress = \"127.0.0.1:7400\"\n";
    Config::parse(&[nodes, &services.concat()].concat(), "t").unwrap()
}

fn agreed(config: &Config, version: u64) -> Agreed {
    let state = ClusterState {
        spec: config.spec(),
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
        });
        let fronts = Fronts::open(&ground).unwrap();
        fronts.let_in(&agreed.subscribe());
        Self { fronts, agreed, _dir: dir }
    }

    /// What waits.
    async fn follows(&self, services: &[&str]) -> Vec<String> {
        let config = of(services);
        let version = self.agreed.borrow().index + 1;
        self.agreed.send_replace(agreed(&config, version));
        self.fronts.follow(&config, &self.agreed.subscribe()).await
    }
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
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
