//! Talks to the kernel between the keeper and the instance: becomes the instance's user, ties its
//! life to the keeper's, then becomes its program (`tandem keeper-exec`).
//! In: an `Order` as JSON in the environment, and a pipe as standard input. Out: on success
//! nothing, the pipe closes with the exec; on failure the error's text on the pipe.
//! Keeps: H3, the kernel ends the instance (PostgreSQL: immediate shutdown) when the keeper is
//! killed. Tied after the change of user, which would undo it, and by a keeper with a
//! single thread, because the tie is to the thread that forked.
//! Not here: what the keeper itself ends (`keeper`).
//! Tested by: `tests/keeper`.

use crate::fence::protocol::{Limit, StartSpec, User, WhenOrphaned};
use crate::fence::watch;
use crate::runtime::process::{self, Process};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Gid, Uid};
use rustix::fs::{Access, Mode, OFlags};
use rustix::process::{Resource, Rlimit, Signal, getpid, getppid, setrlimit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use tandem_core::time::Timestamp;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "keeper-exec";
/// Where its order is. Among its arguments, the words of a program that it watches would be found
/// by that program: `pgrep -f NAME` as a check would always succeed.
pub const ORDER: &str = "TANDEM_KEEPER_ORDER";
/// In the run directory: which session the last instance has.
const NOTE: &str = "instance.session";
/// As a shell's of what cannot be run.
const NOTHING_RAN: u8 = 126;

/// What the keeper tells the stub, whose own environment is empty but for this: what a program is
/// to be given, `LD_PRELOAD` say, shall not be obeyed by what is not its user yet.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    pub(super) keeper: i32,
    /// Whatever it leaves is ended, by a process in between.
    is_watched: bool,
    /// Where its session is noted, if it is an instance.
    run_dir: Option<PathBuf>,
    nice: i32,
    oom_score_adj: i16,
    when_orphaned: WhenOrphaned,
    user: Option<User>,
    cwd: PathBuf,
    log_file: PathBuf,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    limits: BTreeMap<Limit, u64>,
}

impl fmt::Debug for Order {
    /// Values of the environment may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("argv", &self.argv).finish_non_exhaustive()
    }
}

impl Order {
    /// The order for `spec`, given by this process, the keeper of `run_dir`; `nice` is the priority
    /// to go back to.
    pub fn new(spec: &StartSpec, run_dir: &Path, nice: i32) -> Self {
        let run_dir = Some(run_dir.to_owned());
        Self { run_dir, is_watched: false, ..Self::beside(spec, nice) }
    }

    /// The same, given by the process in between, which is this one.
    pub(super) fn unwatched(&self) -> Self {
        let keeper = getpid().as_raw_nonzero().get();
        Self { keeper, is_watched: false, ..self.clone() }
    }

