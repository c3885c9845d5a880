//! Talks to the processes of one instance as their parent: starts them, sees them end, kills them.
//! In: `StartSpec`, leases, the time. Out: `Event`s.
//! States: Idle → Starting → Running → Ending → Idle.
//! Keeps: INV-3, H2. PostgreSQL gives every backend a process group of its own, so nothing is
//! killed by group: the keeper is the parent of all orphans, kills whoever descends from it, and
//! says that the instance is gone only when the kernel says that no child is left.
//! Not here: sockets (`clients`), what the child does before its program runs (`stub`).
//! Tested by: `tests/keeper`.

use crate::fence::protocol::{Cause, End, Event, How, Lease, Refusal, Signal, StartSpec, State};
use crate::fence::stub::{self, Order, Session};
use crate::runtime::clock;
use crate::runtime::process::{self, Process};
use rustix::event::PollFd;
use rustix::io::Errno;
use rustix::process::{Pid, Signal as Posix, WaitOptions, WaitStatus, getpid, kill_process, wait};
use std::io::{self, PipeReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tandem_core::time::Timestamp;

/// Between two looks at who is left; doubles for what is stuck: until then every moment counts
/// against the margin after a lease.
const SWEEP_AGAIN_MIN: Duration = Duration::from_millis(5);
const SWEEP_AGAIN_MAX: Duration = Duration::from_millis(500);
/// Killed and still there after this is stuck in the kernel (H28).
const STUCK_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Instance {
    nice: i32,
    run_dir: PathBuf,
    running: Option<Running>,
    last_end: Option<End>,
    /// What an earlier keeper, killed, has left behind.
    left: Option<Left>,
}

struct Left {
    session: Session,
    ending: Ending,
}

struct Running {
    pid: Pid,
    lease: Lease,
    /// Open until the program runs, or says why not.
    report: Option<PipeReader>,
    complaint: Vec<u8>,
    asked: bool,
    /// How and when the first process ended.
    ended: Option<(WaitStatus, Timestamp)>,
    ending: Option<Ending>,
}

struct Ending {
    cause: Cause,
    since: Timestamp,
    sweep_at: Timestamp,
    pause: Duration,
    stuck: Vec<i32>,
}

impl Ending {
    const fn new(cause: Cause, now: Timestamp) -> Self {
        Self { cause, since: now, sweep_at: now, pause: SWEEP_AGAIN_MIN, stuck: Vec::new() }
    }

    /// These were alive and have been killed; tells of those that do not die, when that changes.
    fn note(&mut self, left: &[Process], now: Timestamp) -> Option<Event> {
        self.sweep_at = now.plus(self.pause);
        if now.since(self.since) < STUCK_AFTER {
            return None;
        }
        self.pause = (self.pause * 2).min(SWEEP_AGAIN_MAX);
        let pids: Vec<i32> = left.iter().map(|process| process.pid).collect();
        if pids.is_empty() || pids == self.stuck {
            return None;
        }
        self.stuck.clone_from(&pids);
        Some(Event::Stuck { pids })
    }
}

impl Instance {
    /// Ends first what an earlier keeper of this directory, killed, has left behind (H3).
    pub fn new(nice: i32, run_dir: PathBuf) -> Self {
        let now = clock::now();
        let ending = Ending::new(Cause::ByItself, now);
        let left = Session::noted(&run_dir).map(|session| Left { session, ending });
        let mut it = Self { nice, run_dir, running: None, last_end: None, left };
        // Nobody is to hear of it, where nobody was left.
        if it.left.as_ref().is_some_and(|left| left.session.alive().is_empty()) {
            it.left = None;
        }
        it.sweep_left(now);
        it
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.left.is_none()
    }

    /// One round of killing what an earlier keeper left; its end once nobody is alive.
    fn sweep_left(&mut self, now: Timestamp) -> Option<Event> {
        let left = self.left.as_mut().filter(|left| left.ending.sweep_at <= now)?;
        let alive = left.session.kill();
        if !alive.is_empty() {
            return left.ending.note(&alive, now);
        }
        let how = How::Signal(Posix::KILL.as_raw());
        let (pid, at) = (left.session.leader, left.ending.since);
        let end = End { pid, how, cause: left.ending.cause, at, gone: now };
        self.left = None;
        self.last_end = Some(end.clone());
        Some(Event::Exited(end))
    }

    pub fn state(&self) -> State {
        if let Some(left) = &self.left {
            return State::Ending { pid: left.session.leader, cause: left.ending.cause };
        }
        let Some(running) = &self.running else { return State::Idle };
        let pid = running.pid.as_raw_nonzero().get();
        match (&running.ending, &running.report) {
            (Some(ending), _) => State::Ending { pid, cause: ending.cause },
            (None, Some(_)) => State::Starting { pid },
            (None, None) => State::Running { pid },
        }
    }

    pub fn lease(&self) -> Option<Lease> {
        self.running.as_ref().map(|running| running.lease)
    }

    pub fn last_end(&self) -> Option<End> {
        self.last_end.clone()
    }

    /// What to wake up for, besides children's ends.
    pub fn interest(&self) -> Option<PollFd<'_>> {
        let report = self.running.as_ref()?.report.as_ref()?;
        Some(PollFd::new(report, rustix::event::PollFlags::IN))
    }

    /// When `tick` must be called at the latest.
    pub fn deadline(&self) -> Option<Timestamp> {
        if let Some(left) = &self.left {
            return Some(left.ending.sweep_at);
        }
        let running = self.running.as_ref()?;
        match (&running.ending, running.lease) {
            (Some(ending), _) => Some(ending.sweep_at),
            (None, Lease::Until(until)) => Some(until),
            (None, Lease::Unlimited) => None,
        }
    }

    /// Ends what may not run any more, then takes note of what happened.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(running) = &mut self.running else {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            events.extend(self.sweep_left(now));
            return events;
        };
        running.enforce(now);
        events.extend(running.read_report());
        let anybody_left = running.reap(now);
        if let Some((status, at)) = running.ended {
            // It may have complained just before it ended.
            events.extend(running.read_report());
            // What it left behind must not outlive it: backends of a killed postmaster (H2).
            let cause = if running.asked { Cause::Asked } else { Cause::ByItself };
            if anybody_left {
                running.end(cause, now);
            } else {
                let cause = running.ending.as_ref().map_or(cause, |ending| ending.cause);
                let pid = running.pid.as_raw_nonzero().get();
                let how = how(status, &running.complaint);
                let end = End { pid, how, cause, at, gone: now };
                self.last_end = Some(end.clone());
                self.running = None;
                events.push(Event::Exited(end));
                return events;
            }
        }
        events.extend(running.sweep_if_due(now));
        events
    }

    pub fn start(&mut self, spec: &StartSpec, now: Timestamp) -> Result<(), Refusal> {
        if let Some(running) = &self.running {
            return Err(Refusal::StillRuns { pid: running.pid.as_raw_nonzero().get() });
        }
        if let Some(left) = &self.left {
            return Err(Refusal::StillRuns { pid: left.session.leader });
        }
        if !spec.lease.holds(now) {
            return Err(Refusal::LeasePassed);
        }
        let (pid, report) =
            self.launch(spec).map_err(|error| Refusal::CannotStart { why: error.to_string() })?;
        self.running = Some(Running {
            pid,
            lease: spec.lease,
            report: Some(report),
            complaint: Vec::new(),
            asked: false,
            ended: None,
            ending: None,
        });
        Ok(())
    }

    pub fn renew(&mut self, lease: Lease, now: Timestamp) -> Result<(), Refusal> {
        let running = self.live(now)?;
        running.lease = running.lease.later(lease);
        Ok(())
    }

    pub fn limit(&mut self, until: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let running = self.live(now)?;
        running.lease = Lease::Until(until);
        running.enforce(now);
        Ok(())
    }

    pub fn signal(&mut self, signal: Signal) -> Result<(), Refusal> {
        let state = self.state();
        let Some(running) = &mut self.running else { return Err(Refusal::NothingRuns) };
        let pid = running.pid;
        let posix = match (signal, state) {
            // Before the program runs, a SIGHUP would end it.
            (Signal::Reload, State::Starting { pid }) | (_, State::Ending { pid, .. }) => {
                return Err(Refusal::InBetween { pid });
            }
            (Signal::Reload, _) => Posix::HUP,
            (Signal::Fast, _) => Posix::INT,
            (Signal::Smart, _) => Posix::TERM,
            (Signal::Immediate, _) => Posix::QUIT,
        };
        running.asked |= signal != Signal::Reload;
        // Cannot miss: the first process is not reaped yet, so its id is its own.
        let _ = kill_process(pid, posix);
        Ok(())
    }

    pub fn kill(&mut self, now: Timestamp) -> Result<(), Refusal> {
        if self.left.is_some() {
            // Is being killed as it is.
            return Ok(());
        }
        let running = self.running.as_mut().ok_or(Refusal::NothingRuns)?;
        running.end(Cause::Asked, now);
        Ok(())
    }

    /// The instance, if its lease may still be changed: one that has passed is not renewed.
    fn live(&mut self, now: Timestamp) -> Result<&mut Running, Refusal> {
        let running = self.running.as_mut().ok_or(Refusal::NothingRuns)?;
        running.enforce(now);
        match &running.ending {
            None => Ok(running),
            Some(ending) if ending.cause == Cause::LeaseExpired => Err(Refusal::LeasePassed),
            Some(_) => Err(Refusal::InBetween { pid: running.pid.as_raw_nonzero().get() }),
        }
    }

    /// Starts the stub, which becomes the program. `/proc/self/exe` is this very binary even when
    /// an upgrade has put another in its place.
    fn launch(&self, spec: &StartSpec) -> io::Result<(Pid, PipeReader)> {
        let order = serde_json::to_string(&Order::new(spec, &self.run_dir, self.nice))?;
        let (report, stubs_end) = io::pipe()?;
        rustix::io::ioctl_fionbio(&report, true)?;
        let child = Command::new("/proc/self/exe")
            .arg(stub::SUBCOMMAND)
            .env_clear()
            .env(stub::ORDER, order)
            .stdin(Stdio::from(stubs_end))
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // Reaped by `wait` with everybody else: dropping the handle does nothing to the process.
        drop(child);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        Ok((pid, report))
    }
}

