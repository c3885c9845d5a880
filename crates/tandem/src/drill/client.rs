//! Talks HTTP as a plain client: one connection, one request after the other.
//! In: paths. Out: `Answer`s; what it is told is bounded.
//! Not here: what is asked (`service/clients.rs`, `worker/divided.rs`).
//! Tested by: `service/clients.rs`, `worker/divided.rs`.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_MAX: Duration = Duration::from_secs(1);
/// What a node says of a few hundred partitions.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 32;

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

/// What has become of a connection that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The next request can come.
    Open,
    /// The other side has closed it in order, or said something that nobody asked for.
    Ended,
    /// It broke it off.
    Reset,
}

/// One connection that is kept, for one request after the other.
#[derive(Debug)]
pub struct Http {
    stream: TcpStream,
    host: SocketAddr,
    unread: Vec<u8>,
}

impl Http {
    /// Connects; none if nobody takes it.
    pub async fn connect(address: SocketAddr) -> Option<Self> {
        let stream = timeout(CONNECT_MAX, TcpStream::connect(address)).await.ok()?.ok()?;
        let _ = stream.set_nodelay(true);
        Some(Self { stream, host: address, unread: Vec::new() })
    }

    /// How it is while nobody asks for anything.
    pub fn idle(&self) -> Idle {
        match self.stream.try_read(&mut [0]) {
            Ok(_) => Idle::Ended,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Idle::Open,
            Err(_) => Idle::Reset,
        }
    }

    /// Sends a request without a body; none if no whole answer comes.
    pub async fn ask(&mut self, method: &str, path: &str) -> Option<Answer> {
        self.say(method, path, "").await
    }

    /// The same with JSON.
    pub async fn say(&mut self, method: &str, path: &str, json: &str) -> Option<Answer> {
        let content = match (method, json) {
            ("GET", _) => String::new(),
            (_, "") => "Content-Length: 0\r\n".to_owned(),
            (_, json) => {
                format!("Content-Type: application/json\r\nContent-Length: {}\r\n", json.len())
            }
        };
        let host = self.host;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{content}\r\n{json}");
        self.stream.write_all(request.as_bytes()).await.ok()?;
        loop {
            if let Some(answer) = self.answer()? {
                return Some(answer);
            }
            if self.unread.len() > ANSWER_BYTES_MAX {
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
