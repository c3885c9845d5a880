//! Talks to one instance as its parent, and to daemons over a socket: the keeper process.
//! In: commands (`protocol::Command`), the end of the instance, the time. Out: `protocol::Event`,
//! SIGKILL.
//! States: Idle → Starting → Running → Ending → Idle; exits from Idle only.
//! Keeps: INV-3 no provable lease, no writes; INV-12 no provable lease, no copy of a command. H2
//! the whole instance is killed, not asked. H3 the instance ends with its keeper. H4 the lease is
//! on CLOCK_BOOTTIME and is looked at first after every wake, be it from a suspend or a SIGSTOP.
//! H28 after its start the keeper touches no disk: no file, no log, no page that is not in memory.
//! H5 it never starts an instance by itself.
//! Signals other than SIGKILL and SIGSTOP do nothing: SIGTERM, SIGINT and SIGHUP reach a keeper
//! only because it was in the way of something else (a service stopped with all its processes, a
//! closed terminal), and ending it would end the instance. It goes when its daemon releases it, or
//! by itself when nothing runs and nobody asked for 30 s.
//! Not here: until when the lease holds (`tandem_core::cluster::lease`).
//! Tested by: `tests/keeper`.

mod clients;
mod instance;
mod shield;

use crate::fence::protocol::{Answer, Command, Event, Message, Refusal, State, Status, decode};
use crate::runtime::clock;
use clients::Clients;
use instance::Instance;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem_core::time::Timestamp;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "keeper";

/// How long a keeper without an instance waits for a daemon.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run directory.
    #[error("cannot use the run directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others could put their own socket in place of ours.
    #[error("the run directory {path} can be written by others; make it mode 0700")]
    TooOpen {
        /// Which.
        path: PathBuf,
    },
    /// One per run directory.
    #[error("another keeper serves {path}")]
    Taken {
        /// Which.
        path: PathBuf,
    },
    /// The socket.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something that every Linux has, refused.
    #[error("the system refuses a {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// Runs a keeper in `dir` until it is released. Must be entered first thing by a process of its
/// own with one thread: the instance's tie to its keeper is a tie to the thread that starts it,
/// and descriptors that were inherited are closed.
pub fn run(dir: &Path) -> Result<(), Error> {
    shield::close_inherited();
    let mut clients = Clients::listen(dir)?;
    let shield = shield::raise()?;
    let timer =
        timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(|errno| Error::System { what: "timer", source: errno.into() })?;
    let mut instance = Instance::new(shield.nice, clients.run_dir().to_owned());
    let mut idle_since = Some(clock::now());
    loop {
        // H4: whatever woke us, and however late, the lease comes before any message.
        tick(&mut instance, &mut clients);
        let released = serve(&mut instance, &mut clients);
        tick(&mut instance, &mut clients);
        let idle = instance.is_idle();
        idle_since = if idle && clients.is_empty() {
            Some(idle_since.unwrap_or_else(clock::now))
        } else {
            None
        };
        let give_up = idle_since.map(|since| since.plus(IDLE_MAX));
        if idle && (released || give_up.is_some_and(|at| at <= clock::now())) {
            clients.close();
            return Ok(());
        }
        arm(&timer, earliest(instance.deadline(), give_up));
        wait(
            &shield.child_ended,
            &timer,
            instance.interest().into_iter().chain(clients.interest()),
        );
    }
}

fn tick(instance: &mut Instance, clients: &mut Clients) {
    for event in instance.tick(clock::now()) {
        clients.broadcast(&Message::Event(event));
    }
}

/// Obeys what clients have sent; true if one of them released the keeper. Who knocked in between is
/// told what is so after that: a daemon that gave up a connection and comes again, and hears that
/// nothing runs, must not find that a start which it had sent before is obeyed then (INV-12).
fn serve(instance: &mut Instance, clients: &mut Clients) -> bool {
    clients.accept();
    let mut released = false;
    for (client, line) in clients.read() {
        let (id, result) = match decode(&line) {
            Ok(message) => {
                released |= message.command == Command::Release && instance.is_idle();
                (message.id, obey(message.command, instance))
            }
            Err((id, refusal)) => (id, Err(refusal)),
        };
        let malformed = result == Err(Refusal::Malformed);
        let answer = result.unwrap_or_else(Answer::Refused);
        clients.send(client, &Message::Answer { id, answer });
        if malformed {
            clients.drop_one(client);
        }
    }
    clients.greet(&Message::Event(Event::Status(status(instance))));
    clients.flush();
    released
}

fn obey(command: Command, instance: &mut Instance) -> Result<Answer, Refusal> {
    let now = clock::now();
    match command {
        Command::Start(spec) => instance.start(&spec, now)?,
        Command::Renew { lease } => instance.renew(lease, now)?,
        Command::Limit { until } => instance.limit(until, now)?,
        Command::Signal { signal } => instance.signal(signal)?,
        Command::Kill => instance.kill(now)?,
        Command::Status => return Ok(Answer::Status(status(instance))),
        Command::Release => match instance.state() {
            State::Idle => {}
            State::Starting { pid } | State::Running { pid } | State::Ending { pid, .. } => {
                return Err(Refusal::StillRuns { pid });
            }
        },
    }
    Ok(Answer::Done)
}

fn status(instance: &Instance) -> Status {
    Status {
        keeper: rustix::process::getpid().as_raw_nonzero().get(),
        state: instance.state(),
        lease: instance.lease(),
        last_end: instance.last_end(),
    }
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// Sets the timer, which also takes back an old firing.
///
/// poll's own timeout counts CLOCK_MONOTONIC, which stands still during a suspend: the lease would
/// be looked at too late (H4). The timer is on CLOCK_BOOTTIME and fires at the resume.
fn arm(timer: &OwnedFd, deadline: Option<Timestamp>) {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let at = deadline.map_or(zero, |at| Timespec {
        tv_sec: i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX),
        // All zero would disarm it: a moment long past fires at once all the same.
        tv_nsec: i64::try_from(at.0 % 1_000_000 * 1000).unwrap_or(0).max(1),
    });
    let spec = Itimerspec { it_interval: zero, it_value: at };
    // Fails for a broken specification only, which this is not; `wait` wakes up by itself too.
    let _ = timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &spec);
}

/// Sleeps until a socket or the start pipe has something, a child ended, or the timer fires.
fn wait<'a>(
    child_ended: &'a SignalFd,
    timer: &'a OwnedFd,
    others: impl Iterator<Item = PollFd<'a>>,
) {
    const AT_MOST: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut fds: Vec<PollFd<'_>> = [child_ended.as_fd(), timer.as_fd()]
        .into_iter()
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .chain(others)
        .collect();
    // Interrupted or failed, the loop looks at everything again.
    let _ = poll(&mut fds, Some(&AT_MOST));
    while let Ok(Some(_)) = child_ended.read_signal() {}
}
