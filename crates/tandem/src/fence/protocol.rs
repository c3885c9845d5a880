//! Talks between daemon and keeper: one JSON object per line over a unix socket.
//! In / Out: `ToKeeper`, `FromKeeper`; a line is at most `LINE_BYTES_MAX`.
//! Keeps: H46, every message has a version; what is not understood is refused, never guessed. A
//! keeper outlives upgrades of its daemon, so a newer daemon must go on speaking version 1.
//! Tested by: below, and `tests/keeper`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use tandem_core::time::Timestamp;

/// The version of every message.
pub const VERSION: u16 = 1;
/// Longest line, in both directions.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// The socket's name in the run directory.
pub const SOCKET: &str = "keeper.sock";

/// Until when an instance may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lease {
    /// As long as it likes: a standby, which takes no writes.
    Unlimited,
    /// Gone by this moment of this machine's CLOCK_BOOTTIME (H4).
    Until(Timestamp),
}

impl Lease {
    /// Whether the instance may still run.
    pub fn holds(self, now: Timestamp) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Until(until) => now < until,
        }
    }

    /// Whichever ends later.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::Until(a), Self::Until(b)) => Self::Until(a.max(b)),
            (Self::Unlimited, _) | (_, Self::Unlimited) => Self::Unlimited,
        }
    }
}

/// The user an instance runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// What the kernel sends an instance's first process if its keeper is killed (H3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenOrphaned {
    /// SIGQUIT: PostgreSQL then ends its working backends too, which SIGKILL would leave alone.
    Quit,
    /// SIGKILL: for programs that might not obey anything else.
    Kill,
}

/// What the kernel limits for an instance (`setrlimit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Open files.
    Nofile,
    /// Bytes of a core file.
    Core,
    /// Processes of the user.
    Nproc,
    /// Bytes locked in memory.
    Memlock,
    /// Bytes of address space of each process.
    AddressSpace,
    /// Bytes of a file that it writes.
    Fsize,
}

/// What to run, and until when.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Whom to become, if the keeper is root; else the keeper's own user.
    pub user: Option<User>,
    /// Standard output and error are appended to this file.
    pub log_file: PathBuf,
    /// What ends it if the keeper is killed.
    pub when_orphaned: WhenOrphaned,
    /// The kernel's inclination to kill it when memory runs out, -1000 to 1000; best effort.
    pub oom_score_adj: i16,
    /// Until when it may run at first.
    pub lease: Lease,
    /// Resource limits, soft and hard alike. A keeper of before they were there ignores them: they
    /// take effect with the next one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<Limit, u64>,
}

impl fmt::Debug for StartSpec {
    /// Values of the environment may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartSpec")
            .field("argv", &self.argv)
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("log_file", &self.log_file)
            .field("when_orphaned", &self.when_orphaned)
            .field("oom_score_adj", &self.oom_score_adj)
            .field("lease", &self.lease)
            .field("limits", &self.limits)
            .finish()
    }
}

/// A signal to the instance's first process, in PostgreSQL's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// SIGINT: end the sessions, write a checkpoint, stop.
    Fast,
    /// SIGTERM: wait for the sessions, then stop; for other commands, the usual way to end.
    Smart,
    /// SIGQUIT: stop without a checkpoint.
    Immediate,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// What the daemon may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Run this; refused while anything runs.
    Start(StartSpec),
    /// Move the lease forward; an earlier end than the present one changes nothing.
    Renew {
        /// The new lease.
        lease: Lease,
    },
    /// Set the end of the lease, sooner than it was if need be: an unlimited one ends too. Armed
    /// before a promotion (H42). A moment in the past ends the instance at once.
    Limit {
        /// When the instance must be gone.
        until: Timestamp,
    },
    /// Send a signal to the first process.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// Kill everything now.
    Kill,
    /// Answer with the status.
    Status,
    /// End the keeper; refused while anything runs.
    Release,
}

/// Why a command was not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// One instance per keeper.
    #[error("process {pid} still runs")]
    StillRuns {
        /// Its first process.
        pid: i32,
    },
    /// There is no instance to act on.
    #[error("nothing runs")]
    NothingRuns,
    /// The instance is not a running program yet, or is being ended.
    #[error("process {pid} is just starting or ending")]
    InBetween {
        /// Its first process.
        pid: i32,
    },
    /// The lease had passed; the instance is being killed.
    #[error("the lease has passed")]
    LeasePassed,
    /// The system did not let the keeper create the process.
    #[error("cannot create a process: {why}")]
    CannotStart {
        /// The system's words.
        why: String,
    },
    /// The message has a version that this keeper does not speak.
    #[error("this keeper speaks version {keeper} of the protocol")]
    Version {
        /// What it speaks.
        keeper: u16,
    },
    /// Not a message at all; the connection is closed.
    #[error("not a message of the protocol")]
    Malformed,
}

