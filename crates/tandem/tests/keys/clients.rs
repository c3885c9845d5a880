//! Clients that ask without a pause, by many keys, and what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);
const CLIENTS: usize = 4;
/// Enough that each partition has some.
const KEYS: u64 = 60;

#[derive(Debug, Default)]
struct Told {
    /// The node that answered last, by partition.
    by: BTreeMap<u64, String>,
    answered: u64,
    wrong: Vec<String>,
}

/// Clients of some doors.
pub struct Clients {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    told: Arc<Mutex<Told>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Everybody's requests have names of their own.
static NAMES: AtomicU64 = AtomicU64::new(0);

impl Clients {
    #[allow(clippy::disallowed_methods, reason = "a test has no supervisor")]
    pub fn start(doors: &[SocketAddr]) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let told = Arc::new(Mutex::new(Told::default()));
        let client = |door: SocketAddr| {
            let (stop, done, told) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&told));
            tokio::spawn(async move {
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let name = NAMES.fetch_add(1, Ordering::Relaxed);
                    let answer = ask(&mut connection, door, name).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    let mut told = told.lock().unwrap();
                    match answer {
                        Ok((node, partition)) => {
                            told.answered += 1;
                            told.by.insert(partition, node);
                        }
                        Err(why) => told.wrong.push(format!("{name} at {door}: {why}")),
                    }
                }
            })
        };
        let all = doors.iter().flat_map(|door| [*door; CLIENTS]);
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

    /// Goes on until these nodes, and no others, answer for the partitions.
    pub async fn answered_by(&self, nodes: &[&str]) {
        let limit = Instant::now() + LIMIT;
        let wanted: BTreeSet<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        loop {
            let by = self.told.lock().unwrap().by.clone();
            if by.into_values().collect::<BTreeSet<_>>() == wanted {
                return;
            }
            assert!(Instant::now() < limit, "{nodes:?}: {:?}", self.told.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it; what went wrong.
    pub async fn end(self, what: &str) -> Vec<String> {
        self.more(100).await;
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        println!("{what}: {} answered, {} failed", told.answered, told.wrong.len());
        told.wrong
    }
}

/// Asks once for what may not be done twice; who answered, and for which partition.
async fn ask(
    connection: &mut Option<TcpStream>,
    door: SocketAddr,
    name: u64,
) -> Result<(String, u64), String> {
    let mut stream = match connection.take() {
        Some(stream) if !is_closed(&stream) => stream,
        Some(_) | None => TcpStream::connect(door).await.map_err(|error| error.to_string())?,
    };
    let (key, body) = (name % KEYS, name.to_string());
    let length = body.len();
    // A stranger says nothing of partitions that counts.
    let request = format!(
        "POST /work HTTP/1.1\r\nHost: shop\r\nX-Shop: {key}\r\nTandem-Partition: 1\r\n\
         Tandem-Epoch: 0\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("send: {error}"))?;
    let (head, body) = response(&mut stream).await?;
    if !head.to_lowercase().contains("connection: close") {
        *connection = Some(stream);
    }
    let words = body.split_once(' ').filter(|_| head.starts_with("HTTP/1.1 200"));
    let found = words.and_then(|(node, id)| Some((node.to_owned(), id.parse().ok()?)));
    found.ok_or(format!("{head} {body}"))
}

/// Sends one request and reads its response.
pub async fn once(door: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    response(&mut stream).await.unwrap()
}

async fn response(stream: &mut TcpStream) -> Result<(String, String), String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower.split("content-length: ").nth(1).and_then(|it| it.lines().next());
            let length: usize = length.and_then(|it| it.parse().ok()).ok_or("no length")?;
            if body.len() >= length {
                return Ok((head.to_owned(), body.to_owned()));
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
