//! Talks to the kernel about the keeper's own process: what must not disturb, delay or end it.
//! Keeps: H28 and memory pressure, its pages stay in memory, the code of the kill path included;
//! H3, it is the last to be killed when memory runs out. What needs a privilege is skipped
//! without it.
//! Tested by: `tests/keeper`.

use super::Error;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Signal, getpid};
use std::io;
use std::os::fd::RawFd;

/// What the loop needs of it.
pub(super) struct Shield {
    /// Readable when a child has ended.
    pub child_ended: SignalFd,
    /// The priority before ours was raised: the instance's.
    pub nice: i32,
}

/// Closes what the daemon's own starter left open: nobody shall wait for the end of a pipe because
/// a keeper or its instance, which outlive the daemon, hold it.
pub(super) fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // One of them was the listing's own and is closed already.
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd);
    }
}

/// Sets this process up as a keeper.
pub(super) fn raise() -> Result<Shield, Error> {
    let system = |what| move |source: io::Error| Error::System { what, source };
    // Away from the daemon's terminal and group. Fails if we lead a group already: just as good.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    // A panic must not wait for a disk to write its message or a core: it ends the keeper, and
    // with it the instance.
    std::panic::set_hook(Box::new(|_| {
        let _ = rustix::process::kill_process(getpid(), Signal::KILL);
    }));
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(io::Error::from)
        .map_err(system("signal mask"))?;
    let mut child = SigSet::empty();
    child.add(NixSignal::SIGCHLD);
    let child_ended = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(io::Error::from)
        .map_err(system("signal descriptor"))?;
    // Orphans of the instance become our children: nothing of it can escape.
    rustix::process::set_child_subreaper(Some(getpid()))
        .map_err(io::Error::from)
        .map_err(system("place as the parent of orphans"))?;
    let nice = rustix::process::getpriority_process(None).unwrap_or(0);
    let _ = rustix::process::setpriority_process(None, -10);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    if may_lock_all_memory() {
        let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE);
    }
    Ok(Shield { child_ended, nice })
}

/// Under a limit, locked memory that cannot grow would end the keeper at its next allocation.
fn may_lock_all_memory() -> bool {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0);
    let unlimited =
        rustix::process::getrlimit(rustix::process::Resource::Memlock).current.is_none();
    unlimited || capabilities & CAP_IPC_LOCK != 0
}