    /// The order for a program beside an instance, given by this process, its parent.
    pub fn beside(spec: &StartSpec, nice: i32) -> Self {
        Self {
            keeper: getpid().as_raw_nonzero().get(),
            is_watched: true,
            run_dir: None,
            nice,
            oom_score_adj: spec.oom_score_adj,
            when_orphaned: spec.when_orphaned,
            user: spec.user.clone(),
            cwd: spec.cwd.clone(),
            log_file: spec.log_file.clone(),
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            limits: spec.limits.clone(),
        }
    }
}

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Called by somebody else than a keeper.
    #[error("only a keeper starts this: the order is not readable")]
    Order(#[source] serde_json::Error),
    /// The order names no program.
    #[error("no program was given")]
    NoProgram,
    /// Without the note a later keeper could not end what is left of this instance.
    #[error("cannot note the session in {path}: {source}")]
    Note {
        /// The note.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The log cannot be written.
    #[error("cannot append to {path}: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Not allowed to be that user.
    #[error("cannot become user {uid}: {source}")]
    User {
        /// Its id.
        uid: u32,
        /// The system's reason.
        source: nix::Error,
    },
    /// It has no way into its working folder.
    #[error(
        "user {uid} cannot enter {}, on the way to its working folder; let others enter it \
         (chmod o+x), or set cwd", folder.display()
    )]
    Closed {
        /// Which one is closed to it.
        folder: PathBuf,
        /// The user.
        uid: u32,
    },
    /// More than its keeper may give.
    #[error("cannot limit {limit:?} to {value}: {source}")]
    Limit {
        /// Which limit.
        limit: Limit,
        /// The value that was asked for.
        value: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The tie to the keeper.
    #[error("cannot tie the process to its keeper: {0}")]
    Tie(#[source] io::Error),
    /// A session of its own.
    #[error("cannot make a session: {0}")]
    Session(#[source] io::Error),
    /// Died while the process was made.
    #[error("the keeper is gone")]
    KeeperGone,
    /// There is no such program, or it may not be run.
    #[error("cannot run {program} in {}: {source}", cwd.display())]
    Exec {
        /// What was to be run.
        program: String,
        /// Where.
        cwd: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Becomes the ordered program, or runs one to its end that is watched; the status to end with. It
/// was told to the keeper if nothing ran.
pub fn run() -> ExitCode {
    let order = std::env::var(ORDER).unwrap_or_default();
    // Closed by the exec: what the keeper takes for "the program runs".
    let mut pipe = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(pipe) => File::from(pipe),
        Err(_nobody_to_tell) => return ExitCode::from(NOTHING_RAN),
    };
    match serde_json::from_str(&order).map_err(Error::Order).and_then(|order| carry_out(&order)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = write!(pipe, "{error}");
            ExitCode::from(NOTHING_RAN)
        }
    }
}

fn carry_out(order: &Order) -> Result<u8, Error> {
    if order.is_watched { watch::run(order) } else { Err(become_program(order)) }
}

fn become_program(order: &Order) -> Error {
    match prepare(order) {
        Ok(mut command) => {
            let source = command.exec();
            let program = order.argv.first().cloned().unwrap_or_default();
            Error::Exec { program, cwd: order.cwd.clone(), source }
        }
        Err(error) => error,
    }
}

fn prepare(order: &Order) -> Result<Command, Error> {
    let (program, arguments) = order.argv.split_first().ok_or(Error::NoProgram)?;
    let me = lead_session()?;
    if let Some(run_dir) = &order.run_dir {
        record_session(run_dir, me)?;
    }
    // The keeper's own privileges are not the instance's. Before the change of user, after which
    // both may be forbidden.
    let _ = std::fs::write("/proc/self/oom_score_adj", order.oom_score_adj.to_string());
    let _ = rustix::process::setpriority_process(None, order.nice);
    let (out, err) = open_log(order)?;
    // Before the change of user as well: only root may raise one.
    limit(&order.limits)?;
    if let Some(user) = &order.user {
        become_user(user).map_err(|source| Error::User { uid: user.uid, source })?;
        enter(&order.cwd, user.uid)?;
    }
    let last_word = match order.when_orphaned {
        WhenOrphaned::Quit => Signal::QUIT,
        WhenOrphaned::Kill => Signal::KILL,
    };
    rustix::process::set_parent_process_death_signal(Some(last_word))
        .map_err(|errno| Error::Tie(errno.into()))?;
    // Died before the tie was made: nobody will ever send that signal.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(order.keeper) {
        return Err(Error::KeeperGone);
    }
    // The keeper blocks every signal; what came meanwhile takes effect here.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|errno| Error::Tie(errno.into()))?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&order.cwd).env_clear().envs(&order.env);
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    Ok(command)
}

fn limit(limits: &BTreeMap<Limit, u64>) -> Result<(), Error> {
    for (limit, value) in limits {
        let resource = match limit {
            Limit::Nofile => Resource::Nofile,
            Limit::Core => Resource::Core,
            Limit::Nproc => Resource::Nproc,
            Limit::Memlock => Resource::Memlock,
            Limit::AddressSpace => Resource::As,
            Limit::Fsize => Resource::Fsize,
        };
        let both = Rlimit { current: Some(*value), maximum: Some(*value) };
        setrlimit(resource, both).map_err(|errno| Error::Limit {
            limit: *limit,
            value: *value,
            source: errno.into(),
        })?;
    }
    Ok(())
}

/// Makes a session of its own: an orphan keeps its session, while its parent says nothing any more.
fn lead_session() -> Result<Process, Error> {
    rustix::process::setsid().map_err(|errno| Error::Session(errno.into()))?;
    let me = process::read(getpid().as_raw_nonzero().get());
    me.ok_or_else(|| Error::Session(ErrorKind::NotFound.into()))
}

/// Notes which session it is. Written here, because the keeper touches no disk (H28).
fn record_session(run_dir: &Path, me: Process) -> Result<(), Error> {
    let path = run_dir.join(NOTE);
    let failed = |source| Error::Note { path: path.clone(), source };
    let note = format!("{} {} {}\n", boot_id().map_err(failed)?, me.session, me.started);
    // A new file, so that what stands in its place already is not written through.
    let _ = std::fs::remove_file(&path);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(note.as_bytes()).map_err(failed)
}

/// The session of the instance that was started last in a run directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number, which is its leader's.
    pub leader: i32,
    /// When its leader started.
    pub started: u64,
}

