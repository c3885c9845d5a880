//! Talks to the keeper of one instance on the daemon's behalf.
//! In: calls on `Keeper`. Out: `KeeperEvent`s, the first of them the whole status, so that a
//! restarted daemon takes over a running instance.
//! A slow consumer of events (`EVENTS_MAX` behind) loses the connection, not single events: the
//! next `attach` begins with the status again. Too many calls at once are answered `Busy`.
//! Not here: what to do when a keeper is gone (`driver/instance.rs`, `driver/sweep.rs`).
//! Tested by: `tests/keeper`.

use crate::fence::keeper::SUBCOMMAND;
use crate::fence::protocol::{
    Answer, Command, End, Event, FromKeeper, LINE_BYTES_MAX, Lease, Message, Refusal, SOCKET,
    Signal, StartSpec, Status, ToKeeper, VERSION,
};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use futures::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tandem_core::time::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::{Framed, LinesCodec};
use tokio_util::sync::CancellationToken;

/// How long a living keeper takes at most to answer: it never waits for anything.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long a new keeper takes at most to listen, on a machine that is busy.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Between two attempts to reach a new keeper.
const KNOCK_EVERY: Duration = Duration::from_millis(5);
const CALLS_MAX: usize = 64;
const EVENTS_MAX: usize = 64;

/// Why the keeper did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It said no.
    #[error("the keeper refuses: {0}")]
    Refused(#[source] Refusal),
    /// The connection has ended.
    #[error("the connection to the keeper has ended; attach again")]
    Gone,
    /// It is stopped, or the machine does not run it.
    #[error("the keeper did not answer within {ANSWER_WITHIN:?}")]
    NoAnswer,
    /// `CALLS_MAX` are waiting.
    #[error("{CALLS_MAX} calls to the keeper are waiting already")]
    Busy,
    /// The socket exists and cannot be used.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody else's process answers on the socket.
    #[error("{path} belongs to user {uid}, who is not trusted with this instance")]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Not the protocol, or not its version.
    #[error("what answers on {path} does not speak version {VERSION} of the keeper's protocol")]
    Version {
        /// The socket.
        path: PathBuf,
    },
    /// No process could be made of the binary.
    #[error("cannot start a keeper from {exe}: {source}")]
    Spawn {
        /// The binary.
        exe: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It was started and does not listen.
    #[error("the new keeper does not listen on {path}; see {log}")]
    NotReady {
        /// The socket.
        path: PathBuf,
        /// Where it says why.
        log: PathBuf,
    },
}

/// What a keeper tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeeperEvent {
    /// Always the first.
    Status(Status),
    /// The program runs.
    Started {
        /// Its first process.
        pid: i32,
    },
    /// The instance ended and no process of it is left.
    Exited(End),
    /// Killed, and hanging in the kernel all the same.
    Stuck {
        /// Their ids.
        pids: Vec<i32>,
    },
    /// The last one, unless this daemon ends: the connection ended. If the keeper died, its
    /// instance is dying too, and the next keeper, so attach again, ends what is left of its
    /// session. What made a session of its own it cannot recognise, such as PostgreSQL's backends,
    /// which stay if the postmaster was stopped when the keeper was killed:
    /// `runtime::process::kill_in_directory` ends whatever works in the data directory.
    KeeperGone,
}

impl From<Event> for KeeperEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Status(status) => Self::Status(status),
            Event::Started { pid } => Self::Started { pid },
            Event::Exited(end) => Self::Exited(end),
            Event::Stuck { pids } => Self::Stuck { pids },
        }
    }
}

/// A connection to one keeper. Clones share it; dropping it leaves keeper and instance alone.
#[derive(Clone, Debug)]
pub struct Keeper {
    calls: mpsc::Sender<Call>,
}

/// A keeper and what it tells.
pub type Attached = (Keeper, mpsc::Receiver<KeeperEvent>);

#[derive(Debug)]
struct Call {
    command: Command,
    answer: oneshot::Sender<Answer>,
}

/// What is asked of a keeper that does not run.
#[cfg(test)]
pub(crate) struct Asked(mpsc::Receiver<Call>);

