//! Machines on one machine: a loopback address and a folder each, and the program to be run there.
//! What was started ends with the test, whatever happens.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tandem::dev::{DevConfig, Layout};

const TANDEM: &str = env!("CARGO_BIN_EXE_tandem");
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn success(self) -> Self {
        assert!(self.code == 0, "{self:?}");
        self
    }
}

pub struct Machine {
    name: String,
    pub api: SocketAddr,
    pub door: SocketAddr,
    peer: SocketAddr,
    instance: SocketAddr,
    dir: PathBuf,
    daemon: Option<Child>,
}

/// All of them.
pub struct Machines {
    root: tempfile::TempDir,
    all: Vec<Machine>,
    since: std::cell::Cell<Instant>,
}

impl Machines {
    pub fn new(names: &[&str]) -> Self {
        let root = tempfile::Builder::new().prefix("tandem-m").tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let config = DevConfig { nodes: names.len(), ..DevConfig::default() };
        let (layout, claim) = Layout::find(&config, root.path()).unwrap();
        // Held to the end of the test program: addresses of another test in it must differ.
        std::mem::forget(claim);
        let all = layout.nodes.iter().map(|place| Machine {
            name: place.node.to_string(),
            api: layout.api(place),
            door: layout.door(place),
            peer: layout.peer(place),
            instance: layout.instance(place),
            dir: place.dir.clone(),
            daemon: None,
        });
        let all = all.collect();
        Self { root, all, since: Instant::now().into() }
    }

    pub fn took(&self, what: &str) {
        println!("{what}: {:.1} s", self.since.replace(Instant::now()).elapsed().as_secs_f64());
    }

    pub fn of(&self, name: &str) -> &Machine {
        self.all.iter().find(|it| it.name == name).unwrap()
    }

    pub fn dir(&self, name: &str) -> &Path {
        &self.of(name).dir
    }

    pub fn config_path(&self) -> String {
        self.root.path().join("tandem.toml").display().to_string()
    }

    /// The file that its owner keeps, with these nodes and no service.
    pub fn write_nodes(&self, names: &[&str]) {
        fs::write(self.config_path(), self.nodes(names)).unwrap();
    }

    fn nodes(&self, names: &[&str]) -> String {
        let mut text = String::from("# the shop's\ncluster = \"shop\"\n");
        for name in names {
            let Machine { peer, api, .. } = self.of(name);
            let _ = write!(text, "\n[nodes.{name}]\naddress = \"{peer}\"\napi = \"{api}\"\n");
        }
        text
    }

    /// The file that its owner keeps, with these nodes and settings.
    pub fn write_config(&self, names: &[&str], settings: &str) {
        let mut text = self.nodes(names);
        let Machine { door, instance, .. } = &self.all[0];
        let _ = write!(
            text,
            "\n[services.orders]\nkind = \"postgres\"\nclustering = \"active-passive\"\n\
             replication = \"primary-replica\"\nlisten = {}\nport = {}\n",
            door.port(),
            instance.port()
        );
        if let Ok(folder) = std::env::var("TANDEM_BIN_DIR") {
            let _ = writeln!(text, "bin_dir = {folder:?}");
        }
        if !settings.is_empty() {
            let _ = write!(text, "\n[services.orders.postgresql]\n{settings}");
        }
        fs::write(self.config_path(), text).unwrap();
    }