impl Session {
    /// The one that was noted, unless it is of before a reboot.
    pub fn noted(run_dir: &Path) -> Option<Self> {
        let path = run_dir.join(NOTE);
        // The directory may belong to the instance's user, who shall not make root kill others.
        let is_mine = std::fs::symlink_metadata(&path)
            .is_ok_and(|note| note.is_file() && note.uid() == rustix::process::geteuid().as_raw());
        let note = std::fs::read_to_string(&path).ok().filter(|_| is_mine)?;
        let fields: Vec<&str> = note.split_whitespace().collect();
        let [noted_boot, session, started] = fields.as_slice() else { return None };
        let (leader, started) = (session.parse().ok()?, started.parse().ok()?);
        let is_ours = boot_id().is_ok_and(|boot| boot == *noted_boot) && leader > 1;
        is_ours.then_some(Self { leader, started })
    }

    /// The same, unless it began after that moment: then it is another one's.
    pub fn noted_before(run_dir: &Path, at: Timestamp) -> Option<Self> {
        let second = rustix::param::clock_ticks_per_second().max(1);
        let began = |it: &Self| Timestamp(it.started.saturating_mul(1_000_000) / second);
        Self::noted(run_dir).filter(|it| began(it) <= at)
    }

    /// Who is left of it and alive. Not found are those that made a session of their own, as
    /// PostgreSQL's backends do.
    pub fn alive(self) -> Vec<Process> {
        // The number means another session if its leader is a younger process.
        if process::read(self.leader).is_some_and(|now| now.started != self.started) {
            return Vec::new();
        }
        let all = process::in_session(self.leader).into_iter();
        all.filter(|it| it.started >= self.started && it.is_alive()).collect()
    }

    /// Kills whoever is left of it; who that was. Stopped first, so that nobody forks meanwhile.
    pub fn kill(self) -> Vec<Process> {
        let held = process::stop_all(|| self.alive());
        held.iter().for_each(|process| process.signal(Signal::KILL));
        held
    }
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Opened as the keeper's user, so never through a link that the instance's user could have put
/// in its place.
fn open_log(order: &Order) -> Result<(File, File), Error> {
    let failed = |source| Error::Log { path: order.log_file.clone(), source };
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW;
    let out = rustix::fs::open(&order.log_file, flags | OFlags::CLOEXEC, Mode::from(0o640))
        .map(File::from)
        .map_err(|errno| failed(errno.into()))?;
    let err = out.try_clone().map_err(failed)?;
    Ok((out, err))
}

/// A folder on the way that is closed to the user is a common mistake, and the exec would only say
/// "permission denied", as if of the program.
fn enter(cwd: &Path, uid: u32) -> Result<(), Error> {
    let mut way: Vec<&Path> = cwd.ancestors().collect();
    way.reverse();
    let is_closed = |folder: &&Path| {
        rustix::fs::access(*folder, Access::EXEC_OK) == Err(rustix::io::Errno::ACCESS)
    };
    match way.into_iter().find(is_closed) {
        Some(folder) => Err(Error::Closed { folder: folder.to_owned(), uid }),
        None => Ok(()),
    }
}

fn become_user(user: &User) -> Result<(), nix::Error> {
    // A plain user is who it is, and may not even set its groups again.
    if !Uid::effective().is_root() && Uid::effective().as_raw() == user.uid {
        return Ok(());
    }
    let mut groups = vec![Gid::from_raw(user.gid)];
    groups.extend(user.groups.iter().filter(|gid| **gid != user.gid).map(|g| Gid::from_raw(*g)));
    nix::unistd::setgroups(&groups)?;
    nix::unistd::setgid(Gid::from_raw(user.gid))?;
    nix::unistd::setuid(Uid::from_raw(user.uid))
}
