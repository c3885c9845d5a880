//! A client of HTTP/1.1 as simple as can be: one request after another, on a connection that is
//! kept as long as the other side keeps it.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything is held.
const LIMIT: Duration = Duration::from_secs(30);

/// Asks once, on a new connection where the last one was closed in between two requests; the head
/// and the body of the response.
pub async fn ask(
    connection: &mut Option<TcpStream>,
    door: SocketAddr,
    request: &str,
) -> Result<(String, String), String> {
    let mut stream = match connection.take() {
        Some(stream) if !is_closed(&stream) => stream,
        Some(_) | None => TcpStream::connect(door).await.map_err(|error| error.to_string())?,
    };
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("send: {error}"))?;
    let (head, body) = response(&mut stream).await?;
    if !head.to_lowercase().contains("connection: close") {
        *connection = Some(stream);
    }
    Ok((head, body))
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
