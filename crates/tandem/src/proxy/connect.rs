//! Talks to a server until it has taken a session or shown that it is not ready for one.
//! In: an address and the client's StartupMessage. Out: a stream and the first bytes of the answer.
//! Keeps: H43, an `Error` means that nothing was executed.
//! Not here: whether and when to try again (`hold.rs`).
//! Tested by: `tests/hold.rs`.

use super::Limits;
use super::pgwire::answer::{Answer, LOOKED_AT_MAX, judge};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sent bytes without an acknowledgement end the connection after this long. Not shorter: a backend
/// that waits for a lock in the middle of a COPY does not read either, and that looks the same. A
/// primary that has moved is noticed by the routes long before.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);

/// Why the server did not take the session; nothing was executed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("no connection to {address} within {} ms", limit.as_millis())]
    Slow { address: SocketAddr, limit: Duration },
    #[error("the server at {address} closed the connection before it answered")]
    Closed { address: SocketAddr },
    #[error("the server at {address} is starting or stopping (SQLSTATE {state})")]
    NotNow { address: SocketAddr, state: String },
}

/// Connects, sends the startup packet and waits for the first answer.
pub(super) async fn open(
    address: SocketAddr,
    packet: &[u8],
    limits: &Limits,
) -> Result<(TcpStream, Vec<u8>), Error> {
    let mut server = dial(address, limits.connect).await?;
    if server.write_all(packet).await.is_err() {
        return Err(Error::Closed { address });
    }
    let mut first = Vec::with_capacity(1024);
    loop {
        match server.read_buf(&mut first).await {
            Ok(0) | Err(_) => return Err(Error::Closed { address }),
            Ok(_) => {}
        }
        match judge(&first) {
            Answer::Taken => return Ok((server, first)),
            Answer::NotNow(state) => {
                let state = String::from_utf8_lossy(&state).into_owned();
                return Err(Error::NotNow { address, state });
            }
            Answer::Incomplete if first.len() > 4 * LOOKED_AT_MAX => return Ok((server, first)),
            Answer::Incomplete => {}
        }
    }
}

/// A connection that notices a dead server.
pub(super) async fn dial(address: SocketAddr, limit: Duration) -> Result<TcpStream, Error> {
    let server = match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(server)) => server,
        Ok(Err(source)) => return Err(Error::Connect { address, source }),
        Err(_) => return Err(Error::Slow { address, limit }),
    };
    tune(&server, Duration::from_secs(10));
    // A socket without this option still works: it only notices later.
    let _ = SockRef::from(&server).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    Ok(server)
}

/// No delay, and probes while idle. Best effort: a peer that left already makes these fail, and
/// the next read says so.
pub(super) fn tune(stream: &TcpStream, idle: Duration) {
    let _ = stream.set_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(idle).with_interval(Duration::from_secs(5)).with_retries(3);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
