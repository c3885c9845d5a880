//! Talks to the kernel about processes: who descends from whom, who is alive, and ends them.
//! In: process ids. Out: `Process`, lists of ids.
//! Keeps: H28, only `/proc` files that never wait for a disk or for another process's memory are
//! read (`stat`, `children`, the link `cwd`; never `cmdline` or `environ`).
//! Not here: when an instance must end (`fence`).
//! Tested by: below, and `tests/keeper`.

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open,
    pidfd_send_signal, setrlimit,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Lets this process and its children have as many open files as its owner permits: each client of
/// a front door takes two, and the usual 1024 are a limit for programs that use `select`.
pub fn use_all_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// The usual signals that this process ignores, by number; none where the kernel does not say.
pub fn ignored_signals() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=31).filter(|number| mask & (1 << (number - 1)) != 0).collect()
}

/// One process as the kernel saw it. Its id alone is no identity: ids are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// The id of its parent.
    pub parent: i32,
    /// The id of the leader of its session.
    pub session: i32,
    /// The terminal it can be controlled from; 0 for none.
    pub terminal: i32,
    /// The kernel's letter: R, S, D, T, Z and so on.
    pub state: char,
    /// When it started, in clock ticks since boot: with the id, an identity.
    pub started: u64,
}

impl Process {
    /// Whether it can still do anything; a zombie cannot.
    pub const fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Sends a signal, unless the id belongs to another process by now.
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // The descriptor pins the process: what is checked after is what is signalled.
            Ok(fd) if self.is_still_there() => {
                let _ = pidfd_send_signal(&fd, signal);
            }
            Err(Errno::NOSYS | Errno::PERM) if self.is_still_there() => {
                let _ = kill_process(pid, signal);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Whether this very process, and not one with its number, can still do anything.
    pub fn is_still_alive(&self) -> bool {
        read(self.pid).is_some_and(|now| now.started == self.started && now.is_alive())
    }

    /// Whether this very process is there, be it as a zombie.
    pub fn is_still_there(&self) -> bool {
        read(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// The process with this id, if there is one.
pub fn read(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a process has this id and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    read(pid).is_some_and(|process| process.is_alive())
}

/// Every process below `pid`, zombies included, nearest first; without `pid` itself.
pub fn descendants(pid: i32) -> Vec<i32> {
    family(pid).into_iter().map(|process| process.pid).collect()
}

/// As `descendants`, with what is known of each.
pub fn family(pid: i32) -> Vec<Process> {
    // Not every kernel has the `children` files; a scan of all processes costs more, so second.
    let by_parent =
        if Path::new("/proc/self/task").join(own_task()).exists() { None } else { Some(scan()) };
    let mut found: Vec<Process> = Vec::new();
    let mut seen = BTreeSet::from([pid]);
    let mut next = 0;
    let mut current = pid;
    loop {
        let children = match &by_parent {
            Some(by_parent) => by_parent.get(&current).cloned().unwrap_or_default(),
            None => children(current),
        };
        found.extend(children.into_iter().filter_map(read).filter(|child| seen.insert(child.pid)));
        let Some(process) = found.get(next) else { return found };
        current = process.pid;
        next += 1;
    }
}

/// Every process whose current directory is `dir`, such as all of one PostgreSQL: its processes
/// stay in the data directory, even those whose postmaster is gone and who descend from nobody.
pub fn in_directory(dir: &Path) -> Vec<i32> {
    pids().filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|d| d == dir)).collect()
}

/// Kills every process whose current directory is `dir`; returns those that were alive. Only for a
/// directory that belongs to one instance, such as a data directory. What has a terminal is a
/// human's shell: no service has one. A process that dies leaves its directory before it is gone.
pub fn kill_in_directory(dir: &Path) -> Vec<Process> {
    let found: Vec<Process> = in_directory(dir)
        .into_iter()
        .filter_map(read)
        .filter(|process| process.is_alive() && process.terminal == 0)
        .collect();
    found.iter().for_each(|process| process.signal(Signal::KILL));
    found
}

/// Every process of this session: its leader's id is the session's.
pub fn in_session(session: i32) -> Vec<Process> {
    pids().filter_map(read).filter(|process| process.session == session).collect()
}

/// Kills a process and everything below it; returns them. Orphans are found only where they become
/// children of one of these.
pub fn kill_tree(pid: i32) -> Vec<Process> {
    let root = read(pid);
    root.iter().for_each(|process| process.signal(Signal::STOP));
    let held: Vec<Process> = root.into_iter().chain(stop_family(pid)).collect();
    held.iter().for_each(|process| process.signal(Signal::KILL));
    held
}

/// Every process below `pid` that is alive, stopped, so that nobody forks while the list is made.
pub fn stop_family(pid: i32) -> Vec<Process> {
    stop_all(|| family(pid))
}

/// Those of a list that are alive, stopped; the list is made again until nobody new is in it.
pub fn stop_all(list: impl Fn() -> Vec<Process>) -> Vec<Process> {
    const PASSES_MAX: usize = 16;
    let mut held: Vec<Process> = Vec::new();
    for _ in 0..PASSES_MAX {
        let alive = list().into_iter().filter(Process::is_alive);
        let fresh: Vec<Process> = alive.filter(|it| !held.contains_id(it)).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|process| process.signal(Signal::STOP));
        held.extend(fresh);
    }
    held
}

trait ContainsId {
    fn contains_id(&self, process: &Process) -> bool;
}

impl ContainsId for Vec<Process> {
    fn contains_id(&self, process: &Process) -> bool {
        self.iter().any(|held| held.pid == process.pid && held.started == process.started)
    }
}

fn own_task() -> String {
    format!("{}/children", rustix::process::getpid().as_raw_nonzero())
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn scan() -> BTreeMap<i32, Vec<i32>> {
    let mut by_parent: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in pids().filter_map(read) {
        by_parent.entry(process.parent).or_default().push(process.pid);
    }
    by_parent
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<i32>>())
        .collect()
}

/// `stat` is "pid (name) state parent …"; the name may hold spaces and parentheses.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Process {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        terminal: fields.get(4)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_name_with_parentheses_is_read_past() {
        let stat = "7 (a) b) S 3 7 8 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 9 9";
        let expected =
            Process { pid: 7, parent: 3, session: 8, terminal: 0, state: 'S', started: 12345 };
        assert_eq!(parse(7, stat), Some(expected));
        assert_eq!(parse(7, "7 (short) S 3"), None);
    }

    #[test]
    fn a_tree_is_found_and_killed_whole() {
        let mut root = Command::new("sh")
            .args(["-c", "sh -c 'setsid sleep 600 & sleep 600' & wait"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(root.id()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while descendants(pid).len() < 3 {
            assert!(std::time::Instant::now() < deadline, "{:?}", descendants(pid));
            std::thread::yield_now();
        }
        assert!(is_alive(pid));
        let by_scan = scan();
        assert_eq!(by_scan.get(&pid).map(Vec::len), Some(1));
        let killed = kill_tree(pid);
        assert_eq!(killed.len(), 4, "{killed:?}");
        root.wait().unwrap();
        while killed.iter().any(Process::is_still_alive) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_directory_names_its_processes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let mut sleeper = Command::new("sleep").arg("600").current_dir(&path).spawn().unwrap();
        let pid = i32::try_from(sleeper.id()).unwrap();
        assert_eq!(in_directory(&path), [pid]);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(!is_alive(pid));
    }
}
