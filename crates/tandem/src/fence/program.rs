//! Talks to a program that is run beside an instance: a check, what asks it to end, a hook.
//! In: a `StartSpec`, whose lease says nothing here, and a limit. Out: how it ended.
//! Keeps: H50 past its limit it is killed; H3 it is killed with its daemon. However it ends, it is
//! over only once no process is left that it started, in whatever session.
//! It is started as an instance is, by the stub: its user, its limits, its log and its priority are
//! the instance's, and what waits for a disk is not this process.
//! Not here: what it leaves once it has ended (`watch.rs`), the instance and what needs a lease,
//! whose parent is the keeper.
//! Tested by: `tests/keeper`.

use super::protocol::StartSpec;
use super::stub::{self, Order};
use crate::runtime::process::{self, Process};
use std::io::{self, PipeReader, Read as _};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Killed and still there after this is stuck in the kernel.
const GONE_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Longest reason why it did not run.
const WHY_BYTES_MAX: u64 = 4096;

/// Why a program did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process could be made for it.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Which.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It never became the program.
    #[error("{why}")]
    NotStarted {
        /// Because of this.
        why: String,
    },
    /// It hangs, and was killed.
    #[error("{program} did not end within {limit:?} and was killed")]
    Hangs {
        /// Which.
        program: String,
        /// Its limit.
        limit: Duration,
    },
    /// Nobody waits for it any more, and it was killed.
    #[error("{program} was no longer needed and was killed")]
    Cancelled {
        /// Which.
        program: String,
    },
    /// It ended otherwise than with 0.
    #[error("{program} ended with {status}")]
    Failed {
        /// Which.
        program: String,
        /// How.
        status: ExitStatus,
    },
    /// Killed, and hanging in the kernel all the same.
    #[error("{program} was killed and does not die: processes {pids:?} hang in the kernel")]
    Stuck {
        /// Which.
        program: String,
        /// Their ids.
        pids: Vec<i32>,
    },
}

/// Kills it whole, however this ends.
struct Tree(Option<Process>);

impl Tree {
    /// Whom that was for.
    fn kill(&mut self) -> Vec<Process> {
        let leader = self.0.take().filter(Process::is_still_there);
        leader.map(|leader| process::kill_tree(leader.pid)).unwrap_or_default()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end with the binary `exe`, which has the stub.
///
/// # Errors
/// Why it did not do what it was run for.
pub async fn run(
    exe: &Path,
    spec: &StartSpec,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let Some(program) = spec.argv.first().cloned() else { return Ok(()) };
    let failed = |source| Error::Run { program: program.clone(), source };
    let (mut child, mut why) = start(exe, spec).map_err(failed)?;
    let leader = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(process::read);
    let mut tree = Tree(leader);
    let ended = tokio::select! {
        biased;
        ended = timeout(limit, child.wait()) => ended.map_err(|_| Error::Hangs {
            program: program.clone(),
            limit,
        }),
        () = cancel.cancelled() => Err(Error::Cancelled { program: program.clone() }),
    };
    if ended.is_err() {
        let killed = tree.kill();
        let _ = timeout(GONE_WITHIN, child.wait()).await;
        let pids = until_gone(killed).await;
        if !pids.is_empty() {
            return Err(Error::Stuck { program, pids });
        }
    }
    let status = ended?.map_err(failed)?;
    let why = read(&mut why);
    match status.success() {
        _ if !why.is_empty() => Err(Error::NotStarted { why }),
        true => Ok(()),
        false => Err(Error::Failed { program, status }),
    }
}

/// Waits for processes that were killed; those that do not die.
async fn until_gone(mut killed: Vec<Process>) -> Vec<i32> {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        killed.retain(Process::is_still_alive);
        if killed.is_empty() || Instant::now() > deadline {
            return killed.iter().map(|process| process.pid).collect();
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn start(exe: &Path, spec: &StartSpec) -> io::Result<(Child, PipeReader)> {
    let nice = rustix::process::getpriority_process(None).unwrap_or(0);
    let order = serde_json::to_string(&Order::beside(spec, nice))?;
    let (why, stubs_end) = io::pipe()?;
    rustix::io::ioctl_fionbio(&why, true)?;
    let child = Command::new(exe)
        .arg(stub::SUBCOMMAND)
        .env_clear()
        .env(stub::ORDER, order)
        .stdin(Stdio::from(stubs_end))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((child, why))
}

/// What the stub said; it is gone by now.
fn read(why: &mut PipeReader) -> String {
    let mut text = Vec::new();
    // Fails only where somebody still holds the other end: then nothing more comes.
    let _ = why.take(WHY_BYTES_MAX).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
