//! Talks to the front doors as applications do: clients that keep their connections, number their
//! requests, and note what they were told.
//! In: doors. Out: `History`.
//! Three of four requests may be repeated (GET): one that fails is sure to be a failure, whether it
//! was worked on or not. The fourth may not (POST): if no answer comes, its outcome is unknown.
//! Nobody sends a request twice here: what is there twice in the end was sent twice by a door.
//! Not here: what the history proves (`judge.rs`).
//! Tested by: below.

use super::subject::Subject;
use crate::drill::client::{Answer, Http, Idle};
use crate::drill::evidence::attempts::{Log, Pen};
use crate::drill::evidence::history::{History, Outcome};
use crate::drill::evidence::workload::Load;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::time::Timestamp;
use tokio::time::timeout;

/// How long a client waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Before the doors are tried from the beginning.
const DOORS_CLOSED: Duration = Duration::from_millis(20);
/// How many sessions a client has, which it goes on with in turns: odd, so that each has requests
/// of both kinds.
const SESSIONS: i64 = 7;
const STOP_MAX: Duration = Duration::from_secs(10);

/// Whether a request of that number may be repeated.
pub const fn may_be_repeated(seq: i64) -> bool {
    seq % 4 != 0
}

/// The name of a request.
pub fn request_id(run: &str, client: usize, seq: i64) -> String {
    format!("{run}.{client}.{seq}")
}

/// To which of its client's sessions a request of that number belongs.
pub const fn session(seq: i64) -> i64 {
    seq % SESSIONS
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It keeps a connection as long as that is of use; each request is for itself.
    Kept,
    /// A connection for one request. A door of connections cannot tell whether one that is kept is
    /// in use, and cuts it with a copy that is moved once that was waited for.
    Anew,
    /// As `Kept`; each request belongs to one of a few sessions.
    InSessions,
}

