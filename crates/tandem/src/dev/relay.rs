//! Talks to both ends of a connection between two nodes, and stands between them when told to.
//! In: `Condition`, changed at any time. Out: one loopback address that leads to a target.
//! A cut is a black hole, as when a switch stops forwarding: nothing arrives, nothing is closed,
//! and nobody is told. What was read before waits here and goes on after healing, as TCP would
//! resend it.
//! An end, a reset and a refusal pass through unless cut: they are evidence that nodes act on at
//! once. A refusal is only known of once somebody tried, and that one is reset; then nothing
//! listens here either, until something does at the target.
//! Not here: which relays there are (`mesh.rs`).
//! Tested by: below.

use super::Error;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::{Buf, Bytes};
use socket2::SockRef;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Read at once; large enough that a base backup does not notice the relay.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that may be under way in one direction while delayed; past it the sender has to wait.
const DELAYED_MAX: usize = 256;
/// Connections through one relay; past it new ones are reset.
const SESSIONS_MAX: usize = 1024;
/// Connections that wait in the kernel's queue.
const BACKLOG: u32 = 1024;
/// How often a target that refused is asked whether it still does.
const LOOK: Duration = Duration::from_millis(5);

/// How a link behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Nothing passes, and nobody is told.
    pub cut: bool,
    /// How much longer every byte takes, each way.
    pub delay: Duration,
}

/// One address that leads to another.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    condition: watch::Sender<Condition>,
}

impl Relay {
    /// Opens a relay to `target` on a free port of 127.0.0.1. It ends with `tasks`.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn start(tasks: &Supervisor, target: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Relay { source };
        // It never listens, and keeps the port when nothing else does.
        let port = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(failed)?;
        let address = port.local_addr().map_err(failed)?;
        let first = listen(address).map_err(failed)?;
        let (condition, watched) = watch::channel(Condition::default());
        let (stop, serving) = (tasks.stopping(), serve(first, target, watched, tasks.clone()));
        tasks.spawn("relay", TaskKind::Session, async move {
            tokio::select! { () = stop.cancelled() => {}, () = serving => {} }
            drop(port);
        });
        Ok(Self { address, condition })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the link, also for connections that exist.
    pub fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }

    /// How the link behaves now.
    pub fn condition(&self) -> Condition {
        *self.condition.borrow()
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    bind(address)?.listen(BACKLOG)
}

async fn serve(
    first: TcpListener,
    target: SocketAddr,
    mut condition: watch::Receiver<Condition>,
    tasks: Supervisor,
) {
    let Ok(address) = first.local_addr() else { return };
    let mut open = Some(first);
    loop {
        let listener = match open.take().map_or_else(|| listen(address), Ok) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%address, %error, "a relay cannot listen again");
                sleep(LOOK).await;
                continue;
            }
        };
        match accept_all(&listener, target, &mut condition, &tasks).await {
            Ended::Relay => return,
            Ended::Socket => drop(listener),
        }
        // What is cut takes connections that nobody answers, whatever is behind it.
        tokio::select! {
            biased;
            cut = condition.wait_for(|now| now.cut) => if cut.is_err() { return },
            () = is_there(target) => {}
        }
    }
}

async fn is_there(target: SocketAddr) {
    while TcpStream::connect(target).await.is_err() {
        sleep(LOOK).await;
    }
}

