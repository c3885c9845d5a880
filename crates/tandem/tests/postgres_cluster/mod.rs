//! Real servers for tests of the adapter: started directly, ended and removed whatever happens.

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tandem::service::postgres::{
    Binaries, Error, InstanceConfig, Observation, Observer, Passwords, PeerAddress, Postgres,
    RunAs, StartCommand,
};
use tandem_core::ids::NodeId;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;

pub const SHORT: Duration = Duration::from_secs(20);

/// One node: an adapter, and the postmaster that the keeper would run.
pub struct Node {
    pub postgres: Postgres,
    postmaster: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop(Signal::SIGQUIT);
    }
}

impl Node {
    pub fn start(&mut self, start: &StartCommand) {
        let log = OpenOptions::new().create(true).append(true).open(&start.log_file).unwrap();
        let mut command = Command::new(&start.argv[0]);
        command.args(&start.argv[1..]).env_clear().envs(start.env.clone());
        command.current_dir(&start.cwd).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(RunAs { uid, gid }) = start.run_as {
            command.uid(uid).gid(gid);
        }
        self.postmaster = Some(command.spawn().unwrap());
    }

    /// Runs a program of PostgreSQL as the server's user; the path is the last argument.
    pub fn tool(&self, name: &str, arguments: &[&str], path: &Path) -> bool {
        let mut command = program(name);
        let output = command.args(arguments).arg(path).output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    }

