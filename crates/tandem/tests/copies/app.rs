//! The command that the test has run: an HTTP server that says who it is, and ends on SIGTERM
//! without a thought for what it still serves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// How long a request takes, so that there are always some in flight.
const WORK: Duration = Duration::from_millis(20);
/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(600);

/// Who answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    pub node: String,
    pub pid: i32,
    pub mode: String,
}

impl Who {
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.trim().split(' ').collect();
        let [node, pid, mode] = words[..] else { return None };
        Some(Self { node: node.to_owned(), pid: pid.parse().ok()?, mode: mode.to_owned() })
    }
}

#[test]
#[ignore = "the command that the other test has run"]
fn serve() {
    let said = |name: &str| std::env::var(name).unwrap();
    let who = format!("{} {} {}", said("TANDEM_NODE"), std::process::id(), said("MODE"));
    let place = format!("{}:{}", said("TANDEM_BIND"), said("TANDEM_PORT"));
    let listener = TcpListener::bind(place).unwrap();
    for client in listener.incoming().flatten() {
        let who = who.clone();
        std::thread::spawn(move || answer(client, &who));
    }
}

/// Requests on one connection, to its end.
fn answer(client: TcpStream, who: &str) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut writer = client;
    loop {
        let mut start = String::new();
        reader.read_line(&mut start).ok().filter(|read| *read > 0)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let lower = line.trim().to_lowercase();
            if lower.is_empty() {
                break;
            }
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if !start.contains("/healthz") {
            std::thread::sleep(WORK);
        }
        if start.contains("/for-ever") {
            // Who it is, and the rest of it never.
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{who}\n");
            writer.write_all(head.as_bytes()).ok()?;
            std::thread::sleep(FOR_EVER);
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{who}", who.len());
        writer.write_all(answer.as_bytes()).ok()?;
    }
}
