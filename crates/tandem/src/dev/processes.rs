//! Talks to /proc: which processes belong to a node, and what each of them is.
//! In: the node's folder. Out: `Process`es; signals to them.
//! A process belongs to a node when its arguments name the node's folder and it is one of ours or
//! of PostgreSQL, when it is PostgreSQL working in that folder, or when such a process started it.
//! Nothing is looked up by name alone, so other clusters of the machine are safe.
//! Not here: what a fault consists of (`faults.rs`).
//! Tested by: below, with stand-ins.

use super::Error;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `tandem node`.
    Daemon,
    /// `tandem keeper`.
    Keeper,
    /// The first process of an instance of PostgreSQL.
    Postmaster,
    /// The first process of a command that is a service.
    Command,
    /// Sessions and helpers of PostgreSQL, its programs, and what they start.
    Other,
}

/// One process of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// What it is for.
    pub role: Role,
    /// It does not run until it is told to go on.
    pub stopped: bool,
    /// When it was started, in the kernel's ticks: with it, a number used again is told apart.
    started: u64,
}

impl Process {
    /// Whether this very process is still there.
    pub fn is_alive(&self) -> bool {
        entry(self.pid).is_some_and(|entry| entry.started == self.started && entry.is_alive())
    }
}

/// A line of the process table.
#[derive(Clone, Debug, Default)]
struct Entry {
    pid: i32,
    parent: i32,
    state: char,
    started: u64,
    name: String,
    args: Vec<String>,
    cwd: Option<PathBuf>,
}

impl Entry {
    /// A zombie is dead; only its parent has not noticed.
    const fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// The living processes of the node in `dir`.
pub fn of_node(dir: &Path) -> Vec<Process> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    belonging(&table(), &dir, std::process::id().cast_signed())
}

/// Signals a process; one that is gone already is fine.
///
/// # Errors
/// When the system refuses.
pub fn signal(pid: i32, signal: Signal) -> Result<(), Error> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(source) => Err(Error::Signal { pid, source }),
    }
}

fn table() -> Vec<Entry> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    folder
        .flatten()
        .filter_map(|item| item.file_name().to_str()?.parse().ok())
        .filter_map(entry)
        .filter(Entry::is_alive)
        .collect()
}

fn entry(pid: i32) -> Option<Entry> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name stands in parentheses and may itself hold some.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_string();
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22 of proc(5); the state is field 3.
    let started = fields.nth(17)?.parse().ok()?;
    let args = fs::read(folder.join("cmdline")).ok()?;
    let args = args
        .split(|byte| *byte == 0)
        .filter(|arg| !arg.is_empty())
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect();
    // Needs the same user or the right to trace; the tree of parents covers where that is missing.
    let cwd = fs::read_link(folder.join("cwd")).ok();
    Some(Entry { pid, parent, state, started, name, args, cwd })
}

fn belonging(table: &[Entry], dir: &Path, own_pid: i32) -> Vec<Process> {
    let mut pids: BTreeSet<i32> =
        table.iter().filter(|entry| is_seed(entry, dir)).map(|entry| entry.pid).collect();
    pids.remove(&own_pid);
    loop {
        let children: Vec<i32> = table
            .iter()
            .filter(|entry| entry.pid != own_pid && pids.contains(&entry.parent))
            .map(|entry| entry.pid)
            .filter(|pid| !pids.contains(pid))
            .collect();
        if children.is_empty() {
            break;
        }
        pids.extend(children);
    }
    table
        .iter()
        .filter(|entry| pids.contains(&entry.pid))
        .map(|entry| Process {
            pid: entry.pid,
            role: role(entry, table, dir),
            stopped: matches!(entry.state, 'T' | 't'),
            started: entry.started,
        })
        .collect()
}

fn is_seed(entry: &Entry, dir: &Path) -> bool {
    let named = entry.args.iter().any(|arg| names(arg, dir));
    let works_there = entry.cwd.as_ref().is_some_and(|cwd| cwd.starts_with(dir));
    is_daemon(entry, dir)
        || (is_keeper(entry) && (named || works_there))
        || (is_postgres(entry) && (named || works_there))
}

fn is_daemon(entry: &Entry, dir: &Path) -> bool {
    entry.args.iter().any(|arg| arg == "node")
        && entry.args.windows(2).any(|pair| pair[0] == "--dir" && Path::new(&pair[1]) == dir)
}

fn is_keeper(entry: &Entry) -> bool {
    entry.args.iter().skip(1).any(|arg| arg == "keeper")
}

fn is_postgres(entry: &Entry) -> bool {
    entry.name.starts_with("postgres") || entry.name.starts_with("pg_") || entry.name == "initdb"
}