impl Running {
    fn enforce(&mut self, now: Timestamp) {
        if !self.lease.holds(now) {
            self.end(Cause::LeaseExpired, now);
        }
    }

    /// Kills everything, again and again until nothing is left; the first cause stays.
    fn end(&mut self, cause: Cause, now: Timestamp) {
        if self.ending.is_none() {
            self.ending = Some(Ending::new(cause, now));
            let _ = self.sweep_if_due(now);
        }
    }

    /// One round of killing; tells of those that do not die, when that changes.
    fn sweep_if_due(&mut self, now: Timestamp) -> Option<Event> {
        let ending = self.ending.as_mut().filter(|ending| ending.sweep_at <= now)?;
        // The first process first: then nobody starts new ones. Its id is its own until reaped.
        if self.ended.is_none() {
            let _ = kill_process(self.pid, Posix::KILL);
        }
        let left = process::stop_family(getpid().as_raw_nonzero().get());
        left.iter().for_each(|process| process.signal(Posix::KILL));
        ending.note(&left, now)
    }

    /// Hears from the stub: its pipe closes when the program runs, or brings the reason why not.
    fn read_report(&mut self) -> Option<Event> {
        let report = self.report.as_mut()?;
        match report.read_to_end(&mut self.complaint) {
            Ok(_) => {
                self.report = None;
                let pid = self.pid.as_raw_nonzero().get();
                self.complaint.is_empty().then_some(Event::Started { pid })
            }
            Err(_would_block) => None,
        }
    }

    /// Takes note of the children that ended, adopted orphans too; false if none is left.
    fn reap(&mut self, now: Timestamp) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => self.ended = Some((status, now)),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return true,
                Err(_no_child) => return false,
            }
        }
    }
}

fn how(status: WaitStatus, complaint: &[u8]) -> How {
    if !complaint.is_empty() {
        return How::NotStarted { why: String::from_utf8_lossy(complaint).into_owned() };
    }
    match status.exit_status() {
        Some(code) => How::Code(code),
        None => How::Signal(status.terminating_signal().unwrap_or_default()),
    }
}
