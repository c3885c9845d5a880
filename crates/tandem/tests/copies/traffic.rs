//! Clients that ask without a pause, each on a connection that it keeps as long as it can, and what
//! they were told.

use crate::app::Who;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(25);
const CLIENTS: usize = 4;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// What may be sent twice.
    Gets,
    /// Also what may not.
    All,
    /// The same, each on a connection of its own.
    Singly,
}

#[derive(Debug, Default)]
struct Told {
    by: BTreeMap<Who, u64>,
    wrong: Vec<String>,
}

pub struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    told: Arc<Mutex<Told>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    #[allow(clippy::disallowed_methods, reason = "a test has no supervisor")]
    pub fn start(doors: &[SocketAddr], asks: Asks) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let told = Arc::new(Mutex::new(Told::default()));
        let client = |(door, number): (SocketAddr, usize)| {
            let (stop, done, told) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&told));
            let posts = asks != Asks::Gets && number % 2 == 1;
            tokio::spawn(async move {
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(&mut connection, door, posts).await;
                    if asks == Asks::Singly {
                        connection = None;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    let mut told = told.lock().unwrap();
                    match answer {
                        Ok(who) => *told.by.entry(who).or_default() += 1,
                        Err(why) => told.wrong.push(format!("{door} post {posts}: {why}")),
                    }
                }
            })
        };
        let all = doors.iter().flat_map(|door| (0..CLIENTS).map(|number| (*door, number)));
        let tasks = all.map(client).collect();
        Self { stop, done, told, tasks }
    }

    /// Goes on until so many more were answered, one way or the other.
    pub async fn more(&self, count: u64) {
        let (until, limit) = (self.done.load(Ordering::Relaxed) + count, Instant::now() + LIMIT);
        while self.done.load(Ordering::Relaxed) < until {
            assert!(Instant::now() < limit, "{:?}", self.told.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Goes on until copies of so many nodes have answered.
    pub async fn heard_of(&self, nodes: usize) {
        self.heard(|by| by.keys().map(|who| &who.node).collect::<BTreeSet<_>>().len() >= nodes)
            .await;
    }

    /// Goes on until this is true of who has answered, and how often. A copy that failed counts as
    /// slow for a while, so that others are asked first.
    pub async fn heard(&self, is_so: impl Fn(&BTreeMap<Who, u64>) -> bool) {
        let limit = Instant::now() + LIMIT;
        while !is_so(&self.told.lock().unwrap().by) {
            assert!(Instant::now() < limit, "{:?}", self.told.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it: nobody was told anything wrong. Who answered, and how often.
    pub async fn end(self, what: &str) -> BTreeMap<Who, u64> {
        self.more(100).await;
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        let answered: u64 = told.by.values().sum();
        println!("{what}: {answered} answered, {} failed", told.wrong.len());
        assert!(told.wrong.is_empty(), "{what}: {:#?}", told.wrong);
        told.by
    }
}

/// Asks once, on a new connection where the last one was closed in between two requests.
pub async fn ask(
    connection: &mut Option<TcpStream>,
    door: SocketAddr,
    posts: bool,
) -> Result<Who, String> {
    let mut stream = match connection.take() {
        Some(stream) if !is_closed(&stream) => stream,
        Some(_) | None => TcpStream::connect(door).await.map_err(|error| error.to_string())?,
    };
    let request = if posts {
        "POST /work HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nwork"
    } else {
        "GET /work HTTP/1.1\r\nHost: shop\r\n\r\n"
    };
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("send: {error}"))?;
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase();
            let length = length.split("content-length: ").nth(1).and_then(|it| it.lines().next());
            let length: usize = length.and_then(|it| it.parse().ok()).ok_or("no length")?;
            if body.len() >= length {
                if !head.to_lowercase().contains("connection: close") {
                    *connection = Some(stream);
                }
                return Who::parse(body).ok_or(format!("{text:?}"));
            }
        }
        let read = timeout(LIMIT, stream.read_buf(&mut bytes)).await;
        let read = read.map_err(|_| "no answer".to_owned())?;
        let read = read.map_err(|error| format!("{error} after {text:?}"))?;
        if read == 0 {
            return Err(format!("closed after {text:?}"));
        }
    }
}

/// Whether the door has closed it while nothing was asked.
fn is_closed(stream: &TcpStream) -> bool {
    let is_open = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    !stream.try_read(&mut [0]).is_err_and(is_open)
}
