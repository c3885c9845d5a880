//! Talks to one `tandem node` process: starts it, and starts it again as systemd would.
//! States: Up → (it ends) waiting 100 ms → Up; Down until told otherwise.
//! Every end is noted. One that nobody announced (`mean`) is a daemon that died by itself: being
//! started again hides that from everything but this.
//! Not here: PostgreSQL and its keeper, which outlive the daemon.
//! Tested by: below, with a stand-in for the program.

use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// As systemd's `RestartSec` default.
const RESTART: Duration = Duration::from_millis(100);
/// A program that cannot even be started is tried less often.
const RESTART_UNSTARTABLE: Duration = Duration::from_secs(1);

/// The exit status of what is refused, after which systemd does not start it again.
const REFUSED: i32 = 3;

/// How to start a daemon.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub exe: PathBuf,
    /// Its arguments.
    pub args: Vec<std::ffi::OsString>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// Whether a daemon shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Started, and started again when it ends.
    Up,
    /// Not started.
    Down,
}

/// How a process of it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    /// None if the system does not say.
    status: Option<ExitStatus>,
    /// Whether that was announced, or it was to end and did so in peace.
    meant: bool,
    /// The last thing that it said: the next one writes to the same log.
    said: String,
}

impl End {
    fn told(end: Option<&Self>) -> String {
        let Some(Self { status, said, .. }) = end else { return "it has not ended".to_owned() };
        let status = status.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        format!("{status}; {said}")
    }
}

/// One supervised daemon.
#[derive(Debug)]
pub struct Daemon {
    wanted: watch::Sender<Wanted>,
    pid: watch::Receiver<Option<i32>>,
    ends: watch::Receiver<Vec<End>>,
    /// Which processes somebody is about to end.
    meant: Meant,
}

type Meant = Arc<Mutex<Vec<i32>>>;

impl Daemon {
    /// Starts supervising until `tasks` stops. The daemon itself is left to `Remains`.
    pub fn start(tasks: &Supervisor, launch: Launch, wanted: Wanted) -> Self {
        let (wanted, watched) = watch::channel(wanted);
        let (pid_out, pid) = watch::channel(None);
        let (ends_out, ends) = watch::channel(Vec::new());
        let meant = Meant::default();
        let (stop, announced) = (tasks.stopping(), Arc::clone(&meant));
        tasks.spawn("daemon of a node", TaskKind::Session, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = supervise(&launch, watched, &announced, (&pid_out, &ends_out)) => {}
            }
        });
        Self { wanted, pid, ends, meant }
    }

    /// Says whether it shall run; does not end one that does.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_replace(wanted);
    }

    /// The number of its process, while there is one.
    pub fn pid(&self) -> Option<i32> {
        *self.pid.borrow()
    }

    /// Announces that a process of it is about to be ended.
    pub fn mean(&self, pid: i32) {
        lock(&self.meant).push(pid);
    }

    /// How often it ended though nobody had announced that, so far.
    pub fn deaths(&self) -> usize {
        self.ends.borrow().iter().filter(|end| !end.meant).count()
    }

    /// How it ended last, and the last thing that it said.
    pub fn last_end(&self) -> String {
        End::told(self.ends.borrow().last())
    }

    /// The same of the last end that nobody had announced.
    pub fn last_death(&self) -> String {
        End::told(self.ends.borrow().iter().rfind(|end| !end.meant))
    }

    /// Whether the last process of it ended in peace; none if none has ended.
    pub fn ended_well(&self) -> Option<bool> {
        let ends = self.ends.borrow();
        Some(ends.last()?.status.is_some_and(is_peaceful))
    }

    /// Waits until a process of it has ended; the last thing that it said.
    pub async fn ended(&self) -> String {
        let mut ends = self.ends.clone();
        let ends = ends.wait_for(|ends| !ends.is_empty()).await;
        ends.ok().and_then(|ends| Some(ends.last()?.said.clone())).unwrap_or_default()
    }

    /// Waits until no process of it runs.
    pub async fn gone(&self) {
        let mut pid = self.pid.clone();
        let _ = pid.wait_for(Option::is_none).await;
    }

    /// Waits until another process than `old` runs.
    pub async fn restarted(&self, old: Option<i32>) {
        let mut pid = self.pid.clone();
        let _ = pid.wait_for(|now| now.is_some() && *now != old).await;
    }
}