#[cfg(test)]
impl Asked {
    /// The next command, answered so; none once nobody is left to ask.
    pub(crate) async fn answer(&mut self, answer: Answer) -> Option<Command> {
        let call = self.0.recv().await?;
        let _ = call.answer.send(answer);
        Some(call.command)
    }
}

#[cfg(test)]
impl Keeper {
    /// Whoever has the other end is the keeper.
    pub(crate) fn for_test() -> (Self, Asked) {
        let (calls, asked) = mpsc::channel(CALLS_MAX);
        (Self { calls }, Asked(asked))
    }
}

type Lines = Framed<UnixStream, LinesCodec>;

impl Keeper {
    /// Connects to the keeper of `run_dir`; makes one from the binary `exe` if there is none. Its
    /// output goes to `keeper.log` beside the run directory.
    pub async fn attach_or_spawn(
        run_dir: &Path,
        exe: &Path,
        supervisor: &Supervisor,
    ) -> Result<Attached, Error> {
        let log = run_dir.parent().unwrap_or(run_dir).join("keeper.log");
        let mut child: Option<tokio::process::Child> = None;
        let knocking = async {
            loop {
                if let Some(attached) = Self::attach(run_dir, supervisor).await? {
                    return Ok(attached);
                }
                // One that gave up may have lost against another that is about to listen, or
                // have met one about to end: another try tells.
                if child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                    child = Some(spawn(run_dir, exe, &log)?);
                }
                tokio::time::sleep(KNOCK_EVERY).await;
            }
        };
        let path = run_dir.join(SOCKET);
        // The handle is dropped, which leaves the keeper alone; the runtime reaps it one day.
        timeout(READY_WITHIN, knocking).await.unwrap_or(Err(Error::NotReady { path, log }))
    }

    /// One that is gone: where none could be started, and another try shall be made.
    pub fn gone() -> Attached {
        let ((calls, _), (_, events)) = (mpsc::channel(1), mpsc::channel(1));
        (Self { calls }, events)
    }

    /// Connects to the keeper of `run_dir`, if there is one.
    pub async fn attach(
        run_dir: &Path,
        supervisor: &Supervisor,
    ) -> Result<Option<Attached>, Error> {
        let path = run_dir.join(SOCKET);
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(Error::Connect { path, source }),
        };
        let peer =
            stream.peer_cred().map_err(|source| Error::Connect { path: path.clone(), source })?;
        if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::Stranger { path, uid: peer.uid() });
        }
        let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
        let greeting = match timeout(ANSWER_WITHIN, lines.next()).await {
            Ok(Some(Ok(line))) => line,
            // About to end: there is none any more.
            Ok(None | Some(Err(_))) => return Ok(None),
            Err(_elapsed) => return Err(Error::NoAnswer),
        };
        let Some(Message::Event(status @ Event::Status(_))) = parse(&greeting) else {
            return Err(Error::Version { path });
        };
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        // Cannot fail: the queue is empty.
        let _ = events.try_send(status.into());
        let link = Link { lines, queue, events, waiting: BTreeMap::new(), last_id: 0 };
        supervisor.spawn("keeper link", TaskKind::Session, link.run(supervisor.stopping()));
        Ok(Some((Self { calls }, receiver)))
    }

    /// Runs an instance; refused while one runs. `Started` or `Exited` tells how it went.
    pub async fn start(&self, spec: StartSpec) -> Result<(), Error> {
        self.call(Command::Start(spec)).await
    }

    /// Lets the instance run until then; never shortens its lease.
    pub async fn renew(&self, until: Timestamp) -> Result<(), Error> {
        self.call(Command::Renew { lease: Lease::Until(until) }).await
    }

    /// Lets the instance run without a lease: a standby.
    pub async fn unlimited(&self) -> Result<(), Error> {
        self.call(Command::Renew { lease: Lease::Unlimited }).await
    }

    /// Ends the lease then, even if it was longer or unlimited: before a promotion (H42).
    pub async fn limit(&self, until: Timestamp) -> Result<(), Error> {
        self.call(Command::Limit { until }).await
    }

    /// Takes the lease back: the instance is killed at once.
    pub async fn revoke(&self) -> Result<(), Error> {
        self.limit(Timestamp(0)).await
    }

    /// Sends a signal to the instance's first process.
    pub async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.call(Command::Signal { signal }).await
    }

    /// Kills the whole instance; `Exited` tells when nothing is left.
    pub async fn kill(&self) -> Result<(), Error> {
        self.call(Command::Kill).await
    }

    /// Ends the keeper; refused while an instance runs.
    pub async fn release(&self) -> Result<(), Error> {
        self.call(Command::Release).await
    }

    /// Asks for the status.
    pub async fn status(&self) -> Result<Status, Error> {
        match self.ask(Command::Status).await? {
            Answer::Status(status) => Ok(status),
            Answer::Refused(refusal) => Err(Error::Refused(refusal)),
            Answer::Done => Err(Error::Refused(Refusal::Malformed)),
        }
    }

    async fn call(&self, command: Command) -> Result<(), Error> {
        match self.ask(command).await? {
            Answer::Done | Answer::Status(_) => Ok(()),
            Answer::Refused(refusal) => Err(Error::Refused(refusal)),
        }
    }

    async fn ask(&self, command: Command) -> Result<Answer, Error> {
        let (answer, answered) = oneshot::channel();
        self.calls.try_send(Call { command, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Gone,
        })?;
        match timeout(ANSWER_WITHIN, answered).await {
            Ok(answer) => answer.map_err(|_link_ended| Error::Gone),
            Err(_elapsed) => Err(Error::NoAnswer),
        }
    }
}

