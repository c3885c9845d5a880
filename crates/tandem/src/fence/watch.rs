//! Talks to the kernel between a daemon and a program that runs beside an instance: the parent of
//! whatever the program leaves.
//! In: an `Order`, and a pipe as standard input, which the program's stub gets. Out: the exit
//! status of the program, once no process is left of it.
//! States: Runs → (it ended, or the daemon is gone) Sweeps → over.
//! Keeps: H50 what makes a session of its own and forks is still found: the kernel gives orphans to
//! this process. H3 with its daemon it ends, and takes everybody along.
//! Not here: how long the program may take (`program.rs`), what it becomes (`stub.rs`), the keeper,
//! which is more to what needs a lease.
//! Tested by: `tests/keeper`.

use super::stub::{self, Error, Order};
use crate::runtime::process;
use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, raise, sigprocmask};
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, getppid, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, wait,
};
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Between two looks at who is left; doubles, for what hangs in the kernel.
const SWEEP_AGAIN_MIN: Duration = Duration::from_millis(1);
const SWEEP_AGAIN_MAX: Duration = Duration::from_millis(500);

/// This binary, even where an upgrade has put another in its place.
const OWN: &str = "/proc/self/exe";

/// Runs the ordered program until nobody is left of it; the status to end with, if not by its
/// signal.
pub(super) fn run(order: &Order) -> Result<u8, Error> {
    let (program, signals) = begin(order)?;
    let ended = outlast(program, &signals);
    if let Some(code) = ended.and_then(WaitStatus::exit_status) {
        return Ok(u8::try_from(code).unwrap_or(u8::MAX));
    }
    let signal = ended.and_then(WaitStatus::terminating_signal).unwrap_or(Signal::KILL.as_raw());
    Ok(end_by(signal))
}

fn begin(order: &Order) -> Result<(Pid, SigSet), Error> {
    // Away from the daemon's terminal: what is typed there is for the daemon.
    rustix::process::setsid().map_err(|errno| Error::Session(errno.into()))?;
    let tie = |errno: Errno| Error::Tie(errno.into());
    set_child_subreaper(Some(getpid())).map_err(tie)?;
    let all = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    all.map_err(|errno| Error::Tie(errno.into()))?;
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(tie)?;
    // Died before the tie was made: nobody will ever send that signal.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(order.keeper) {
        return Err(Error::KeeperGone);
    }
    let order = serde_json::to_string(&order.unwatched()).map_err(Error::Order)?;
    let child = Command::new(OWN)
        .arg(stub::SUBCOMMAND)
        .env(stub::ORDER, order)
        .stdin(Stdio::inherit())
        .spawn()
        .map_err(|source| Error::Exec { program: OWN.to_owned(), cwd: "/".into(), source })?;
    let program = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // Reaped by `wait` with everybody else: dropping the handle does nothing to the process.
    drop(child);
    let mut signals = SigSet::empty();
    signals.add(NixSignal::SIGCHLD);
    signals.add(NixSignal::SIGTERM);
    let program = program.ok_or_else(|| Error::Tie(io::ErrorKind::InvalidData.into()))?;
    Ok((program, signals))
}

/// Waits until nobody is left; how the program itself ended.
fn outlast(program: Pid, signals: &SigSet) -> Option<WaitStatus> {
    let (mut ended, mut is_over, mut pause) = (None, false, SWEEP_AGAIN_MIN);
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if pid == program {
                    (ended, is_over) = (Some(status), true);
                }
            }
            Err(Errno::INTR) => {}
            Err(_no_child) => return ended,
            Ok(None) if is_over => {
                let left = process::stop_family(getpid().as_raw_nonzero().get());
                left.iter().for_each(|process| process.signal(Signal::KILL));
                std::thread::sleep(pause);
                pause = (pause * 2).min(SWEEP_AGAIN_MAX);
            }
            // The daemon is gone, or a child has ended.
            Ok(None) => is_over = signals.wait() == Ok(NixSignal::SIGTERM),
        }
    }
}

/// Ends by that signal, or returns what a shell says of one.
fn end_by(signal: i32) -> u8 {
    // Whatever is to be seen of the program is in its own core.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    if let Ok(signal) = NixSignal::try_from(signal) {
        let _ = raise(signal);
    }
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