impl Manner {
    /// How the clients of a service do.
    pub const fn of(subject: Subject) -> Self {
        match subject {
            Subject::Singleton => Self::Anew,
            Subject::Sessions => Self::InSessions,
            _ => Self::Kept,
        }
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Clients {
    log: Arc<Log>,
    tasks: Supervisor,
}

impl Clients {
    /// Starts them, each at another door.
    pub fn start(load: &Load, doors: &[SocketAddr], run: &str, manner: Manner) -> Self {
        let log = Log::new(load.writers);
        let tasks = Supervisor::new();
        for number in 0..load.writers {
            let client = Client {
                pen: Pen::new(&log, number, tasks.stopping()),
                run: run.into(),
                doors: doors.into(),
                pace: load.pace,
                manner,
                seq: 0,
            };
            tasks.spawn("drill client", TaskKind::Session, client.work());
        }
        Self { log, tasks }
    }

    /// How many requests were answered so far.
    pub fn acked(&self) -> u64 {
        self.log.acked()
    }

    /// When the last one was.
    pub fn last_acked(&self) -> Timestamp {
        self.log.last_acked()
    }

    /// When that was so of the client who waits longest.
    pub fn last_of_all(&self) -> Timestamp {
        self.log.last_of_all()
    }

    /// Ends the clients, and hands over what they saw.
    pub async fn stop(self) -> History {
        self.tasks.stop(STOP_MAX).await;
        self.log.history()
    }
}

impl Drop for Clients {
    /// A run that is given up ends its load too.
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

struct Client {
    pen: Pen,
    run: String,
    doors: Vec<SocketAddr>,
    pace: Duration,
    manner: Manner,
    seq: i64,
}

impl Client {
    async fn work(mut self) {
        let mut failed = 0;
        let mut door = self.pen.number;
        while !self.pen.is_stopped() {
            let address = self.doors.get(door % self.doors.len().max(1)).copied();
            let Some(address) = address else { return };
            if let Some(http) = Http::connect(address).await {
                failed = 0;
                if self.use_up(http).await {
                    continue;
                }
            } else {
                failed += 1;
                self.pen.turned_away();
                if failed % self.doors.len().max(1) == 0 {
                    self.pen.closed_doors();
                    self.pen.pause(DOORS_CLOSED).await;
                }
            }
            door += 1;
        }
    }

    /// Asks until the connection is of no more use; whether its door is, for another one: it is if
    /// it takes connections. Clients that went from door to door would all wait at the one that
    /// leads nowhere before long, and what that costs them would say nothing of the others.
    async fn use_up(&mut self, mut http: Http) -> bool {
        while !self.pen.is_stopped() {
            match http.idle() {
                Idle::Open => {}
                // In order while nobody asked: nothing was sent, and nothing failed.
                Idle::Ended => return false,
                // A request that is sent at this moment breaks off with it.
                Idle::Reset => {
                    self.pen.turned_away();
                    return false;
                }
            }
            self.seq += 1;
            let id = request_id(&self.run, self.pen.number, self.seq);
            let repeatable = may_be_repeated(self.seq);
            let method = if repeatable { "GET" } else { "POST" };
            self.pen.sent(self.seq);
            let path = match self.manner {
                Manner::InSessions => {
                    format!("/r/{}-{}/{id}", self.pen.number, session(self.seq))
                }
                Manner::Kept | Manner::Anew => format!("/r/{id}"),
            };
            let answer = timeout(ANSWER_MAX, http.ask(method, &path)).await;
            let answer = answer.ok().flatten();
            let right = |it: &Answer| it.status == 200 && it.body.trim_end().ends_with(&id);
            let outcome = match &answer {
                Some(answer) if right(answer) => Outcome::Acked,
                _ if repeatable => Outcome::Refused,
                _ => Outcome::Unknown,
            };
            self.pen.ended(outcome);
            let is_over = answer.is_none_or(|answer| answer.closes);
            if is_over || self.manner == Manner::Anew {
                drop(http);
                self.pen.pause(self.pace).await;
                return self.manner == Manner::Anew;
            }
            self.pen.pause(self.pace).await;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::testing::until;
    use crate::drill::worker::{Does, Ledger, Line, read, serve};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn each_session_has_requests_of_both_kinds() {
        let kinds: std::collections::BTreeSet<(i64, bool)> =
            (1..=28).map(|seq| (session(seq), may_be_repeated(seq))).collect();
        let sessions: std::collections::BTreeSet<i64> = kinds.iter().map(|(of, _)| *of).collect();
        assert_eq!(kinds.len(), 2 * sessions.len(), "{kinds:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_clients_were_told_is_in_the_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let tasks = Supervisor::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ledger = Arc::new(Ledger::open(&path, "x", 1).unwrap());
        let serving = serve(listener, ledger, None, tasks.clone());
        tasks.spawn("server", TaskKind::Session, serving);
        // The first door is closed: clients have to go on to the next.
        let doors = ["127.0.0.1:1".parse().unwrap(), address];
        let load = Load { writers: 3, pace: Duration::from_millis(1) };
        let clients = Clients::start(&load, &doors, "r1", Manner::Kept);
        until("answers flow", || clients.acked() > 100).await;
        let mut http = Http::connect(address).await.unwrap();
        assert_eq!(http.ask("GET", "/drill/lie").await.unwrap().status, 200);
        let lied = || clients.log.history().count(Outcome::Refused) > 0;
        until("somebody is told 500", lied).await;
        http.ask("POST", "/drill/well").await.unwrap();
        assert_eq!(http.idle(), Idle::Open);
        let acked = clients.acked();
        until("answers flow again", || clients.acked() > acked + 50).await;
        let history = clients.stop().await;
        assert!(!history.turned_away.is_empty(), "the closed door turns clients away");
        let short = Clients::start(&load, &doors, "r2", Manner::Anew);
        until("answers flow by new connections", || short.acked() > 50).await;
        assert_eq!(short.stop().await.count(Outcome::Refused), 0);
        let in_sessions = Clients::start(&load, &doors, "r3", Manner::InSessions);
        until("answers flow in sessions", || in_sessions.acked() > 50).await;
        let acked = in_sessions.stop().await.count(Outcome::Acked) as usize;
        let of_run = |line: &Line| matches!(&line.does, Does::Request(id) if id.starts_with("r3."));
        let worked = read(&path, 0).unwrap().0.iter().filter(|line| of_run(line)).count();
        assert!(worked >= acked, "what was worked on has the same names");
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_door_that_resets_what_nobody_uses_is_told() {
        let (tasks, doors) = (Supervisor::new(), ["ends", "resets"]);
        let listeners = doors.map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = listeners.each_ref().map(|it| it.local_addr().unwrap());
        for (listener, how) in listeners.into_iter().zip(doors) {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let stop = tasks.stopping();
            tasks.spawn("door", TaskKind::Session, async move {
                let serving = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        answer_once(stream, how == "resets").await;
                    }
                };
                tokio::select! { () = stop.cancelled() => {}, () = serving => {} }
            });
        }
        let load = Load { writers: 1, pace: Duration::from_millis(50) };
        let polite = Clients::start(&load, &addresses[..1], "r1", Manner::Kept);
        until("answers flow", || polite.acked() >= 2).await;
        assert_eq!(polite.stop().await.turned_away, []);
        let rude = Clients::start(&load, &addresses[1..], "r2", Manner::Kept);
        until("answers flow", || rude.acked() >= 2).await;
        assert!(!rude.stop().await.turned_away.is_empty());
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    async fn answer_once(mut stream: tokio::net::TcpStream, resets: bool) {
        let mut asked = [0; 1024];
        let Ok(length) = stream.read(&mut asked).await else { return };
        let text = String::from_utf8_lossy(&asked[..length]);
        let id = text.split(' ').nth(1).unwrap_or_default().trim_start_matches("/r/");
        let length = id.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{id}");
        let _ = stream.write_all(answer.as_bytes()).await;
        if resets {
            // What was answered has to be there before what breaks it off.
            let _ = timeout(Duration::from_millis(20), stream.read(&mut asked)).await;
            let _ = stream.set_zero_linger();
        }
    }
}
