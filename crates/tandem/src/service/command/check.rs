//! Talks to a running command to learn whether it is well.
//! In: `AtPort`. Out: nothing, or why not, within the check's limit.
//! Not here: a program that is run for it (`fence/program.rs`).
//! Keeps: what a command answers is bounded: no more is read than one line of a status.
//! Tested by: `tests.rs`.

use super::{AtPort, CommandConfig};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

impl CommandConfig {
    /// Asks once at its port.
    ///
    /// # Errors
    /// Why it is not well, in words.
    pub async fn check(&self, at: &AtPort, limit: Duration) -> Result<(), String> {
        let late = |_| format!("no answer within {} ms", limit.as_millis());
        match at {
            AtPort::Tcp => timeout(limit, self.connect()).await.map_err(late)?.map(|_| ()),
            AtPort::Http(path) => timeout(limit, self.get(&self.fill(path))).await.map_err(late)?,
        }
    }

    /// Whether nobody else has the port that it shall have: else its checks would succeed against a
    /// stranger, and clients be sent there.
    ///
    /// # Errors
    /// Somebody has it.
    pub fn finds_its_port_free(&self) -> Result<(), String> {
        let Some(address) = self.address else { return Ok(()) };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        // Not listened at, so that nobody is connected to this.
        let bound = socket.and_then(|socket| {
            // Connections of the last copy that wait for their end are no hindrance.
            socket.set_reuseaddr(true)?;
            socket.bind(address)
        });
        match bound {
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(format!(
                "something else uses {address}, its port: end that (ss -ltnp shows it), or set port"
            )),
            // Anything else the command itself says better.
            Ok(()) | Err(_) => Ok(()),
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
