//! A run directory with a keeper, and the guard that leaves no process behind.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tandem::fence::client::{Keeper, KeeperEvent};
use tandem::fence::protocol::{End, Lease, StartSpec, Status, User, WhenOrphaned};
use tandem::runtime::{clock, process, supervisor::Supervisor};
use tandem_core::time::Timestamp;
use tokio::sync::mpsc;

pub const LIMIT: Duration = Duration::from_secs(60);

pub struct World {
    pub dir: tempfile::TempDir,
    pub supervisor: Supervisor,
    keepers: Vec<i32>,
}

pub struct Attached {
    pub keeper: Keeper,
    pub events: mpsc::Receiver<KeeperEvent>,
    pub status: Status,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("keeper").tempdir().unwrap();
        if let Some(user) = postgres_user() {
            std::os::unix::fs::chown(dir.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        Self { dir, supervisor: Supervisor::new(), keepers: Vec::new() }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("instance.log")
    }

    pub async fn attach(&mut self) -> Attached {
        let exe = Path::new(env!("CARGO_BIN_EXE_tandem"));
        let (keeper, mut events) =
            Keeper::attach_or_spawn(&self.run_dir(), exe, &self.supervisor).await.unwrap();
        let Some(KeeperEvent::Status(status)) = events.recv().await else {
            panic!("the status comes first")
        };
        self.keepers.push(status.keeper);
        Attached { keeper, events, status }
    }

    pub fn spec(&self, argv: &[&str], lease: Lease) -> StartSpec {
        StartSpec {
            argv: argv.iter().map(ToString::to_string).collect(),
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            cwd: self.dir.path().to_owned(),
            user: postgres_user(),
            log_file: self.log(),
            when_orphaned: WhenOrphaned::Quit,
            oom_score_adj: 0,
            lease,
            limits: BTreeMap::new(),
        }
    }

    pub fn shell(&self, script: &str, lease: Lease) -> StartSpec {
        self.spec(&["sh", "-c", script], lease)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            process::kill_tree(*keeper);
        }
        for dir in [self.dir.path().to_owned(), self.dir.path().join("data")] {
            process::kill_in_directory(&dir.canonicalize().unwrap_or(dir));
        }
    }
}

impl Attached {
    pub async fn event(&mut self) -> KeeperEvent {
        tokio::time::timeout(LIMIT, self.events.recv()).await.expect("an event in time").unwrap()
    }

    /// Starts the program; returns its process.
    pub async fn start(&mut self, spec: StartSpec) -> i32 {
        self.keeper.start(spec).await.unwrap();
        match self.event().await {
            KeeperEvent::Started { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    pub async fn exited(&mut self) -> End {
        match self.event().await {
            KeeperEvent::Exited(end) => end,
            other => panic!("{other:?}"),
        }
    }
}

/// Whom instances run as: PostgreSQL refuses root.
pub fn postgres_user() -> Option<User> {
    let root = rustix::process::geteuid().is_root();
    root.then(|| {
        let user = nix::unistd::User::from_name("postgres").unwrap().expect("a user postgres");
        User { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups: Vec::new() }
    })
}

pub fn signal(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

pub fn after(duration: Duration) -> Timestamp {
    clock::now().plus(duration)
}

pub fn lease(millis: u64) -> Lease {
    Lease::Until(after(Duration::from_millis(millis)))
}

/// Waits until it holds; `what` is printed if it does not.
pub async fn until<T: Debug>(what: impl Fn() -> T, holds: impl Fn(&T) -> bool) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        let seen = what();
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < limit, "still {seen:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn until_dead(pids: Vec<i32>) {
    until(|| alive(&pids), Vec::is_empty).await;
}

pub fn alive(pids: &[i32]) -> Vec<i32> {
    pids.iter().copied().filter(|pid| process::is_alive(*pid)).collect()
}

pub async fn until_stopped(pid: i32) {
    until(|| process::read(pid).map(|p| p.state), |state| *state == Some('T')).await;
}