/// Owns the connection.
struct Link {
    lines: Lines,
    queue: mpsc::Receiver<Call>,
    events: mpsc::Sender<KeeperEvent>,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    last_id: u64,
}

impl Link {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let go_on = tokio::select! {
                biased;
                // The daemon ends; the keeper does not.
                () = stop.cancelled() => return,
                line = self.lines.next() => match line {
                    Some(Ok(line)) => self.hear(&line),
                    Some(Err(_)) | None => false,
                },
                call = self.queue.recv() => match call {
                    Some(call) => self.say(call).await,
                    None => false,
                },
            };
            if !go_on {
                break;
            }
        }
        // If the queue is full, its end says the same to the consumer.
        let _ = self.events.try_send(KeeperEvent::KeeperGone);
    }

    fn hear(&mut self, line: &str) -> bool {
        match parse(line) {
            Some(Message::Answer { id, answer }) => {
                if let Some(caller) = self.waiting.remove(&id) {
                    let _ = caller.send(answer);
                }
                true
            }
            Some(Message::Event(event)) => self.events.try_send(event.into()).is_ok(),
            None => false,
        }
    }

    async fn say(&mut self, call: Call) -> bool {
        self.last_id += 1;
        let id = self.last_id;
        let message = ToKeeper { v: VERSION, id, command: call.command };
        let Ok(line) = serde_json::to_string(&message) else { return true };
        if line.len() >= LINE_BYTES_MAX {
            let _ = call.answer.send(Answer::Refused(Refusal::Malformed));
            return true;
        }
        // Callers that gave up waiting.
        self.waiting.retain(|_, caller| !caller.is_closed());
        self.waiting.insert(id, call.answer);
        matches!(timeout(ANSWER_WITHIN, self.lines.send(line)).await, Ok(Ok(())))
    }
}

fn parse(line: &str) -> Option<Message> {
    let message: FromKeeper = serde_json::from_str(line).ok()?;
    (message.v == VERSION).then_some(message.message)
}

fn spawn(run_dir: &Path, exe: &Path, log: &Path) -> Result<tokio::process::Child, Error> {
    let failed = |source| Error::Spawn { exe: exe.to_owned(), source };
    if let Some(parent) = log.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    let out = options.create(true).append(true).mode(0o640).open(log).map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    tokio::process::Command::new(exe)
        .arg(SUBCOMMAND)
        .arg("--dir")
        .arg(run_dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .kill_on_drop(false)
        .spawn()
        .map_err(failed)
}
