//! An example's cluster on this machine, with real daemons, and questions that wait for an answer.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tandem::dev::{DevCluster, DevConfig, Wiring};
use tandem::identity::{self, Identity};
use tandem_core::ids::{NodeId, ServiceId};

pub const TANDEM: &str = env!("CARGO_BIN_EXE_tandem");
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub fn example(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    std::fs::read_to_string(root.join(name).join("tandem.toml")).unwrap()
}

/// A cluster at work.
pub struct Running {
    dev: DevCluster,
    since: std::cell::Cell<Instant>,
}

impl Running {
    /// The configuration as it is in the example, but for its addresses.
    pub async fn start(text: String) -> Self {
        let wiring = Wiring {
            exe: TANDEM.into(),
            identities: Arc::new(|root, nodes| {
                identity::create_many(root, "dev", nodes).map(drop).map_err(Into::into)
            }),
            password: Arc::new(|dir, service, role| {
                Ok(Identity::load(dir)?.password(&ServiceId::new(service), role))
            }),
        };
        let config = DevConfig { given: Some(text), ..DevConfig::default() };
        let dev = DevCluster::start(&config, &wiring).await.unwrap();
        dev.answers().await.unwrap();
        Self { dev, since: Instant::now().into() }
    }

    pub fn dev(&self) -> &DevCluster {
        &self.dev
    }

    pub async fn stop(self) {
        self.dev.stop().await;
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        self.dev.layout().nodes.iter().map(|place| place.node.clone()).collect()
    }

    pub fn took(&self, what: &str) {
        println!("{what}: {:.2} s", self.since.replace(Instant::now()).elapsed().as_secs_f64());
    }

    /// Where clients of a service connect on a node.
    pub fn door(&self, node: &NodeId, service: &str) -> SocketAddr {
        let layout = self.dev.layout();
        layout.door_of(layout.place(node).unwrap(), service).unwrap()
    }

    /// Where the only copy of a service is, once it runs there.
    pub async fn runs_at(&self, service: &str, but: Option<&NodeId>) -> NodeId {
        self.until("it runs", async || {
            for node in self.nodes() {
                let Ok(status) = self.dev.status(&node).await else { continue };
                let Some(it) = status.service(service) else { continue };
                let Some(at) = &it.primary else { continue };
                let runs = it.instances.iter().any(|copy| {
                    copy.node == at.as_str() && copy.state.as_deref() == Some("running")
                });
                if runs && it.phase.as_deref() == Some("active") && Some(at) != but {
                    return Some(at.clone());
                }
            }
            None
        })
        .await
    }

    /// The primary of a service, once every node has a copy that it can read from.
    pub async fn primary_with_two_standbys(&self, service: &str) -> NodeId {
        let nodes = self.nodes();
        self.until("two standbys stream", async || {
            let status = self.dev.status(&nodes[0]).await.ok()?;
            let it = status.service(service)?;
            it.shortcoming(&nodes).is_none().then(|| it.primary.clone())?
        })
        .await
    }

    /// Waits for an answer.
    pub async fn until<T: Debug>(&self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            if Instant::now() >= deadline {
                panic!("not within {LIMIT:?}: {what}\n{}", self.tandem(&["status"]));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks the first node, as an operator.
    pub fn tandem(&self, words: &[&str]) -> String {
        let api = format!("http://{}", self.dev.api(&self.nodes()[0]).unwrap());
        let said = Command::new(TANDEM).args(["--api", &api]).args(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&said.stdout) + &text(&said.stderr)
    }
}
