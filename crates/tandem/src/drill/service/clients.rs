//! Talks to the front doors as applications do: clients that keep their connections, number their
//! requests, and note what they were told.
//! In: doors. Out: `History`.
//! Three of four requests may be repeated (GET): one that fails is sure to be a failure, whether it
//! was worked on or not. The fourth may not (POST): if no answer comes, its outcome is unknown.
//! Nobody sends a request twice here: what is there twice in the end was sent twice by a door.
//! Not here: what the history proves (`judge.rs`).
//! Tested by: below.

use crate::drill::evidence::history::{Attempt, History, Outcome};
use crate::drill::evidence::workload::Load;
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tandem_core::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a client waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Before the doors are tried from the beginning.
const DOORS_CLOSED: Duration = Duration::from_millis(20);
const STOP_MAX: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 32;

/// Whether a request of that number may be repeated.
pub const fn may_be_repeated(seq: i64) -> bool {
    seq % 4 != 0
}

/// The name of a request.
pub fn request_id(run: &str, client: usize, seq: i64) -> String {
    format!("{run}.{client}.{seq}")
}

/// Running clients.
#[derive(Debug)]
pub struct Clients {
    log: Arc<Log>,
    tasks: Supervisor,
}

#[derive(Debug)]
struct Log {
    clients: Vec<Mutex<Vec<Attempt>>>,
    closed_doors: Vec<AtomicU64>,
    acked: AtomicU64,
    last_acked: AtomicU64,
}

impl Clients {
    /// Starts them, each at another door.
    pub fn start(load: &Load, doors: &[SocketAddr], run: &str) -> Self {
        let log = Arc::new(Log {
            clients: (0..load.writers).map(|_| Mutex::default()).collect(),
            closed_doors: (0..load.writers).map(|_| AtomicU64::new(0)).collect(),
            acked: AtomicU64::new(0),
            last_acked: AtomicU64::new(0),
        });
        let tasks = Supervisor::new();
        for number in 0..load.writers {
            let client = Client {
                number,
                run: run.into(),
                doors: doors.into(),
                pace: load.pace,
                log: Arc::clone(&log),
                stop: tasks.stopping(),
                seq: 0,
            };
            tasks.spawn("drill client", TaskKind::Session, client.work());
        }
        Self { log, tasks }
    }

    /// How many requests were answered so far.
    pub fn acked(&self) -> u64 {
        self.log.acked.load(Ordering::Relaxed)
    }

    /// When the last one was.
    pub fn last_acked(&self) -> Timestamp {
        Timestamp(self.log.last_acked.load(Ordering::Relaxed))
    }

    /// Ends the clients, and hands over what they saw.
    pub async fn stop(self) -> History {
        self.tasks.stop(STOP_MAX).await;
        let attempts = |client: &Mutex<Vec<Attempt>>| -> Vec<Attempt> {
            client.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        let closed = self.log.closed_doors.iter();
        History {
            writers: self.log.clients.iter().map(attempts).collect(),
            closed_doors: closed.map(|count| count.load(Ordering::Relaxed)).collect(),
        }
    }
}

impl Drop for Clients {
    /// A run that is given up ends its load too.
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

struct Client {
    number: usize,
    run: String,
    doors: Vec<SocketAddr>,
    pace: Duration,
    log: Arc<Log>,
    stop: CancellationToken,
    seq: i64,
}

impl Client {
    async fn work(mut self) {
        let mut failed = 0;
        let mut door = self.number;
        while !self.stop.is_cancelled() {
            let address = self.doors.get(door % self.doors.len().max(1)).copied();
            let Some(address) = address else { return };
            if let Some(http) = Http::connect(address).await {
                failed = 0;
                self.use_up(http).await;
            } else {
                failed += 1;
                if failed % self.doors.len().max(1) == 0 {
                    if let Some(closed) = self.log.closed_doors.get(self.number) {
                        closed.fetch_add(1, Ordering::Relaxed);
                    }
                    self.pause(DOORS_CLOSED).await;
                }
            }
            door += 1;
        }
    }

    /// Asks until the connection is of no more use.
    async fn use_up(&mut self, mut http: Http) {
        while !self.stop.is_cancelled() {
            if http.is_ended() {
                // Closed in order while nobody asked: nothing was sent, and nothing failed.
                return;
            }
            self.seq += 1;
            let id = request_id(&self.run, self.number, self.seq);
            let repeatable = may_be_repeated(self.seq);
            let method = if repeatable { "GET" } else { "POST" };
            self.note_sent();
            let answer = timeout(ANSWER_MAX, http.ask(method, &format!("/r/{id}"))).await;
            let answer = answer.ok().flatten();
            let right = |it: &Answer| it.status == 200 && it.body.trim_end().ends_with(&id);
            let outcome = match &answer {
                Some(answer) if right(answer) => Outcome::Acked,
                _ if repeatable => Outcome::Refused,
                _ => Outcome::Unknown,
            };
            self.note_ended(outcome);
            if answer.is_none_or(|answer| answer.closes) {
                return;
            }
            self.pause(self.pace).await;
        }
    }

