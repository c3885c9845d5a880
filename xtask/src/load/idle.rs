//! Keeps connections open that do nothing: each asks once, so that its proxy knows it, and
//! then waits. Ends with its standard input.

use super::Options;
use super::answer::Answer;
use crate::say;
use anyhow::{Context, Result, ensure};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Prints `open=` once all are there, and how many still are at the end.
pub fn run(mut options: Options<'_>) -> Result<()> {
    let to: SocketAddr = options.text("to")?.parse().context("to= is no address")?;
    let count = options.number("connections", 10_000)?;
    options.end()?;
    let mut open = Vec::new();
    let mut bytes = [0; 4096];
    for place in 0..count {
        let mut ask = || -> io::Result<TcpStream> {
            let mut stream = TcpStream::connect(to)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /answer HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            let mut come = Vec::new();
            while Answer::of(&come).is_none() {
                match stream.read(&mut bytes)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => come.extend_from_slice(&bytes[..read]),
                }
            }
            Ok(stream)
        };
        open.push(ask().with_context(|| format!("connection {} of {count}", place + 1))?);
    }
    say(&format!("open={count}"))?;
    io::stdin().read_to_end(&mut Vec::new())?;
    let stays = |stream: &TcpStream| {
        let is_quiet = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        stream.set_nonblocking(true).is_ok() && stream.peek(&mut [0]).is_err_and(is_quiet)
    };
    let left = open.iter().filter(|stream| stays(stream)).count() as u64;
    ensure!(left == count, "{} of {count} connections were closed", count - left);
    say(&format!("left={left}"))
}
