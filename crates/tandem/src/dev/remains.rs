//! Talks to what is left of a cluster: ends its processes and removes its folder, whatever
//! happened. Runs in a destructor, so also after a panic; therefore blocking, bounded, and without
//! errors.
//! Order: daemons first, so that nobody restarts anything; then PostgreSQL by its immediate
//! shutdown, which gives shared memory back; then whatever is still there.
//! Tested by: below, with stand-ins; `cluster.rs`.

use super::disk::Disk;
use super::folders::Root;
use super::processes::{self, Process, Role};
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// PostgreSQL's immediate shutdown takes milliseconds unless its disk hangs.
const IMMEDIATE_MAX: Duration = Duration::from_secs(3);
/// SIGKILL waits for nobody; this is for processes that are stuck in the kernel.
const KILL_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// What must be gone in the end.
#[derive(Debug)]
pub struct Remains {
    root: Root,
    nodes: Vec<PathBuf>,
    disks: Vec<Disk>,
    made: Vec<PathBuf>,
    keep: bool,
    cleared: bool,
}

impl Remains {
    /// Answers for a folder; `keep` leaves the files.
    pub fn of(root: Root, keep: bool) -> Self {
        let (nodes, disks, made) = (Vec::new(), Vec::new(), Vec::new());
        Self { root, nodes, disks, made, keep, cleared: false }
    }

    /// Answers for nothing.
    pub fn nothing() -> Self {
        let root = Root { path: PathBuf::new(), made: false };
        let mut remains = Self::of(root, false);
        remains.cleared = true;
        remains
    }

    /// Answers for a node's folder and processes too.
    pub fn add_node(&mut self, dir: PathBuf) {
        self.made.push(dir.clone());
        self.nodes.push(dir);
    }

    /// Answers for a disk too.
    pub fn add_disk(&mut self, disk: Disk) {
        self.disks.push(disk);
    }

    /// Answers for a file too.
    pub fn add_file(&mut self, path: PathBuf) {
        self.made.push(path);
    }

    /// Ends and removes everything; again does nothing.
    pub fn clear(&mut self) {
        if std::mem::replace(&mut self.cleared, true) {
            return;
        }
        // What a daemon started is recognised by its parent, so it has to be noted before.
        let before: Vec<Process> = self.processes().collect();
        self.signal(Signal::SIGKILL, |process| process.role == Role::Daemon);
        self.signal(Signal::SIGCONT, |process| process.stopped && process.role != Role::Daemon);
        self.signal(Signal::SIGQUIT, |process| process.role == Role::Postmaster);
        self.wait_until(IMMEDIATE_MAX, |process| process.role != Role::Postmaster);
        let deadline = Instant::now() + KILL_MAX;
        // Twice clean: a process may have been starting another during the first look.
        let mut clean_looks = 0;
        while clean_looks < 2 && Instant::now() < deadline {
            let mut found = self.signal(Signal::SIGKILL, |_| true);
            for process in before.iter().filter(|process| process.is_alive()) {
                let _ = processes::signal(process.pid, Signal::SIGKILL);
                found += 1;
            }
            clean_looks = if found == 0 { clean_looks + 1 } else { 0 };
            std::thread::sleep(POLL);
        }
        self.disks.clear();
        if self.keep {
            return;
        }
        for path in &self.made {
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        if self.root.made {
            let _ = fs::remove_dir_all(&self.root.path);
        }
    }

    fn processes(&self) -> impl Iterator<Item = Process> {
        self.nodes.iter().flat_map(|dir| processes::of_node(dir))
    }

    fn signal(&self, signal: Signal, which: impl Fn(&Process) -> bool) -> usize {
        let pids: Vec<i32> =
            self.processes().filter(|process| which(process)).map(|process| process.pid).collect();
        for pid in &pids {
            let _ = processes::signal(*pid, signal);
        }
        pids.len()
    }

    fn wait_until(&self, limit: Duration, done: impl Fn(&Process) -> bool) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && !self.processes().all(|process| done(&process)) {
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn ends_its_own_and_nobody_elses_processes() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root { path: folder.path().join("x"), made: true };
        let mut sleepers = ["a", "b"].map(|node| {
            let dir = root.path.join(node);
            fs::create_dir_all(&dir).unwrap();
            let dir = fs::canonicalize(dir).unwrap();
            let child = Command::new("/bin/sh")
                .args(["-c", "sleep 1000; true", "sh", "node", "--dir"])
                .arg(&dir)
                .stdin(Stdio::null())
                .spawn()
                .unwrap();
            (dir, child)
        });
        // A shell that is killed before its child is noticed would leave that behind.
        let deadline = Instant::now() + KILL_MAX;
        while sleepers.iter().any(|(dir, _)| processes::of_node(dir).len() < 2) {
            assert!(Instant::now() < deadline, "the stand-ins did not start");
        }
        let mut remains = Remains::of(Root { path: root.path.clone(), made: false }, false);
        remains.add_node(sleepers[0].0.clone());
        remains.clear();
        assert!(sleepers[0].1.wait().unwrap().code().is_none(), "killed");
        assert!(!sleepers[0].0.exists() && sleepers[1].0.exists());
        assert!(sleepers[1].1.try_wait().unwrap().is_none(), "the other cluster runs on");
        let mut other = Remains::of(root, false);
        other.add_node(sleepers[1].0.clone());
        drop(other);
        assert!(sleepers[1].1.wait().unwrap().code().is_none());
        assert!(!folder.path().join("x").exists(), "a folder that was made here goes");
        assert!(processes::of_node(&sleepers[1].0).is_empty(), "children too");
    }
}