    fn note_sent(&self) {
        let sent = clock::now();
        let attempt = Attempt { seq: self.seq, sent, ended: sent, outcome: Outcome::Pending };
        if let Some(log) = self.log.clients.get(self.number) {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
        }
    }

    fn note_ended(&self, outcome: Outcome) {
        let ended = clock::now();
        if let Some(log) = self.log.clients.get(self.number)
            && let Some(attempt) = log.lock().unwrap_or_else(PoisonError::into_inner).last_mut()
        {
            attempt.ended = ended;
            attempt.outcome = outcome;
        }
        if outcome == Outcome::Acked {
            self.log.acked.fetch_add(1, Ordering::Relaxed);
            self.log.last_acked.fetch_max(ended.0, Ordering::Relaxed);
        }
    }

    async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of its first line.
    pub status: u16,
    /// What follows the head.
    pub body: String,
    /// The connection is of no more use.
    pub closes: bool,
}

/// One connection that is kept, for one request after the other.
#[derive(Debug)]
pub struct Http {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Http {
    /// Connects; none if nobody takes it.
    pub async fn connect(address: SocketAddr) -> Option<Self> {
        let stream = timeout(CONNECT_MAX, TcpStream::connect(address)).await.ok()?.ok()?;
        let _ = stream.set_nodelay(true);
        Some(Self { stream, unread: Vec::new() })
    }

    /// Whether the other side has closed it, or said something that nobody asked for.
    pub fn is_ended(&self) -> bool {
        let looked = self.stream.try_read(&mut [0]);
        !matches!(looked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends a request without a body; none if no whole answer comes.
    pub async fn ask(&mut self, method: &str, path: &str) -> Option<Answer> {
        let length = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: drill\r\n{length}\r\n");
        self.stream.write_all(request.as_bytes()).await.ok()?;
        loop {
            if let Some(answer) = self.answer()? {
                return Some(answer);
            }
            if self.unread.len() > HEAD_BYTES_MAX {
                return None;
            }
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// The answer in what was read: none for nonsense, none inside for one that is not whole yet.
    fn answer(&mut self) -> Option<Option<Answer>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let Ok(parsed) = response.parse(&self.unread) else { return None };
        let httparse::Status::Complete(head) = parsed else { return Some(None) };
        let status = response.code?;
        let field = |name: &str| {
            let found = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name));
            found.and_then(|it| std::str::from_utf8(it.value).ok())
        };
        let length: usize = field("content-length").map_or(Some(0), |it| it.parse().ok())?;
        let closes = field("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        let end = head.checked_add(length)?;
        let Some(body) = self.unread.get(head..end) else { return Some(None) };
        let body = String::from_utf8_lossy(body).into_owned();
        self.unread.drain(..end);
        Some(Some(Answer { status, body, closes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::testing::until;
    use crate::drill::worker::{Ledger, read, serve};
    use tokio::net::TcpListener;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_clients_were_told_is_in_the_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let tasks = Supervisor::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ledger = Arc::new(Ledger::open(&path, "x", 1).unwrap());
        tasks.spawn("server", TaskKind::Session, serve(listener, ledger, tasks.clone()));
        // The first door is closed: clients have to go on to the next.
        let doors = ["127.0.0.1:1".parse().unwrap(), address];
        let load = Load { writers: 3, pace: Duration::from_millis(1) };
        let clients = Clients::start(&load, &doors, "r1");
        until("answers flow", || clients.acked() > 100).await;
        let mut http = Http::connect(address).await.unwrap();
        assert_eq!(http.ask("GET", "/drill/lie").await.unwrap().status, 200);
        let lied = || {
            clients.log.clients.iter().any(|it| {
                it.lock().unwrap().iter().any(|attempt| attempt.outcome == Outcome::Refused)
            })
        };
        until("somebody is told 500", lied).await;
        http.ask("POST", "/drill/well").await.unwrap();
        assert!(!http.is_ended());
        let acked = clients.acked();
        until("answers flow again", || clients.acked() > acked + 50).await;
        let history = clients.stop().await;
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert!(
            history
                .attempts()
                .all(|(_, it)| { may_be_repeated(it.seq) || it.outcome != Outcome::Refused })
        );
        let acked = history.count(Outcome::Acked) as usize;
        let lines = read(&path, 0).unwrap().0;
        assert!(lines.len() >= acked, "{} lines for {acked} answers", lines.len());
    }
}
