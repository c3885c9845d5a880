//! An endpoint that does as its requests say, or as it was told.

use super::support::LIMIT;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What an endpoint was sent, by connection.
pub type Seen = Arc<Mutex<Vec<Vec<u8>>>>;

pub struct Endpoint {
    pub address: SocketAddr,
    pub letter: char,
    pub seen: Seen,
    /// Connections that are open now.
    pub open: Arc<AtomicU64>,
    /// What it does when its path says nothing.
    pub does: Arc<Mutex<String>>,
    pub stop: CancellationToken,
}

impl Endpoint {
    pub async fn start(supervisor: &Supervisor, letter: char) -> Self {
        Self::at(supervisor, letter, ([127, 0, 0, 1], 0).into()).await
    }

    pub async fn at(supervisor: &Supervisor, letter: char, address: SocketAddr) -> Self {
        let listener = crate::proxy::listener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, does) = (Seen::default(), Arc::new(Mutex::new(String::new())));
        let stop = supervisor.stopping().child_token();
        let open = Arc::new(AtomicU64::new(0));
        let work = Work {
            letter,
            seen: Arc::clone(&seen),
            does: Arc::clone(&does),
            open: Arc::clone(&open),
        };
        let run = accept(listener, work, supervisor.clone(), stop.clone());
        supervisor.spawn("endpoint", TaskKind::Session, run);
        Self { address, letter, seen, open, does, stop }
    }

    pub fn always(&self, does: &str) {
        *self.does.lock().unwrap() = does.to_owned();
    }

    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Everything that it was sent, connections one after the other.
    pub fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().concat()).into_owned()
    }

    pub fn requests(&self) -> usize {
        self.bytes().matches(" HTTP/1.1\r\n").count()
    }
}

#[derive(Clone)]
struct Work {
    letter: char,
    seen: Seen,
    does: Arc<Mutex<String>>,
    open: Arc<AtomicU64>,
}

