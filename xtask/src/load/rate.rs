//! Writes requests at a fixed rate, whether the answers come or not, and says how long they took.
//! A request that finds every connection busy is sent late, and the time it waited counts: else a
//! proxy that stops for a second would have one slow request, not thousands. A timer of the system
//! that rings late does not count: that is not the proxy's.

use super::{Options, answer::Answer};
use crate::say;
use anyhow::{Context, Result, ensure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Longer than any proxy here holds a request.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET /answer HTTP/1.1\r\nHost: bench\r\n\r\n";

/// What came of the requests.
#[derive(Default)]
struct Seen {
    micros: Vec<u32>,
    /// Answers with another status than 200.
    refused: u64,
    /// Connections that ended or were silent instead of an answer.
    broken: u64,
}

#[derive(Default)]
struct Connection {
    stream: Option<TcpStream>,
    come: Vec<u8>,
    /// Since when its request counts, if it has one.
    busy: Option<Instant>,
}

struct Load {
    to: SocketAddr,
    poll: OwnedFd,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    seen: Seen,
}

/// Prints `sent= ok= refused= broken= p50_us= p99_us= p999_us= max_us=`.
pub fn run(mut options: Options<'_>) -> Result<()> {
    let to: SocketAddr = options.text("to")?.parse().context("to= is no address")?;
    let rate = options.number("rate", 1_000)?.max(1);
    let seconds = options.number("seconds", 5)?;
    let count = usize::try_from(options.number("connections", 32)?.max(1))?;
    options.end()?;
    let mut load = Load {
        to,
        poll: epoll::create(CreateFlags::CLOEXEC)?,
        connections: (0..count).map(|_| Connection::default()).collect(),
        idle: (0..count).collect(),
        seen: Seen::default(),
    };
    for place in 0..count {
        load.open(place).context("cannot connect")?;
    }
    load.send(rate * seconds, Duration::from_secs_f64(1.0 / rate as f64))?;
    load.seen.tell()
}

impl Load {
    fn send(&mut self, total: u64, every: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut sent = 0;
        let mut events = Vec::with_capacity(self.connections.len());
        let mut late = false;
        let due = |sent: u64| begun + Duration::from_secs_f64(every.as_secs_f64() * sent as f64);
        loop {
            while sent < total && due(sent) <= Instant::now() {
                let Some(place) = self.idle.pop() else {
                    late = true;
                    break;
                };
                let from = if late { due(sent) } else { Instant::now() };
                self.ask(place, from);
                sent += 1;
            }
            late &= sent < total && due(sent) <= Instant::now();
            let is_over = self.idle.len() == self.connections.len();
            let overdue = Instant::now().saturating_duration_since(due(total));
            if sent == total && (is_over || overdue > ANSWER_MAX) {
                self.seen.broken += (self.connections.len() - self.idle.len()) as u64;
                return Ok(());
            }
            let wait = match sent < total && !late {
                true => due(sent).saturating_duration_since(Instant::now()),
                false => ANSWER_MAX,
            };
            let wait = Timespec::try_from(wait)?;
            events.clear();
            epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&wait))?;
            for event in events.drain(..) {
                let data = event.data;
                self.hear(usize::try_from(data.u64())?);
            }
        }
    }

    fn open(&mut self, place: usize) -> io::Result<()> {
        let stream = TcpStream::connect(self.to)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.poll, &stream, EventData::new_u64(place as u64), flags)?;
        self.connections[place].stream = Some(stream);
        Ok(())
    }

    /// Sends a request, over a new connection if there is none.
    fn ask(&mut self, place: usize, from: Instant) {
        let is_open = self.connections[place].stream.is_some() || self.open(place).is_ok();
        let connection = &mut self.connections[place];
        connection.come.clear();
        let sent = connection.stream.as_mut().map(|stream| stream.write_all(REQUEST));
        if is_open && matches!(sent, Some(Ok(()))) {
            connection.busy = Some(from);
        } else {
            self.broke(place);
        }
    }

    fn broke(&mut self, place: usize) {
        self.seen.broken += 1;
        self.connections[place] = Connection::default();
        self.idle.push(place);
    }

    /// Something came, or the connection ended.
    fn hear(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        let mut bytes = [0; 4096];
        loop {
            let Some(stream) = connection.stream.as_mut() else { return };
            match stream.read(&mut bytes) {
                Ok(read) if read > 0 => connection.come.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) if connection.busy.is_some() => return self.broke(place),
                Ok(_) | Err(_) => {
                    connection.stream = None;
                    return;
                }
            }
            if let Some(answer) = Answer::of(&connection.come) {
                if let Some(from) = connection.busy.take() {
                    self.seen.add(answer, from);
                    self.idle.push(place);
                }
                if answer.closes {
                    connection.stream = None;
                }
                connection.come.clear();
            }
        }
    }
}

impl Seen {
    fn add(&mut self, answer: Answer, from: Instant) {
        if answer.status == Some(200) {
            self.micros.push(u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX));
        } else {
            self.refused += 1;
        }
    }

    fn tell(mut self) -> Result<()> {
        self.micros.sort_unstable();
        ensure!(!self.micros.is_empty(), "not one request was answered");
        let ok = self.micros.len() as u64;
        let at = |share: f64| self.micros[((ok - 1) as f64 * share) as usize];
        say(&format!(
            "sent={} ok={ok} refused={} broken={} p50_us={} p99_us={} p999_us={} max_us={}",
            ok + self.refused + self.broken,
            self.refused,
            self.broken,
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        ))
    }
}
