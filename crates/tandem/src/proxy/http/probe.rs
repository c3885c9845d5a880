//! Talks to an endpoint only to see whether it serves: asks it one question.
//! In: `HttpCheck`. Out: why it does not.
//! Keeps: what it answers is read up to the end of its head, and not one byte more is kept.
//! Not here: how often, for how long, and how many answers count (`balancer/check.rs`).
//! Tested by: `tests/checks.rs`.

use super::HttpCheck;
use super::stream::Stream;
use super::wire::request::{Method, no_fields};
use super::wire::response;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HEAD_MAX: usize = 16 * 1024;

/// Asks on a connection of its own.
///
/// # Errors
/// Why the endpoint does not serve, for operators.
pub(in crate::proxy) async fn ask(
    stream: &mut Stream,
    address: SocketAddr,
    check: &HttpCheck,
) -> Result<(), String> {
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    let path = &check.path;
    let question = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tandem-check\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    let asked = stream.write_all(question.as_bytes()).await;
    asked.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::with_capacity(1024);
    let mut is_over = false;
    loop {
        let mut room = no_fields();
        let head = response::read(&bytes, &mut room, Method::Other);
        match head.map_err(|response::Bad(why)| format!("its response is not understood: {why}"))? {
            Some(head) if head.is_interim() => {
                // What follows may have come with it.
                let length = head.length;
                bytes.drain(..length);
                continue;
            }
            Some(head) => {
                let (least, most) = check.expect;
                let is_good = (least..=most).contains(&head.status);
                return if is_good { Ok(()) } else { Err(format!("{path}: {}", head.status)) };
            }
            None if is_over => return Err("it closed the check's connection".to_owned()),
            None if bytes.len() >= HEAD_MAX => return Err("its response has no end".to_owned()),
            None => {}
        }
        let read = stream.read_buf(&mut bytes).await.map_err(|error| error.to_string())?;
        is_over = read == 0;
    }
}