/// Whether an argument is `dir`, something in it, or holds such a path (`--dir=…`, `host=…
/// user=…`).
fn names(arg: &str, dir: &Path) -> bool {
    arg.split(['=', ' ', '\'', '"', ',']).any(|part| Path::new(part).starts_with(dir))
}

fn role(entry: &Entry, table: &[Entry], dir: &Path) -> Role {
    if is_daemon(entry, dir) {
        return Role::Daemon;
    }
    if is_keeper(entry) {
        return Role::Keeper;
    }
    let parent = table.iter().find(|other| other.pid == entry.parent);
    // A child of PostgreSQL or of one of its programs is a session, a helper, or `postgres
    // --single`.
    if entry.name == "postgres" && !parent.is_some_and(is_postgres) && started_as_server(entry) {
        return Role::Postmaster;
    }
    // PostgreSQL's own programs are started by its keeper too.
    if parent.is_some_and(is_keeper) && !is_postgres(entry) {
        return Role::Command;
    }
    Role::Other
}

/// A backend that lost its postmaster has a title such as `postgres: walwriter`; the others are
/// one-off runs of the same program.
fn started_as_server(entry: &Entry) -> bool {
    entry.args.first().is_some_and(|arg| !arg.starts_with("postgres:"))
        && !entry.args.iter().any(|arg| matches!(arg.as_str(), "--single" | "--boot" | "-C"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pid: i32, parent: i32, name: &str, args: &[&str], cwd: &str) -> Entry {
        Entry {
            pid,
            parent,
            state: 'S',
            started: 1,
            name: name.into(),
            args: args.iter().map(ToString::to_string).collect(),
            cwd: (!cwd.is_empty()).then(|| cwd.into()),
        }
    }

    fn roles(table: &[Entry], dir: &str) -> Vec<(i32, Role)> {
        belonging(table, Path::new(dir), 1).iter().map(|p| (p.pid, p.role)).collect()
    }

    #[test]
    fn the_whole_node_and_nothing_else() {
        let table = [
            line(1, 0, "tandem", &["tandem", "dev", "--root", "/t/x"], "/t"),
            line(2, 1, "tandem", &["tandem", "node", "--node", "a", "--dir", "/t/x/a"], "/"),
            line(3, 1, "tandem", &["tandem", "node", "--node", "b", "--dir", "/t/x/ab"], "/"),
            line(4, 1, "tandem", &["tandem", "keeper", "--dir", "/t/x/a/services/o"], "/"),
            line(5, 4, "postgres", &["/usr/bin/postgres", "-D", "/t/x/a/services/o/data"], ""),
            line(6, 5, "postgres", &["postgres: walwriter "], ""),
            line(7, 1, "postgres", &["postgres: app app 127.0.0.1"], "/t/x/a/services/o/data"),
            line(8, 2, "pg_basebackup", &["pg_basebackup", "-D", "/t/x/a/services/o/data"], ""),
            line(9, 1, "bash", &["bash"], "/t/x/a"),
            line(10, 1, "tail", &["tail", "-f", "/t/x/a/node.log"], "/"),
            line(11, 1, "postgres", &["postgres", "-D", "/t/x/b/data"], "/t/x/b/data"),
            line(12, 2, "postgres", &["postgres", "--single", "-D", "/t/x/a/data"], ""),
            line(13, 1, "tandem", &["tandem", "keeper", "--dir", "/t/x/a/services/j"], "/"),
            line(14, 13, "job", &["/srv/job", "-v"], "/"),
            line(15, 14, "job", &["/srv/job", "-v"], "/"),
        ];
        assert_eq!(
            roles(&table, "/t/x/a"),
            [
                (2, Role::Daemon),
                (4, Role::Keeper),
                (5, Role::Postmaster),
                (6, Role::Other),
                (7, Role::Other),
                (8, Role::Other),
                (12, Role::Other),
                (13, Role::Keeper),
                (14, Role::Command),
                (15, Role::Other),
            ]
        );
    }

    #[test]
    fn paths_in_arguments() {
        let dir = Path::new("/t/a");
        for arg in ["/t/a", "/t/a/x", "--dir=/t/a/x", "host=/t/a/run user=x", "-D/x,/t/a"] {
            assert!(names(arg, dir), "{arg}");
        }
        for arg in ["/t/ab", "/t", "a", "x/t/a"] {
            assert!(!names(arg, dir), "{arg}");
        }
    }

    #[test]
    fn this_very_process_is_in_the_table() {
        let own = std::process::id().cast_signed();
        let table = table();
        let entry = table.iter().find(|entry| entry.pid == own).unwrap();
        assert!(entry.cwd.is_some() && !entry.args.is_empty() && entry.parent > 0);
        let started = entry.started;
        let process = |started| Process { pid: own, role: Role::Other, stopped: false, started };
        assert!(process(started).is_alive() && !process(started + 1).is_alive());
    }
}