/// The last error of a log, as `cli/report.rs` prints it, on one line; else its last line.
fn last_words(log: &str) -> String {
    let last = log.lines().next_back().unwrap_or_default();
    let from = log.rfind("error[TDM").map_or(last, |at| log.get(at..).unwrap_or(last));
    let words: Vec<&str> = from.lines().take(3).map(str::trim).collect();
    match words.join("; ") {
        said if said.is_empty() => "it said nothing".to_owned(),
        said => said,
    }
}

async fn supervise(
    launch: &Launch,
    mut wanted: watch::Receiver<Wanted>,
    meant: &Meant,
    (pid, ends): (&watch::Sender<Option<i32>>, &watch::Sender<Vec<End>>),
) {
    while wanted.wait_for(|now| *now == Wanted::Up).await.is_ok() {
        let mut child = match spawn(launch) {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(exe = %launch.exe.display(), %error, "cannot start a node");
                tokio::time::sleep(RESTART_UNSTARTABLE).await;
                continue;
            }
        };
        let number = child.id().map(u32::cast_signed);
        pid.send_replace(number);
        let status = child.wait().await.ok();
        let was_meant = number.is_some_and(|number| lock(meant).contains(&number));
        // The kernel may use the number again.
        lock(meant).retain(|it| Some(*it) != number);
        let in_peace = status.is_some_and(is_peaceful);
        let meant = was_meant || (in_peace && *wanted.borrow() == Wanted::Down);
        // Before anybody may see that it is gone.
        let said = last_words(&std::fs::read_to_string(&launch.log).unwrap_or_default());
        ends.send_modify(|ends| ends.push(End { status, meant, said }));
        pid.send_replace(None);
        tokio::time::sleep(RESTART).await;
    }
}

/// Asked to, or because it may not run: as one does that was removed from its cluster.
fn is_peaceful(status: ExitStatus) -> bool {
    matches!(status.code(), Some(0 | REFUSED))
}

fn lock(meant: &Meant) -> MutexGuard<'_, Vec<i32>> {
    // Nothing panics while it holds the lock.
    meant.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(launch: &Launch) -> io::Result<Child> {
    let log: File = OpenOptions::new().create(true).append(true).open(&launch.log)?;
    Command::new(&launch.exe)
        .args(&launch.args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Its own group, so that Ctrl-C at our terminal does not reach it.
        .process_group(0)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::super::processes;
    use super::*;
    use nix::sys::signal::Signal;
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn it_is_started_again_unless_it_shall_be_down() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Supervisor::new();
        let launch = Launch {
            exe: "/bin/sh".into(),
            args: ["-c", "echo started; exec sleep 1000"].map(Into::into).into(),
            log: folder.path().join("node.log"),
        };
        let daemon = Daemon::start(&tasks, launch, Wanted::Up);
        timeout(LIMIT, daemon.restarted(None)).await.unwrap();
        let log = || std::fs::read_to_string(folder.path().join("node.log")).unwrap_or_default();
        timeout(LIMIT, async {
            while !log().contains("started\n") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        let first = daemon.pid();
        daemon.mean(first.unwrap());
        processes::signal(first.unwrap(), Signal::SIGKILL).unwrap();
        timeout(LIMIT, daemon.restarted(first)).await.unwrap();
        let second = daemon.pid();
        assert_ne!(first, second);
        assert_eq!(daemon.deaths(), 0, "it was announced");
        daemon.want(Wanted::Down);
        processes::signal(second.unwrap(), Signal::SIGKILL).unwrap();
        timeout(LIMIT, daemon.gone()).await.unwrap();
        assert!(timeout(RESTART * 3, daemon.restarted(second)).await.is_err(), "stays down");
        daemon.want(Wanted::Up);
        timeout(LIMIT, daemon.restarted(second)).await.unwrap();
        assert_eq!(daemon.deaths(), 1, "to be down is not to be killed");
        assert_eq!(daemon.ended_well(), Some(false));
        assert!(daemon.last_end().contains("signal: 9"), "{}", daemon.last_end());
        let third = daemon.pid();
        daemon.mean(third.unwrap());
        processes::signal(third.unwrap(), Signal::SIGTERM).unwrap();
        timeout(LIMIT, daemon.restarted(third)).await.unwrap();
        let ends = (daemon.deaths(), daemon.last_end(), daemon.last_death());
        assert!(ends.0 == 1 && ends.1.contains("signal: 15"), "{ends:?}");
        assert!(ends.2.contains("signal: 9"), "that one nobody had announced: {ends:?}");
        assert!(tasks.stop(LIMIT).await);
        processes::signal(daemon.pid().unwrap(), Signal::SIGKILL).unwrap();
    }
}
