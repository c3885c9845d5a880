//! Talks to the sockets' options, and counts what was read before a connection was lost.
//! Handles: H45, an expired certificate is told apart, with what may help.
//! Tested by: `tests/`.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A peer whose kernel acknowledges nothing for this long is gone: well above any retransmission
/// that succeeds, and not much above the time after which the cluster has moved on.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(3);
const KEEPALIVE: Duration = Duration::from_secs(1);
/// What waits in the kernel cannot be overtaken by a heartbeat.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Sets what every connection between nodes needs.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(3),
    )?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

/// What an error says, and what may help where that is known.
pub fn words(error: &io::Error) -> String {
    use rustls::{AlertDescription, CertificateError};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let advice = match tls {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "check both clocks, or let that node join again (tandem token, tandem join)",
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            "this node's own certificate has ended for the peer: check both clocks, or let this \
             node join again (tandem token, tandem join)"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

/// A stream that knows whether it was ever answered.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    answered: bool,
}

impl Counted {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, answered: false }
    }

    /// Whether a single byte came back.
    pub fn answered(&self) -> bool {
        self.answered
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.answered |= buf.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