/// Until nothing listens at the target.
async fn accept_all(
    listener: &TcpListener,
    target: SocketAddr,
    condition: &mut watch::Receiver<Condition>,
    tasks: &Supervisor,
) -> Ended {
    let (places, refused) = (Arc::new(Semaphore::new(SESSIONS_MAX)), Arc::new(Notify::new()));
    let stop = tasks.stopping();
    loop {
        // While cut, new connections stay in the kernel's queue: they look made and nobody answers.
        let accepted = tokio::select! {
            biased;
            () = refused.notified() => return Ended::Socket,
            accepted = accept_when_open(listener, condition) => accepted,
        };
        let client = match accepted {
            Ok(client) => client,
            Err(Ended::Relay) => return Ended::Relay,
            Err(Ended::Socket) => {
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            reset(&client);
            continue;
        };
        let (condition, stop, refused) = (condition.clone(), stop.clone(), Arc::clone(&refused));
        tasks.spawn("relay connection", TaskKind::Session, async move {
            tokio::select! {
                () = stop.cancelled() => reset(&client),
                is_refused = carry(&client, target, condition) => if is_refused {
                    refused.notify_one();
                },
            }
            drop(place);
        });
    }
}

/// Why a part of a relay stopped.
#[derive(Debug)]
enum Ended {
    /// The relay itself is gone.
    Relay,
    /// A socket was reset or failed.
    Socket,
}

async fn accept_when_open(
    listener: &TcpListener,
    condition: &mut watch::Receiver<Condition>,
) -> Result<TcpStream, Ended> {
    loop {
        condition.wait_for(|now| !now.cut).await.map_err(|_| Ended::Relay)?;
        tokio::select! {
            biased;
            changed = condition.changed() => changed.map_err(|_| Ended::Relay)?,
            accepted = listener.accept() => {
                return accepted.map(|(client, _)| client).map_err(|_| Ended::Socket);
            }
        }
    }
}

/// Makes the other side see a reset instead of an end.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// True if nothing listens at the target.
async fn carry(
    client: &TcpStream,
    target: SocketAddr,
    condition: watch::Receiver<Condition>,
) -> bool {
    let Ok(server) = TcpStream::connect(target).await else {
        reset(client);
        return true;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let there = pump(client, &server, condition.clone());
    let back = pump(&server, client, condition);
    if tokio::try_join!(there, back).is_err() {
        reset(client);
        reset(&server);
    }
    false
}

/// Carries one direction until its end (and passes that on), or until either socket breaks.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    mut condition: watch::Receiver<Condition>,
) -> Result<(), Ended> {
    // Chunks and when they may leave; an empty chunk is the end of the stream.
    let mut waiting = VecDeque::<(Instant, Bytes)>::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut ended = false;
    loop {
        let delay = condition.wait_for(|now| !now.cut).await.map_err(|_| Ended::Relay)?.delay;
        let waiting_max = if delay.is_zero() { 1 } else { DELAYED_MAX };
        let due = waiting.front().map(|(due, _)| *due);
        tokio::select! {
            biased;
            changed = condition.changed() => changed.map_err(|_| Ended::Relay)?,
            ready = writable_at(to, due), if due.is_some() => {
                ready.map_err(|_| Ended::Socket)?;
                if send_front(to, &mut waiting)? {
                    return Ok(());
                }
            }
            ready = from.readable(), if !ended && waiting.len() < waiting_max => {
                ready.map_err(|_| Ended::Socket)?;
                let Some(count) = attempt(from.try_read(&mut buffer))? else { continue };
                ended = count == 0;
                let at_once = waiting.is_empty() && delay.is_zero() && !ended;
                let sent = if at_once {
                    attempt(to.try_write(&buffer[..count]))?.unwrap_or(0)
                } else {
                    0
                };
                if sent < count || ended {
                    let rest = Bytes::copy_from_slice(&buffer[sent..count]);
                    waiting.push_back((Instant::now() + delay, rest));
                }
            }
        }
    }
}

async fn writable_at(to: &TcpStream, due: Option<Instant>) -> io::Result<()> {
    if let Some(due) = due.filter(|due| *due > Instant::now()) {
        sleep_until(due).await;
    }
    to.writable().await
}

/// Sends what it can of the first chunk; true when that was the end of the stream.
fn send_front(to: &TcpStream, waiting: &mut VecDeque<(Instant, Bytes)>) -> Result<bool, Ended> {
    let Some((_, chunk)) = waiting.front_mut() else { return Ok(false) };
    if chunk.is_empty() {
        // Fails where the other side is gone already, and then there is nobody to tell.
        let _ = SockRef::from(to).shutdown(Shutdown::Write);
        return Ok(true);
    }
    if let Some(count) = attempt(to.try_write(chunk))? {
        chunk.advance(count);
        if chunk.is_empty() {
            waiting.pop_front();
        }
    }
    Ok(false)
}

/// None when the socket was not ready after all.
fn attempt(result: io::Result<usize>) -> Result<Option<usize>, Ended> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(_) => Err(Ended::Socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(5);
    /// How long nothing must happen to count as stalled.
    const STALL: Duration = Duration::from_millis(80);
    const CUT: Condition = Condition { cut: true, delay: Duration::ZERO };

    struct Ends {
        tasks: Supervisor,
        relay: Relay,
        client: TcpStream,
        server: TcpStream,
    }

    async fn connected() -> Ends {
        let tasks = Supervisor::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(&tasks, listener.local_addr().unwrap()).await.unwrap();
        let client = TcpStream::connect(relay.address()).await.unwrap();
        let (server, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        Ends { tasks, relay, client, server }
    }

    async fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(LIMIT, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_end_too() {
        let mut ends = connected().await;
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let (write, read) =
            tokio::join!(ends.client.write_all(&sent), read_exactly(&mut ends.server, sent.len()));
        write.unwrap();
        assert!(read == sent);
        ends.client.shutdown().await.unwrap();
        assert_eq!(timeout(LIMIT, ends.server.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
        ends.server.write_all(b"late").await.unwrap();
        assert_eq!(read_exactly(&mut ends.client, 4).await, b"late");
        drop(ends.server);
        assert_eq!(timeout(LIMIT, ends.client.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
        assert!(ends.tasks.stop(LIMIT).await);
    }

    #[tokio::test]
    async fn a_cut_stalls_and_healing_resumes() {
        let mut ends = connected().await;
        ends.relay.set(CUT);
        ends.client.write_all(b"hello").await.unwrap();
        let mut byte = [0; 1];
        assert!(timeout(STALL, ends.server.read(&mut byte)).await.is_err(), "nothing arrives");
        let mut new = TcpStream::connect(ends.relay.address()).await.unwrap();
        new.write_all(b"x").await.unwrap();
        assert!(timeout(STALL, new.read(&mut byte)).await.is_err(), "nobody answers, nor refuses");
        ends.relay.set(Condition::default());
        assert_eq!(read_exactly(&mut ends.server, 5).await, b"hello");
        ends.server.write_all(b"back").await.unwrap();
        assert_eq!(read_exactly(&mut ends.client, 4).await, b"back");
    }

    #[tokio::test]
    async fn a_cut_hides_an_end_until_it_heals() {
        let mut ends = connected().await;
        ends.relay.set(CUT);
        drop(ends.server);
        assert!(timeout(STALL, ends.client.read(&mut [0; 1])).await.is_err());
        ends.relay.set(Condition::default());
        assert_eq!(timeout(LIMIT, ends.client.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_reset_passes_as_a_reset() {
        let mut ends = connected().await;
        reset(&ends.server);
        drop(ends.server);
        let error = timeout(LIMIT, ends.client.read(&mut [0; 1])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_refusal_passes_and_its_end_too() {
        let tasks = Supervisor::new();
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = first.local_addr().unwrap();
        let relay = Relay::start(&tasks, target).await.unwrap();
        drop(first);
        let mut client = TcpStream::connect(relay.address()).await.unwrap();
        let error = timeout(LIMIT, client.read(&mut [0; 1])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "it was too late to refuse");
        let connect = || TcpStream::connect(relay.address());
        let refused = async {
            while connect().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, refused).await.expect("connections are refused from then on");
        relay.set(CUT);
        let taken = async {
            while connect().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, taken).await.expect("behind a cut nobody knows that");
        relay.set(Condition::default());
        let target = TcpListener::bind(target).await.unwrap();
        let passed = async {
            loop {
                if let Ok(mut client) = connect().await
                    && client.write_all(b"x").await.is_ok()
                {
                    let (mut server, _) = target.accept().await.unwrap();
                    // One that only looked says nothing.
                    if server.read(&mut [0; 1]).await.is_ok_and(|count| count == 1) {
                        return;
                    }
                }
            }
        };
        timeout(LIMIT, passed).await.expect("they pass again");
        assert!(tasks.stop(LIMIT).await);
    }

    #[tokio::test]
    async fn delay_adds_to_the_way_without_costing_throughput() {
        let mut ends = connected().await;
        let delay = Duration::from_millis(50);
        ends.relay.set(Condition { cut: false, delay });
        let started = Instant::now();
        let sent = vec![7; 2_000_000];
        let (write, read) =
            tokio::join!(ends.client.write_all(&sent), read_exactly(&mut ends.server, sent.len()));
        write.unwrap();
        assert_eq!(read.len(), sent.len());
        assert!(started.elapsed() >= delay);
        assert!(started.elapsed() < delay * 20, "chunks travel side by side");
    }
}