async fn accept(
    listener: TcpListener,
    work: Work,
    supervisor: Supervisor,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (work, stop) = (work.clone(), stop.clone());
        supervisor.spawn("endpoint session", TaskKind::Session, async move {
            work.open.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = stop.cancelled() => {}
                () = work.serve(stream) => {}
            }
            work.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// It gives up on a client after this.
const PATIENCE: Duration = Duration::from_millis(300);

impl Work {
    async fn serve(&self, mut stream: TcpStream) {
        let at = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(Vec::new());
            seen.len() - 1
        };
        let mut unread = Vec::new();
        loop {
            let Some(head) = self.until(&mut stream, &mut unread, at, b"\r\n\r\n").await else {
                return;
            };
            let head = String::from_utf8_lossy(&head).into_owned();
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let verb = match &*self.does.lock().unwrap() {
                always if always.is_empty() => target,
                always => always.clone(),
            };
            let early =
                matches!(verb.as_str(), "/refuse" | "/early" | "/deaf" | "/gives-up" | "/drops");
            if head.contains("\r\nExpect: 100-continue") && (!early || verb == "/early") {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            }
            let mut body = Vec::new();
            if !early {
                body = match self.body(&mut stream, &mut unread, at, &head).await {
                    Some(body) => body,
                    None => return,
                };
            }
            if !self.answer(&mut stream, &verb, &head, &body).await {
                return;
            }
        }
    }

    /// Reads to the end of `end`; none if the connection ends before.
    async fn until(
        &self,
        stream: &mut TcpStream,
        unread: &mut Vec<u8>,
        at: usize,
        end: &[u8],
    ) -> Option<Vec<u8>> {
        loop {
            if let Some(found) = unread.windows(end.len()).position(|bytes| bytes == end) {
                return Some(unread.drain(..found + end.len()).collect());
            }
            self.more(stream, unread, at).await?;
        }
    }

    async fn more(&self, stream: &mut TcpStream, unread: &mut Vec<u8>, at: usize) -> Option<()> {
        let before = unread.len();
        let read = stream.read_buf(unread).await.ok().filter(|read| *read > 0)?;
        let new = &unread[before..before + read];
        self.seen.lock().unwrap()[at].extend_from_slice(new);
        Some(())
    }

    async fn body(
        &self,
        stream: &mut TcpStream,
        unread: &mut Vec<u8>,
        at: usize,
        head: &str,
    ) -> Option<Vec<u8>> {
        if head.contains("\r\nTransfer-Encoding: chunked") {
            let mut body = self.until(stream, unread, at, b"0\r\n").await?;
            body.truncate(body.len() - 3);
            while self.until(stream, unread, at, b"\r\n").await?.len() > 2 {}
            return Some(body);
        }
        let length = head.split("Content-Length: ").nth(1);
        let length = length.and_then(|rest| rest.split('\r').next()?.parse().ok()).unwrap_or(0);
        while unread.len() < length {
            self.more(stream, unread, at).await?;
        }
        Some(unread.drain(..length).collect())
    }

    /// False if the connection ends.
    async fn answer(&self, stream: &mut TcpStream, verb: &str, head: &str, body: &[u8]) -> bool {
        let letter = self.letter;
        let plain = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{letter}");
        let bytes: Vec<u8> = match verb {
            "/reset" => {
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
                return false;
            }
            "/close" | "/drops" => return false,
            "/never" | "/deaf" | "/gives-up" => {
                sleep(if verb == "/gives-up" { PATIENCE } else { LIMIT }).await;
                return false;
            }
            "/echo" => {
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                [head.into_bytes(), body.to_vec()].concat()
            }
            "/until-close" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the end").await;
                return false;
            }
            "/last" => {
                let _ = stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nL",
                    )
                    .await;
                return false;
            }
            "/stall" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
                sleep(LIMIT).await;
                return false;
            }
            "/half" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
                return false;
            }
            "/break" | "/break-chunked" | "/slow-end" => return breaks(stream, verb).await,
            "/hints" => {
                format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{plain}").into_bytes()
            }
            "/more" => {
                format!("{plain}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").into_bytes()
            }
            "/long-head" => {
                let head = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(100_000));
                head.into_bytes()
            }
            "/head" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len())
                .into_bytes(),
            "/ws" | "/udp" => {
                let _ = stream.write_all(switch(verb).as_bytes()).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
                return false;
            }
            _ if canned(verb).is_some() => canned(verb).unwrap_or_default(),
            _ if head.starts_with("HEAD ") => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n".to_vec()
            }
            _ => plain.into_bytes(),
        };
        stream.write_all(&bytes).await.is_ok()
    }
}

/// Half of a response, and the connection ends: false.
async fn breaks(stream: &mut TcpStream, verb: &str) -> bool {
    let half = match verb {
        "/break" | "/slow-end" => "HTTP/1.1 200 OK\r\n\r\nhalf",
        _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    };
    let _ = stream.write_all(half.as_bytes()).await;
    if verb == "/slow-end" {
        sleep(LIMIT).await;
    }
    if verb == "/break" {
        socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    false
}

/// Answers that are always the same.
fn canned(verb: &str) -> Option<Vec<u8>> {
    Some(match verb {
        "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n\
            3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nSum: 7\r\n\r\n"
            .to_vec(),
        "/empty" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/refuse" => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno".to_vec(),
        "/early" => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly".to_vec(),
        "/big" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n".to_vec();
            [head, vec![b'.'; 30_000_000]].concat()
        }
        "/501" => b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/421" => b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/500" => b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/nonsense" => b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(),
        "/two-lengths" => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec()
        }
        "/hints-only" => b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000),
        _ => return None,
    })
}

/// To what the one that was asked for is.
fn switch(verb: &str) -> String {
    let protocol = if verb == "/ws" { "websocket" } else { "connect-udp" };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\n\
         Connection: Upgrade\r\n\r\nhello"
    )
}