/// Where an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing runs.
    Idle,
    /// The process exists, its program does not run yet.
    Starting {
        /// Its first process.
        pid: i32,
    },
    /// The program runs.
    Running {
        /// Its first process.
        pid: i32,
    },
    /// Being killed, or what it left behind is.
    Ending {
        /// Its first process.
        pid: i32,
        /// Why.
        cause: Cause,
    },
}

/// Why an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nobody here asked for it.
    ByItself,
    /// Its lease passed and the keeper killed it.
    LeaseExpired,
    /// The daemon asked for it: a stop signal or a kill.
    Asked,
}

/// How its first process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// The program never ran.
    NotStarted {
        /// Because of this.
        why: String,
    },
}

/// The end of an instance: no process of it is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its first process.
    pub pid: i32,
    /// How that ended.
    pub how: How,
    /// Why.
    pub cause: Cause,
    /// When its first process ended, on CLOCK_BOOTTIME.
    pub at: Timestamp,
    /// When the last of its processes was gone.
    pub gone: Timestamp,
}

impl End {
    /// Whether it ended in good order.
    pub fn is_clean(&self) -> bool {
        self.how == How::Code(0)
    }
}

/// Everything a daemon needs to take over a running instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The keeper's process.
    pub keeper: i32,
    /// Where the instance is.
    pub state: State,
    /// Its lease, while there is one.
    pub lease: Option<Lease>,
    /// How the last instance ended.
    pub last_end: Option<End>,
}

/// What happened, told to every client at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first message on every connection.
    Status(Status),
    /// The program runs.
    Started {
        /// Its first process.
        pid: i32,
    },
    /// The instance ended and no process of it is left.
    Exited(End),
    /// These have been killed and do not die: they hang in the kernel. The keeper goes on trying.
    Stuck {
        /// Their ids.
        pids: Vec<i32>,
    },
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// To `Command::Status`.
    Status(Status),
    /// Not done.
    Refused(Refusal),
}

/// One line to the keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToKeeper {
    /// `VERSION`.
    pub v: u16,
    /// Comes back with the answer.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// One line from the keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FromKeeper {
    /// `VERSION`.
    pub v: u16,
    /// What it says.
    pub message: Message,
}

/// What a keeper says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// To one client.
    Answer {
        /// Of the command.
        id: u64,
        /// What became of it.
        answer: Answer,
    },
    /// To all.
    Event(Event),
}

/// A line from a daemon; or the id to refuse it under, and why.
pub fn decode(line: &[u8]) -> Result<ToKeeper, (u64, Refusal)> {
    #[derive(Deserialize)]
    struct Envelope {
        v: u16,
        id: u64,
    }
    let envelope: Envelope =
        serde_json::from_slice(line).map_err(|_malformed| (0, Refusal::Malformed))?;
    if envelope.v != VERSION {
        return Err((envelope.id, Refusal::Version { keeper: VERSION }));
    }
    serde_json::from_slice(line).map_err(|_malformed| (envelope.id, Refusal::Malformed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused_under_its_own_id() {
        let other = br#"{"v":9,"id":4,"command":{"dance":{}}}"#;
        assert_eq!(decode(other).unwrap_err(), (4, Refusal::Version { keeper: 1 }));
        let unknown = br#"{"v":1,"id":5,"command":{"dance":{}}}"#;
        assert_eq!(decode(unknown).unwrap_err(), (5, Refusal::Malformed));
        assert_eq!(decode(b"\xff\x00 garbage").unwrap_err(), (0, Refusal::Malformed));
        assert!(decode(br#"{"v":1,"id":6,"command":"kill"}"#).is_ok());
    }

    #[test]
    fn a_lease_only_moves_forward_when_renewed() {
        let (early, late) = (Lease::Until(Timestamp(5)), Lease::Until(Timestamp(9)));
        assert_eq!(late.later(early), late);
        assert_eq!(early.later(late), late);
        assert_eq!(Lease::Unlimited.later(late), Lease::Unlimited);
        assert!(!early.holds(Timestamp(5)) && early.holds(Timestamp(4)));
    }

    #[test]
    fn secrets_in_the_environment_stay_out_of_logs() {
        let spec = StartSpec {
            argv: vec!["x".into()],
            env: BTreeMap::from([("PGPASSWORD".into(), "hunter2".into())]),
            cwd: "/".into(),
            user: None,
            log_file: "/dev/null".into(),
            when_orphaned: WhenOrphaned::Quit,
            oom_score_adj: 0,
            lease: Lease::Unlimited,
            limits: BTreeMap::new(),
        };
        assert!(!serde_json::to_string(&spec).unwrap().contains("limits"), "as before they were");
        let text = format!("{spec:?}");
        assert!(text.contains("PGPASSWORD") && !text.contains("hunter2"), "{text}");
    }
}
