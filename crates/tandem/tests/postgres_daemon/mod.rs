//! A whole node with a real server: the daemon, its keeper, its front door.

mod suspect;

use crate::postgres_cluster::{SHORT, bin_dir, own_folder, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tandem::runtime::process;

const LIMIT: Duration = Duration::from_secs(90);

/// One node; nothing of it is left when it is dropped.
struct Daemon {
    dir: tempfile::TempDir,
    /// Node to node, API, door, instance.
    ports: [u16; 4],
    child: Option<Child>,
    /// Where PostgreSQL's programs are.
    programs: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill_tree(child.id().cast_signed());
            let _ = child.wait();
        }
        let until = Instant::now() + SHORT;
        while !process::kill_in_directory(&self.data()).is_empty() && Instant::now() < until {
            std::thread::yield_now();
        }
    }
}

impl Daemon {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tnode").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // All are held until the last is known, so that no two are the same.
        let held = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = held.map(|listener| listener.local_addr().unwrap().port());
        Self { dir, ports, child: None, programs: bin_dir() }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("theirs")
    }

    fn tandem(&self, command: &str) -> Command {
        let mut tandem = Command::new(env!("CARGO_BIN_EXE_tandem"));
        let config = self.dir.path().join("tandem.toml");
        tandem.arg(command).arg("--config").arg(config).args(["--node", "a", "--dir"]);
        tandem.arg(self.dir.path().join("node")).stdin(Stdio::null());
        tandem
    }

    fn start(&mut self) {
        let [peer, api, door, port] = self.ports;
        let text = format!(
            "cluster = \"shop\"\n[nodes.a]\naddress = \"127.0.0.1:{peer}\"\n\
             api = \"127.0.0.1:{api}\"\n[services.orders]\nkind = \"postgres\"\n\
             clustering = \"active-passive\"\nreplication = \"primary-replica\"\n\
             durability = \"preferred\"\n\
             listen = \"127.0.0.1:{door}\"\nport = {port}\ndata_dir = \"{}\"\n\
             bin_dir = \"{}\"\n[services.orders.postgresql]\nshared_buffers = \"16MB\"\n",
            self.data().display(),
            self.programs.display(),
        );
        fs::write(self.dir.path().join("tandem.toml"), text).unwrap();
        let made = self.tandem("init").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.run();
    }

    fn run(&mut self) {
        let log = fs::File::create(self.log_path()).unwrap();
        let mut node = self.tandem("node");
        node.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(node.spawn().unwrap());
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs SQL through the front door, as the owner's clients do.
    fn sql(&self, sql: &str) -> Option<String> {
        let port = self.ports[2].to_string();
        let mut psql = program("psql");
        psql.args(["-X", "-A", "-t", "-h", "127.0.0.1", "-U", "owner", "-d", "postgres"]);
        let output = psql.args(["-p", &port, "-c", sql]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        output.status.success().then_some(text)
    }

    fn until<T>(&self, what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(seen) = seen() {
                return seen;
            }
            assert!(Instant::now() < until, "not in time: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn postmaster(&self) -> i32 {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }
}

/// A database cluster with a table, of somebody who lets in everybody on this machine.
fn theirs(data: &Path) {
    own_folder(data);
    let run = |mut command: Command| assert!(command.status().unwrap().success());
    let mut initdb = program("initdb");
    initdb.args(["-A", "trust", "-U", "owner", "--no-sync", "-D"]).arg(data);
    initdb.stdout(Stdio::null());
    run(initdb);
    let mut single = program("postgres");
    single.arg("--single").arg("-D").arg(data).arg("postgres").stdout(Stdio::null());
    let sql = data.join("make.sql");
    fs::write(&sql, "CREATE TABLE theirs AS SELECT 42 AS answer\n").unwrap();
    single.stdin(fs::File::open(&sql).unwrap());
    run(single);
    fs::remove_file(sql).unwrap();
}

#[test]
fn data_that_exists_is_adopted_and_served_and_nothing_outlives_a_killed_keeper() {
    let mut node = Daemon::new();
    theirs(&node.data());
    node.start();
    let answer = node.until("it is served", || node.sql("SELECT answer FROM theirs"));
    assert_eq!(answer, "42");
    node.until("it takes writes", || node.sql("INSERT INTO theirs VALUES (43)"));
    assert_eq!(node.sql("SELECT max(term) FROM tandem.history").as_deref(), Some("1"));
    assert!(node.log().contains("the data was adopted"), "{}", node.log());

    // H3: the postmaster hangs and cannot obey when its keeper is killed; its backends go on.
    let postmaster = node.postmaster();
    let old = process::in_directory(&node.data());
    assert!(old.contains(&postmaster) && old.len() >= 5, "{old:?}");
    let keeper = process::read(postmaster).unwrap().parent;
    kill(Pid::from_raw(postmaster), Signal::SIGSTOP).unwrap();
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    node.until("the daemon tells", || node.log().contains("the keeper is gone").then_some(()));
    let left: Vec<i32> = old.into_iter().filter(|pid| process::is_alive(*pid)).collect();
    assert_eq!(left, [0; 0], "nobody may be left when the instance is called gone");
    let answer = node.until("it is served again", || node.sql("SELECT sum(answer) FROM theirs"));
    assert_eq!(answer, "85");
    assert_ne!(node.postmaster(), postmaster);
}
