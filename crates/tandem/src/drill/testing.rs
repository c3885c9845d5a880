//! Talks to a plain PostgreSQL for the drill's own tests: one server, role and database `app`.

use crate::service::postgres::Binaries;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a condition, with a limit.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One server; gone when dropped.
pub struct Postgres {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Postgres {
    pub const PASSWORD: &str = "drill";

    /// Makes and starts a server.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        own(folder.path());
        let mut postgres = Self { folder, port, child: None };
        let data = postgres.data();
        let made = program("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "app", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        postgres.run();
        let created = program("createdb")
            .args(["-h", "127.0.0.1", "-U", "app", "-p", &port.to_string(), "app"])
            .status()
            .unwrap();
        assert!(created.success());
        postgres
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it, and waits until it answers.
    pub fn run(&mut self) {
        let data = self.data();
        let child = program("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-p")
            .arg(self.port.to_string())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.folder.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + LIMIT;
        let ready = || {
            program("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .unwrap()
                .success()
        };
        while !ready() {
            assert!(Instant::now() < deadline, "PostgreSQL did not start");
        }
    }

    /// Runs a statement.
    pub fn sql(&self, statement: &str) {
        let done = program("psql")
            .args(["-q", "-h", "127.0.0.1", "-U", "app", "-p", &self.port.to_string(), "-c"])
            .args([statement, "app"])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        // Immediate shutdown: as sudden as a kill for clients, and shared memory is given back.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
        let _ = child.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of PostgreSQL, run as user `postgres` where we are root.
fn program(name: &str) -> Command {
    let mut command = Command::new(bin_dir().join(name));
    command.current_dir("/");
    if let Some(user) = user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// PostgreSQL's programs, as a node would find them.
fn bin_dir() -> PathBuf {
    Binaries::folders().next().expect("PostgreSQL is installed")
}

/// What `server_version` begins with.
pub fn version_prefix() -> String {
    let output = program("postgres").arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let number = text.strip_prefix("postgres (PostgreSQL) ").unwrap();
    number.chars().take_while(char::is_ascii_digit).collect()
}

fn user() -> Option<nix::unistd::User> {
    let root = nix::unistd::geteuid().is_root();
    root.then(|| nix::unistd::User::from_name("postgres").unwrap().unwrap())
}

fn own(path: &Path) {
    if let Some(user) = user() {
        nix::unistd::chown(path, Some(user.uid), Some(user.gid)).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
}
