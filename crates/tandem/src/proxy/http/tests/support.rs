//! A balancer before endpoints, and a client of bytes.

pub use super::endpoint::Endpoint;
use crate::proxy::balancer::{Balancer, BalancerConfig, Upstream};
use crate::proxy::http::HttpConfig;
use crate::runtime::supervisor::Supervisor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection::Limits;
use tandem_core::clustering::load_balanced::rate;
use tandem_core::ids::ServiceId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Far more than anything here takes; only a failing test waits for it.
pub const LIMIT: Duration = Duration::from_secs(20);

pub fn config(endpoints: &[&Endpoint]) -> BalancerConfig {
    let upstream = |endpoint: &&Endpoint| Upstream {
        host: endpoint.address.ip().to_string(),
        port: endpoint.address.port(),
        weight: 1,
        far: false,
        drain: false,
    };
    BalancerConfig {
        service: ServiceId::new("web"),
        listen: ([127, 0, 0, 1], 0).into(),
        upstreams: endpoints.iter().map(upstream).collect(),
        policy: Policy::RoundRobin,
        limits: Limits { slow_start: Duration::ZERO, ..Limits::default() },
        check: None,
        rates: rate::Limits::default(),
        hold_max: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(60),
        drain_max: None,
        sessions_max: 1000,
        held_max: 1000,
        connections_max: 0,
        accept_proxy: false,
        accept_proxy_from: None,
        question: None,
        certificates: Vec::new(),
        encrypts: false,
        upstream_tls: None,
        send_proxy: None,
        partitions: None,
        http: Some(HttpConfig { idle_timeout: LIMIT, ..HttpConfig::default() }),
    }
}

pub fn http(endpoints: &[&Endpoint], change: impl FnOnce(&mut HttpConfig)) -> BalancerConfig {
    let mut config = config(endpoints);
    change(config.http.as_mut().unwrap());
    config
}

pub async fn one() -> (Supervisor, Endpoint, Balancer) {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let balancer = Balancer::open(config(&[&endpoint]), &supervisor).unwrap();
    (supervisor, endpoint, balancer)
}

pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// A response as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Client {
    pub async fn connect(balancer: &Balancer) -> Self {
        let stream = TcpStream::connect(balancer.local_address()).await.unwrap();
        Self::of(stream)
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything until the connection ends, however it does.
    pub async fn rest(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.unread);
        let mut more = Vec::new();
        // A reset ends it as well.
        let _ = timeout(LIMIT, self.stream.read_to_end(&mut more)).await.expect("an end");
        bytes.append(&mut more);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What came until the connection ends, and whether it was reset.
    pub async fn end(&mut self) -> (String, bool) {
        let mut bytes = std::mem::take(&mut self.unread);
        let end = loop {
            let read = timeout(LIMIT, self.stream.read_buf(&mut bytes)).await.expect("an end");
            if !matches!(read, Ok(1..)) {
                break read;
            }
        };
        (String::from_utf8_lossy(&bytes).into_owned(), end.is_err())
    }

    async fn more(&mut self) -> bool {
        let read = timeout(LIMIT, self.stream.read_buf(&mut self.unread)).await.expect("bytes");
        read.is_ok_and(|read| read > 0)
    }

    /// Reads up to the end of `end`.
    pub async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let found = self.unread.windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(found) = found {
                let bytes: Vec<u8> = self.unread.drain(..found + end.len()).collect();
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// A response whose body has a length; none if the connection ends.
    pub async fn response(&mut self) -> Option<Response> {
        let head = self.until("\r\n\r\n").await?;
        let length = head.split("Content-Length: ").nth(1);
        let length = length.and_then(|rest| rest.split('\r').next()?.parse().ok()).unwrap_or(0);
        while self.unread.len() < length {
            if !self.more().await {
                return None;
            }
        }
        let body: Vec<u8> = self.unread.drain(..length).collect();
        Some(Response { head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    pub async fn get(&mut self, path: &str) -> Option<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n")).await;
        self.response().await
    }
}

pub async fn get(balancer: &Balancer, path: &str) -> Response {
    Client::connect(balancer).await.get(path).await.unwrap()
}

/// Waits until something is so.
pub async fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < LIMIT, "it did not come to that");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until something is so that takes time to find out.
pub async fn until_async(mut what: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !what().await {
        assert!(begun.elapsed() < LIMIT, "it did not come to that");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Numbers that differ, the same in every run.
pub fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let state = AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    move |below| {
        let mut next = state.load(Ordering::Relaxed);
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.store(next, Ordering::Relaxed);
        next % below
    }
}

/// An endpoint behind a cut: whoever connects hears nothing.
pub async fn unreachable() -> (std::net::SocketAddr, Vec<TcpStream>, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    // Nobody accepts: once its queue is full the kernel answers no more.
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    (address, waiting, socket)
}
