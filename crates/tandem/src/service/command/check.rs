//! Talks to a running command to learn whether it is well.
//! In: a `Probe`. Out: nothing, or why not, within the check's limit.
//! Keeps: what a command answers is bounded: no more is read than one line of a status.
//! Tested by: `tests.rs`.

use super::{CommandConfig, Health, Probe};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tandem_core::ids::Term;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

impl CommandConfig {
    /// Asks once.
    ///
    /// # Errors
    /// Why it is not well, in words.
    pub async fn check(&self, health: &Health, term: Term) -> Result<(), String> {
        let limit = health.timeout;
        let late = |_| format!("no answer within {} ms", limit.as_millis());
        match &health.probe {
            Probe::Tcp => timeout(limit, self.connect()).await.map_err(late)?.map(|_| ()),
            Probe::Http(path) => timeout(limit, self.get(path)).await.map_err(late)?,
            Probe::Exec(words) => {
                self.run(words, term, limit).await.map_err(|error| error.to_string())
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let Some(address) = self.address else { return Err("it has no port".into()) };
        // What listens on every address is asked at home.
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let to = SocketAddr::new(ip, address.port());
        TcpStream::connect(to).await.map_err(|error| format!("cannot connect to {to}: {error}"))
    }

    async fn get(&self, path: &str) -> Result<(), String> {
        let mut stream = self.connect().await?;
        let host = self.address.map(|address| address.to_string()).unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tandem\r\nConnection: close\r\n\r\n"
        );
        let failed = |error: std::io::Error| format!("GET {path}: {error}");
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut start = [0; STATUS_BYTES];
        stream.read_exact(&mut start).await.map_err(failed)?;
        match status(&start) {
            Some(200..=399) => Ok(()),
            Some(status) => Err(format!("GET {path} is answered with {status}")),
            None => Err(format!("GET {path} is not answered with HTTP")),
        }
    }
}

fn status(start: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(start).ok()?;
    text.strip_prefix("HTTP/1.")?.get(1..)?.trim().parse().ok()
}
