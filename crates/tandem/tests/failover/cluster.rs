//! A dev cluster of three, and questions to it that wait for their answer with a limit.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tandem::dev::status::ServiceStatus;
use tandem::dev::{DevCluster, DevConfig, Wiring};
use tandem::identity::{self, Identity};
use tandem_core::ids::{NodeId, ServiceId};
use tokio_postgres::{Client, NoTls};

const TANDEM: &str = env!("CARGO_BIN_EXE_tandem");
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A cluster at work.
pub struct Running {
    dev: DevCluster,
    since: std::sync::Mutex<Instant>,
}

impl Running {
    pub async fn start() -> Self {
        let wiring = Wiring {
            exe: TANDEM.into(),
            identities: Arc::new(|root, nodes| {
                identity::create_many(root, "dev", nodes).map(drop).map_err(Into::into)
            }),
            password: Arc::new(|dir, service, role| {
                Ok(Identity::load(dir)?.password(&ServiceId::new(service), role))
            }),
        };
        let config = DevConfig {
            bin_dir: std::env::var_os("TANDEM_BIN_DIR").map(Into::into),
            ..DevConfig::default()
        };
        let dev = DevCluster::start(&config, &wiring).await.unwrap();
        let running = Self { dev, since: Instant::now().into() };
        running.redundant().await;
        running.took("founded");
        running
    }

    pub async fn stop(self) {
        self.dev.stop().await;
    }

    pub fn dev(&self) -> &DevCluster {
        &self.dev
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        self.dev.layout().nodes.iter().map(|place| place.node.clone()).collect()
    }

    pub fn took(&self, what: &str) {
        let mut since = self.since.lock().unwrap();
        println!("{what}: {:.1} s", since.elapsed().as_secs_f64());
        *since = Instant::now();
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done().await {
            if Instant::now() >= deadline {
                let status = self.said(&["status"]);
                panic!(
                    "not within {LIMIT:?}: {what}\n{status}{}",
                    self.said(&["explain", "orders"])
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The service as any node that answers sees it.
    async fn service(&self) -> Option<ServiceStatus> {
        for node in self.nodes() {
            if let Ok(status) = self.dev.status(&node).await {
                return status.service("orders").cloned();
            }
        }
        None
    }

    pub async fn primary(&self) -> NodeId {
        self.service().await.unwrap().primary.unwrap()
    }

    pub async fn state_of(&self, node: &NodeId) -> Option<String> {
        let service = self.service().await?;
        service.instances.into_iter().find(|it| it.node == node.as_str())?.state
    }

    /// Every copy streams and counts.
    pub async fn redundant(&self) {
        let nodes = self.nodes();
        let mut last = None;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            last = match self.service().await {
                Some(service) => service.shortcoming(&nodes),
                None => Some("no node answers".to_owned()),
            };
            if last.is_none() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        panic!("not redundant: {last:?}\n{}", self.said(&["explain", "orders"]));
    }

    pub async fn term(&self) -> u64 {
        self.service().await.unwrap().term.unwrap()
    }

    /// A primary of a later term is there, and takes a write.
    pub async fn serves_after(&self, term: u64) {
        self.until("a primary of a later term serves", async || {
            self.service().await.is_some_and(|service| {
                service.phase.as_deref() == Some("active") && service.term.is_some_and(|t| t > term)
            })
        })
        .await;
        let client = self.superuser(&self.primary().await).await;
        client.batch_execute("CREATE TABLE IF NOT EXISTS served (x int)").await.unwrap();
        client.batch_execute("INSERT INTO served VALUES (1)").await.unwrap();
    }

    /// A session on a node's own instance, past all doors.
    pub async fn superuser(&self, node: &NodeId) -> Client {
        let layout = self.dev.layout();
        let place = layout.place(node).unwrap();
        // The role is let in over the socket only.
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(place.dir.join("services/orders/run"))
            .port(layout.instance(place).port())
            .user("tandem")
            .dbname("postgres")
            .password(self.dev.password("tandem").unwrap());
        let (client, connection) = config.connect(NoTls).await.unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test has no supervisor")]
        tokio::spawn(async move {
            // It ends with its server.
            let _ = connection.await;
        });
        client
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let apis: Vec<String> = self
            .nodes()
            .iter()
            .map(|node| format!("http://{}", self.dev.api(node).unwrap()))
            .collect();
        let mut command = Command::new(TANDEM);
        command.args(["--api", &apis.join(",")]).args(arguments).stdin(Stdio::null());
        command
    }

    /// What a command prints that succeeds.
    pub fn said(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {err}");
        out
    }

    /// A command that is left to itself.
    pub fn begin(&self, arguments: &[&str]) -> Begun {
        let quiet = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Begun(quiet.unwrap())
    }
}

/// Ends with its owner.
pub struct Begun(Child);

impl Begun {
    /// Its exit status, once it ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