    /// Runs SQL on stopped data, without any of our settings.
    pub fn single_user(&self, sql: &str) {
        let mut command = program("postgres");
        command.arg("--single").arg("-D").arg(self.postgres.data_dir()).arg("postgres");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{sql}").unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Starts data that is not ours yet, as its owner would.
    pub fn run_foreign(&mut self) {
        let data = self.postgres.data_dir();
        std::fs::write(data.join("pg_hba.conf"), "local all all trust\n").unwrap();
        let mut command = program("postgres");
        command.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-p", "5433"]);
        command.arg("-c").arg(format!("unix_socket_directories={}", data.display()));
        self.postmaster = Some(command.stderr(Stdio::null()).spawn().unwrap());
    }

    /// Starts the data as it lies there, as the distribution's unit would.
    pub fn run_unprepared(&mut self) {
        let mut command = program("postgres");
        command.arg("-D").arg(self.postgres.data_dir());
        self.postmaster = Some(command.stderr(Stdio::null()).spawn().unwrap());
    }

    /// Runs SQL there once it answers.
    pub fn foreign_sql(&self, sql: &str) {
        let until = Instant::now() + SHORT;
        let socket = self.postgres.data_dir();
        let arguments = ["-X", "-U", "owner", "-d", "postgres", "-p", "5433", "-c", sql, "-h"];
        while !self.tool("psql", &arguments, &socket) {
            assert!(Instant::now() < until, "not in time: {sql}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let hba = self.postgres.data_dir().join("pg_hba.conf");
        std::fs::write(hba, "host x y 10.0.0.0/8 md5\n").unwrap();
    }

    /// Keeps the data elsewhere from now on.
    pub fn place_data(&mut self, path: &Path) {
        let config = self.postgres.config().clone();
        let config = InstanceConfig { data_dir: Some(path.to_owned()), ..config };
        self.postgres.reconfigure(config).unwrap();
    }

    /// Sends a signal to the postmaster and waits until it is gone.
    pub fn stop(&mut self, signal: Signal) {
        let Some(mut child) = self.postmaster.take() else { return };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let _ = kill(pid, signal);
        let until = Instant::now() + SHORT;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.postmaster.as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    }

    pub async fn start_following(&mut self, upstream: Option<&str>) {
        let upstream = upstream.map(NodeId::from);
        let start = self.postgres.prepare_start(upstream.as_ref()).await.unwrap();
        self.start(&start);
        self.until("it answers", |_| true).await;
    }

    /// Observes until `condition` holds.
    pub async fn until(&self, what: &str, condition: impl Fn(&Observation) -> bool) -> Observation {
        self.until_seen(&mut self.postgres.observer(), what, condition).await
    }

    /// The same through an observer that remembers what it saw before.
    pub async fn until_seen(
        &self,
        observer: &mut Observer,
        what: &str,
        condition: impl Fn(&Observation) -> bool,
    ) -> Observation {
        let until = Instant::now() + SHORT;
        loop {
            let seen = observer.observe(Duration::from_secs(5)).await;
            match &seen {
                Ok(observation) if condition(observation) => return seen.unwrap(),
                Err(Error::Sql { .. } | Error::Answer { .. }) => panic!("{what}: {seen:?}"),
                _ => {}
            }
            let me = &self.postgres.config().me;
            assert!(Instant::now() < until, "{me}: not in time: {what}: {seen:?}{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs SQL as the superuser, as an operator would.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.psql(sql).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs SQL until it says so.
    pub fn until_sql(&self, sql: &str, answer: &str) {
        let until = Instant::now() + SHORT;
        while self.sql(sql) != answer {
            assert!(Instant::now() < until, "not in time: {sql}");
        }
    }

    pub fn psql(&self, sql: &str) -> Command {
        let config = self.postgres.config();
        let mut command = Command::new(config.binaries.tool("psql"));
        command
            .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "tandem", "-d", "postgres"])
            .arg("-h")
            .arg(self.postgres.run_dir())
            .args(["-p", &config.port.to_string(), "-c", sql])
            .env("PGPASSWORD", &config.passwords.superuser);
        command
    }

    pub fn log(&self) -> String {
        let path = self.postgres.config().dir.join("postgres.log");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("\n--- log\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}

/// Whom servers run as: PostgreSQL refuses root.
pub fn server_user() -> Option<RunAs> {
    geteuid().is_root().then(|| {
        let user = User::from_name("postgres").unwrap().unwrap();
        RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw() }
    })
}

/// PostgreSQL's programs, as a node would find them.
pub fn bin_dir() -> PathBuf {
    Binaries::folders().next().unwrap()
}

/// A program of PostgreSQL, run as the server's user.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(bin_dir().join(name));
    command.current_dir("/").stdin(Stdio::null());
    if let Some(RunAs { uid, gid }) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// A folder that the server's user may fill.
pub fn own_folder(path: &Path) {
    std::fs::create_dir_all(path).unwrap();
    if let Some(RunAs { uid, gid }) = server_user() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// Adapters for nodes of these names, in a folder that is removed at the end.
pub async fn nodes(names: &[&str]) -> (tempfile::TempDir, Vec<Node>) {
    let dir = tempfile::Builder::new().prefix("tpg").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binaries = Binaries::find(None).await.unwrap();
    let run_as = server_user();
    // All are held until the last is known, so that no two are the same.
    let ports: Vec<TcpListener> =
        names.iter().map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let peers: BTreeMap<NodeId, PeerAddress> = names
        .iter()
        .zip(&ports)
        .map(|(name, port)| {
            let port = port.local_addr().unwrap().port();
            (NodeId::from(*name), PeerAddress { host: "127.0.0.1".into(), port })
        })
        .collect();
    let members: BTreeSet<NodeId> = peers.keys().cloned().collect();
    let nodes = names
        .iter()
        .map(|name| {
            let me = NodeId::from(*name);
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let config = InstanceConfig {
                cluster: "00c0ffee00c0ffee00c0ffee00c0ffee".into(),
                service: "orders".into(),
                binaries: binaries.clone(),
                dir: folder,
                data_dir: None,
                ballast_bytes: 1 << 20,
                listen: vec![Ipv4Addr::LOCALHOST.into()],
                port: peers[&me].port,
                run_as,
                passwords: Passwords {
                    superuser: "super-secret".into(),
                    replication: "repl:secret\\".into(),
                    app: "app-secret".into(),
                },
                locale: "C.UTF-8".into(),
                user_settings: BTreeMap::from([
                    ("shared_buffers".into(), "16MB".into()),
                    ("wal_keep_size".into(), "64MB".into()),
                ]),
                hba_extra: Vec::new(),
                peers: peers.clone(),
                members: members.clone(),
                me,
            };
            Node { postgres: Postgres::new(config).unwrap(), postmaster: None }
        })
        .collect();
    (dir, nodes)
}

pub fn rule(primary: &str, standbys: &[&str], acks: usize) -> CommitRule {
    let standbys = standbys.iter().map(|name| NodeId::from(*name)).collect();
    CommitRule { primary: primary.into(), standbys, acks }
}

/// Prints how long a step took.
pub async fn timed<T>(step: &str, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = work.await;
    println!("{step}: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    result
}