    pub fn run(arguments: &[&str]) -> Said {
        let output = Command::new(TANDEM).args(arguments).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Asks the node there.
    pub fn tandem(&self, at: &str, arguments: &[&str]) -> Said {
        let api = format!("http://{}", self.of(at).api);
        Self::run(&[&["--api", &api], arguments].concat())
    }

    pub fn apply(&self, at: &str) -> Said {
        self.tandem(at, &["config", "apply", &self.config_path()])
    }

    pub fn init(&self, name: &str) {
        let (config, dir) = (self.config_path(), self.dir(name).display().to_string());
        Self::run(&["init", "--config", &config, "--node", name, "--dir", &dir]).success();
    }

    pub fn token(&self, at: &str, node: &str) -> String {
        let path = self.root.path().join(format!("token-{node}"));
        fs::write(&path, self.tandem(at, &["token", node]).success().out).unwrap();
        path.display().to_string()
    }

    pub fn join(&self, node: &str, token: &str) -> Said {
        let dir = self.dir(node).display().to_string();
        Self::run(&["join", "--node", node, "--dir", &dir, "--token-file", token]).success()
    }

    /// With a token that is used up.
    pub fn join_anew(&self, node: &str, token: &str) -> Said {
        let dir = self.root.path().join("another").display().to_string();
        Self::run(&["join", "--node", node, "--dir", &dir, "--token-file", token])
    }

    pub fn recover(&self, node: &str, flags: &[&str]) -> Said {
        let dir = self.dir(node).display().to_string();
        Self::run(&[&["recover", "--dir", &dir], flags].concat())
    }

    pub fn start(&mut self, name: &str) {
        self.start_with(name, &self.config_path());
    }

    /// With the configuration that the cluster gave it.
    pub fn start_joined(&mut self, name: &str) {
        let path = self.dir(name).join("tandem.toml").display().to_string();
        self.start_with(name, &path);
    }

    fn start_with(&mut self, name: &str, config: &str) {
        let machine = self.all.iter_mut().find(|it| it.name == name).unwrap();
        let log = machine.dir.join("node.log");
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(TANDEM);
        command.args(["node", "--config", config, "--node", name, "--dir"]).arg(&machine.dir);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        machine.daemon = Some(command.spawn().unwrap());
    }

    /// A cluster of these nodes from the file that was written; each of them answers.
    pub async fn found(&mut self, names: &[&str]) {
        let (first, others) = names.split_first().unwrap();
        self.init(first);
        self.start(first);
        self.reachable(first).await;
        for node in others {
            let token = self.token(first, node);
            self.join(node, &token);
            self.start_joined(node);
        }
        for node in others {
            self.reachable(node).await;
        }
    }

    /// The daemon, as an operator does it; its server stays with its keeper.
    pub fn stop(&mut self, name: &str) {
        let machine = self.all.iter_mut().find(|it| it.name == name).unwrap();
        let mut daemon = machine.daemon.take().unwrap();
        kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(daemon.wait().unwrap().success(), "{}", self.log(name));
        assert!(!self.log(name).contains("an essential task ended"), "{}", self.log(name));
    }

    /// The daemon, as a machine that hangs; its keeper and its server go on.
    pub fn freeze(&self, name: &str, signal: Signal) {
        let daemon = self.of(name).daemon.as_ref().unwrap();
        kill(Pid::from_raw(daemon.id().cast_signed()), signal).unwrap();
    }

    /// Its daemon was killed.
    pub fn stopped(&mut self, name: &str) {
        let machine = self.all.iter_mut().find(|it| it.name == name).unwrap();
        machine.daemon.take().unwrap().wait().unwrap();
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir(name).join("node.log")).unwrap_or_default()
    }

    /// What lets nodes in, as its owner saved it.
    pub fn copy_authority(&self, from: &str, to: &str) {
        let key = |name| self.dir(name).join("identity/ca.key");
        if from != to {
            fs::copy(key(from), key(to)).unwrap();
        }
    }

    /// As a new machine.
    pub fn empty(&self, name: &str) {
        fs::remove_dir_all(self.dir(name)).unwrap();
    }

