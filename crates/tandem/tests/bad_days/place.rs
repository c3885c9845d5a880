//! A node's folder and configuration on this machine; nothing of it outlives the test.

use nix::unistd::{User, geteuid};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tandem::identity::create_many;
use tandem::runtime::process;
use tandem_core::ids::NodeId;
use tokio::process::{Child, Command};

pub const LIMIT: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub stderr: String,
    pub stdout: String,
}

impl Ended {
    /// It was refused in the form that is promised: number, what, because, try, and no panic.
    pub fn refused(&self, code: &str, status: i32) -> &str {
        let Self { stderr, .. } = self;
        let place = stderr.find("error[").unwrap_or_else(|| panic!("no report: {self:?}"));
        let report = &stderr[place..];
        assert!(report.starts_with(&format!("error[{code}]: ")), "{report}");
        for word in ["\n  because: ", "\n  try: "] {
            assert!(report.contains(word), "{report}");
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert_eq!(self.status, status, "{report}");
        report
    }
}

/// Where one node lives.
pub struct Place {
    pub root: tempfile::TempDir,
    pub ports: BTreeMap<&'static str, u16>,
    /// Added to the service.
    pub service: String,
    /// Further nodes.
    pub nodes: String,
    environment: Vec<(String, String)>,
    daemon: Option<Child>,
}

impl Place {
    /// Node a of a cluster of its own, with an identity.
    pub fn new() -> Self {
        let place = Self::without_identity();
        create_many(place.root.path(), "shop", &[NodeId::new("a")]).unwrap();
        place
    }

    pub fn without_identity() -> Self {
        // Below /tmp, whose parents user postgres may enter; short, for the socket.
        let root = tempfile::Builder::new().prefix("bad").tempdir_in("/tmp").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let listeners: Vec<TcpListener> =
            (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = ["peer", "api", "door", "postgres"]
            .into_iter()
            .zip(listeners.iter().map(|it| it.local_addr().unwrap().port()))
            .collect();
        let place = Self {
            root,
            ports,
            service: String::new(),
            nodes: String::new(),
            environment: Vec::new(),
            daemon: None,
        };
        fs::create_dir(place.dir()).unwrap();
        place
    }

    /// The folder of node a.
    pub fn dir(&self) -> PathBuf {
        self.root.path().join("a")
    }

    pub fn data(&self) -> PathBuf {
        self.dir().join("services/orders/data")
    }

    pub fn config(&self) -> PathBuf {
        self.root.path().join("tandem.toml")
    }

    pub fn address(&self, port: &str) -> String {
        format!("127.0.0.1:{}", self.ports[port])
    }

    pub fn set(&mut self, variable: &str, value: &str) {
        self.environment.push((variable.into(), value.into()));
    }

    pub fn text(&self) -> String {
        format!(
            "cluster = \"shop\"\n[nodes.a]\naddress = \"{}\"\napi = \"{}\"\n{}\n[services.orders]\n\
             kind = \"postgres\"\nclustering = \"active-passive\"\n\
             replication = \"primary-replica\"\n\
             durability = \"async\"\nlisten = {}\nport = {}\n{}",
            self.address("peer"),
            self.address("api"),
            self.nodes,
            self.ports["door"],
            self.ports["postgres"],
            self.service
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.args(arguments).envs(self.environment.iter().cloned());
        command.env("TANDEM_LOG", "warn").stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let output = tokio::time::timeout(LIMIT, self.command(arguments).output());
        let output = output.await.expect("it ends in time").unwrap();
        Ended {
            status: output.status.code().unwrap_or(-1),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        }
    }

    /// Starts the node, which is expected to refuse.
    pub async fn node(&self) -> Ended {
        fs::write(self.config(), self.text()).unwrap();
        self.node_with(&self.config(), "a", &self.dir()).await
    }

    pub async fn node_with(&self, config: &Path, node: &str, dir: &Path) -> Ended {
        let (config, dir) = (config.to_str().unwrap(), dir.to_str().unwrap());
        self.run(&["node", "--config", config, "--node", node, "--dir", dir]).await
    }

    /// Starts the node, which is expected to stay.
    pub fn start(&mut self) {
        fs::write(self.config(), self.text()).unwrap();
        self.daemon = Some(self.start_as("a", &self.config(), &self.dir(), "node.log"));
    }

    /// Starts another node, or another process of one; it ends with the handle.
    pub fn start_as(&self, node: &str, config: &Path, dir: &Path, log: &str) -> Child {
        let log = fs::File::create(self.root.path().join(log)).unwrap();
        let (config, dir) = (config.to_str().unwrap(), dir.to_str().unwrap());
        let mut command = self.command(&["node", "--config", config, "--node", node, "--dir", dir]);
        command.stderr(log).spawn().unwrap()
    }

    /// Ends the daemon, or everything.
    pub async fn stop_daemon(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().await.unwrap();
        }
    }

    pub async fn stop_everything(&mut self) {
        self.stop_daemon().await;
        let deadline = Instant::now() + LIMIT;
        while self.kill_instance() {
            assert!(Instant::now() < deadline, "something does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The keeper, which is named after the folder, and whatever works in the data directory.
    fn kill_instance(&self) -> bool {
        let run = format!("{}/services", self.dir().display());
        let keepers: Vec<i32> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                line.contains("keeper") && line.contains(&run)
            })
            .collect();
        for keeper in &keepers {
            process::kill_tree(*keeper);
        }
        let servers = process::kill_in_directory(&self.data());
        !keepers.is_empty() || !servers.is_empty()
    }

    /// The status of the only instance once it is as wanted.
    pub async fn instance(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        let api = format!("http://{}", self.address("api"));
        loop {
            let ended = self.run(&["status", "--json", "--api", &api]).await;
            let status: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
            let service = &status["services"][0];
            let mut instance = service["instances"][0].clone();
            instance["phase"] = service["phase"].clone();
            if wanted(&instance) {
                return instance;
            }
            assert!(Instant::now() < deadline, "{instance}; {ended:?}; {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("node.log")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(child) = &mut self.daemon {
            let _ = child.start_kill();
        }
        for _ in 0..1000 {
            if !self.kill_instance() {
                return;
            }
        }
    }
}

/// The user that PostgreSQL runs as.
pub fn postgres_user() -> Option<User> {
    geteuid().is_root().then(|| User::from_name("postgres").unwrap().expect("a user postgres"))
}
