//! Endpoints that do as they are told, and clients that count what went wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far more than an answer takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Says its letter, then echoes every byte. Told to, it drops each connection without a word.
pub struct Endpoint {
    pub address: SocketAddr,
    letter: char,
    /// It speaks HTTP.
    http: bool,
    drops: Arc<AtomicBool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Endpoint {
    pub async fn start(letter: char) -> Self {
        Self::at((letter, false), "127.0.0.1:0".parse().unwrap()).await
    }

    /// Answers every request with its letter.
    pub async fn http(letter: char) -> Self {
        Self::at((letter, true), "127.0.0.1:0".parse().unwrap()).await
    }

    async fn at((letter, http): (char, bool), address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (drops, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let run = Self::run(listener, (letter, http), Arc::clone(&drops), stop.clone());
        Self { address, letter, http, drops, stop, task: spawn(run) }
    }

    async fn run(
        listener: TcpListener,
        (letter, http): (char, bool),
        drops: Arc<AtomicBool>,
        stop: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (mut stream, _) = accepted.unwrap();
            if drops.load(Ordering::Relaxed) {
                continue;
            }
            let stop = stop.clone();
            spawn(async move {
                let echo = async {
                    if http {
                        return answer(&mut stream, letter).await;
                    }
                    let _ = stream.write_all(letter.to_string().as_bytes()).await;
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                };
                tokio::select! { () = stop.cancelled() => {}, () = echo => {} }
            });
        }
    }

    pub fn drops(&self, drops: bool) {
        self.drops.store(drops, Ordering::Relaxed);
    }

    /// As a process that ended: its port refuses connections.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
    }

    pub async fn restart(&mut self) {
        *self = Self::at((self.letter, self.http), self.address).await;
    }
}

/// Requests without a body, one after the other.
async fn answer(stream: &mut TcpStream, letter: char) {
    let mut unread = Vec::new();
    loop {
        while let Some(end) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            unread.drain(..end + 4);
            let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{letter}");
            if stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
        if !matches!(stream.read_buf(&mut unread).await, Ok(read) if read > 0) {
            return;
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a test has no supervisor")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// Who answers at a door; none if the connection ends without a word.
pub async fn letter(door: SocketAddr) -> Option<char> {
    letter_from(&mut TcpStream::connect(door).await.ok()?).await
}

async fn letter_from(stream: &mut TcpStream) -> Option<char> {
    timeout(LIMIT, stream.read_u8()).await.expect("an answer or an end").ok().map(char::from)
}

/// A connection that has been answered.
pub async fn letter_of(door: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(door).await.ok()?;
    letter_from(&mut stream).await.map(|_| stream)
}

/// Whether the endpoint behind a connection still answers.
pub async fn echoes(stream: &mut TcpStream) -> bool {
    stream.write_all(b"?").await.is_ok() && letter_from(stream).await == Some('?')
}

/// The header that an endpoint was sent, which it echoes.
pub async fn header(door: SocketAddr) -> String {
    let mut stream = letter_of(door).await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(line).unwrap()
}

/// What clients met.
#[derive(Debug)]
pub struct Told {
    pub done: u64,
    /// Connections that ended too early.
    pub cut: u64,
    /// Clients that were cut twice in a row.
    pub failed: u64,
}

/// Clients that connect, ask twice and leave, again and again.
pub struct Clients {
    stop: CancellationToken,
    done: Arc<AtomicU64>,
    cut: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(doors: &[SocketAddr], each: usize) -> Self {
        let mut clients = Self {
            stop: CancellationToken::new(),
            done: Arc::default(),
            cut: Arc::default(),
            failed: Arc::default(),
            tasks: Vec::new(),
        };
        for door in doors.iter().flat_map(|door| std::iter::repeat_n(*door, each)) {
            let Self { stop, done, cut, failed, .. } = &clients;
            let (stop, done) = (stop.clone(), Arc::clone(done));
            let (cut, failed) = (Arc::clone(cut), Arc::clone(failed));
            clients.tasks.push(spawn(async move {
                while !stop.is_cancelled() {
                    let counter = if works(door, &cut).await { &done } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        clients
    }

    pub async fn stop(self) -> Told {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Told { done: read(&self.done), cut: read(&self.cut), failed: read(&self.failed) }
    }
}

/// A client that comes when its endpoint has just died may be cut, and comes again.
async fn works(door: SocketAddr, cut: &AtomicU64) -> bool {
    for _ in 0..2 {
        let Some(mut stream) = letter_of(door).await else {
            cut.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        stream.write_all(b"?").await.unwrap_or_default();
        let mut answer = letter_from(&mut stream).await;
        // Where a header is sent, the endpoint echoes it first.
        while matches!(answer, Some(letter) if letter != '?') {
            answer = letter_from(&mut stream).await;
        }
        if answer.is_some() {
            return true;
        }
        cut.fetch_add(1, Ordering::Relaxed);
    }
    false
}

/// The page that Prometheus reads.
pub async fn metrics(api: SocketAddr) -> String {
    let mut stream = TcpStream::connect(api).await.unwrap();
    let ask = format!("GET /metrics HTTP/1.0\r\nHost: {api}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}