    /// Every process of a machine, at once.
    pub fn kill(&mut self, name: &str) {
        let machine = self.all.iter_mut().find(|it| it.name == name).unwrap();
        if let Some(mut daemon) = machine.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let until = Instant::now() + LIMIT;
        while !processes(&machine.dir).is_empty() {
            for pid in processes(&machine.dir) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            assert!(Instant::now() < until, "{name} does not die");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn status(&self, at: &str) -> Option<Value> {
        let said = self.tandem(at, &["--json", "status"]);
        serde_json::from_str(&said.out).ok().filter(|_| said.code == 0)
    }

    pub fn primary(&self, at: &str) -> String {
        let status = self.status(at).unwrap();
        status["services"][0]["primary"].as_str().unwrap().to_owned()
    }

    pub fn members(&self, at: &str) -> Vec<String> {
        let status = self.status(at).unwrap();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn wait(&self, what: &str, node: &str, mut until: impl FnMut() -> bool) {
        let limit = Instant::now() + LIMIT;
        while !until() {
            if Instant::now() > limit {
                let log = fs::read_to_string(self.dir(node).join("node.log")).unwrap_or_default();
                let status = self.status(node).map(|it| format!("{it:#}"));
                panic!("{what} on {node}: {}\n{log}", status.unwrap_or_default());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until a node's status is so.
    pub async fn until(&self, at: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
        self.wait(what, at, || self.status(at).is_some_and(|status| is_so(&status))).await;
    }

    pub async fn reachable(&self, at: &str) {
        self.until(at, "it answers", |_| true).await;
    }

    /// Waits until the service is active with that many copies in order, each of which confirms
    /// commits, as seen there.
    pub async fn serves(&self, at: &str, copies: usize) {
        self.until(at, "it serves", |status| {
            let service = &status["services"][0];
            let Some(instances) = service["instances"].as_array() else { return false };
            let good = |it: &&Value| {
                let runs = matches!(it["state"].as_str(), Some("running" | "streaming"));
                runs && it["in_commit_quorum"] == true
            };
            service["phase"] == "active"
                && instances.len() == copies
                && instances.iter().filter(good).count() == copies
        })
        .await;
    }

    /// Waits until no server works in a node's folder.
    pub async fn instance_gone(&self, node: &str) {
        let pid = self.dir(node).join("services/orders/data/postmaster.pid");
        self.wait("its server is gone", node, || !pid.exists()).await;
    }

    /// Waits until no process of a server is left, however it ended.
    pub async fn server_dead(&self, node: &str) {
        let data = self.dir(node).join("services/orders/data");
        self.wait("its server is dead", node, || processes(&data).is_empty()).await;
    }

    /// Waits until a daemon ended by itself, saying so.
    pub async fn ends(&mut self, node: &str, words: &str) {
        let machine = self.all.iter_mut().find(|it| it.name == node).unwrap();
        let mut daemon = machine.daemon.take().unwrap();
        self.wait("it ends", node, || daemon.try_wait().unwrap().is_some()).await;
        let log = fs::read_to_string(self.dir(node).join("node.log")).unwrap();
        assert!(log.contains(words), "{log}");
    }

    /// Applies the file once that is safe: the primary must have seen that its standby is fed.
    pub async fn applies(&self, at: &str) {
        let applied = || {
            let said = self.apply(at);
            // Agreed before although the answer was lost on the way: nothing is left to change.
            said.code == 0 || said.err.contains("TDM0607")
        };
        self.wait("the configuration is applied", at, applied).await;
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        let names: Vec<String> = self.all.iter().map(|it| it.name.clone()).collect();
        if std::thread::panicking() {
            for machine in &self.all {
                let log = fs::read_to_string(machine.dir.join("node.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(60).collect();
                println!("--- {} ---", machine.name);
                tail.into_iter().rev().for_each(|line| println!("{line}"));
            }
        }
        for name in names {
            self.kill(&name);
        }
    }
}

/// Whose arguments name the folder, or who works in it.
fn processes(dir: &Path) -> Vec<i32> {
    let folder = dir.display().to_string();
    let is_of = |arguments: &[u8]| {
        let arguments = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        arguments.into_iter().any(|it| it == folder || it.starts_with(&format!("{folder}/")))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let belongs = |pid: &i32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let is_dead = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        let works_there = fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        let named = fs::read(proc.join("cmdline")).is_ok_and(|it| is_of(&it));
        !is_dead && (works_there || named) && *pid != std::process::id().cast_signed()
    };
    pids.filter(belongs).collect()
}
