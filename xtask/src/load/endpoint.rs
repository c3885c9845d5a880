//! Answers requests after a while, as an endpoint that works on them would. A thread per
//! connection, and no more of HTTP than the benchmarks send.

use super::Options;
use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub fn run(mut options: Options<'_>) -> Result<()> {
    let address: SocketAddr = options.text("on")?.parse().context("on= is no address")?;
    let delay = Duration::from_millis(options.number("delay_ms", 5)?);
    options.end()?;
    let listener = TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            // A proxy that leaves is no news.
            let _ = serve(stream, delay);
        })?;
    }
    Ok(())
}

fn serve(mut stream: TcpStream, delay: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut bytes, mut come) = ([0; 4096], Vec::new());
    loop {
        let read = stream.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        come.extend_from_slice(&bytes[..read]);
        while let Some(end) = come.windows(4).position(|four| four == b"\r\n\r\n") {
            come.drain(..end + 4);
            thread::sleep(delay);
            stream.write_all(ANSWER)?;
        }
    }
}
