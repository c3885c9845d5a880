//! Clients that leave one after another, while others use the same connection to their endpoint:
//! what it still says to those that have left breaks nothing.

use super::client::{H2, get};
use super::hostile::frame;
use super::links::before;
use super::server::H2Server;
use crate::proxy::balancer::Balancer;
use crate::proxy::http::tests::support::{LIMIT, until};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status 200`
const OK: &[u8] = &[0x88];

/// What an endpoint does by hand.
#[derive(Clone)]
struct Script {
    /// So many empty frames come before the content of each answer.
    empty: usize,
    /// Answers end by themselves.
    ends: bool,
    /// So many frames of one byte each come for somebody who has left.
    late: usize,
    /// How many have left, and whether the first answer shall end.
    left: Arc<watch::Sender<(u32, bool)>>,
}

impl Script {
    fn new(empty: usize, late: usize) -> Self {
        let left = Arc::new(watch::Sender::new((0, false)));
        Self { empty, ends: empty > 0, late, left }
    }

    /// To one connection; `is_first`: its first answer waits until it shall end.
    async fn serve(self, tcp: TcpStream, is_first: bool) {
        tcp.set_nodelay(true).unwrap();
        let (mut read, mut write) = tcp.into_split();
        let mut left = self.left.subscribe();
        let settings = frame(SETTINGS, 0, 0, &[]);
        let (mut preface, mut header, mut waits) = ([0; 24], Vec::new(), None);
        let mut gone = BTreeSet::new();
        if write.write_all(&settings).await.is_err() || read.read_exact(&mut preface).await.is_err()
        {
            return;
        }
        loop {
            let mut room = vec![0; 9 - header.len()];
            let ends = async {
                let _ = left.wait_for(|(_, ends)| *ends).await;
            };
            let count = tokio::select! {
                count = read.read(&mut room) => Some(count.unwrap_or(0)),
                () = ends, if waits.is_some() => None,
            };
            let Some(count) = count else {
                let end = frame(DATA, END_STREAM, waits.take().unwrap(), b"end");
                let _ = write.write_all(&end).await;
                continue;
            };
            if count == 0 {
                return;
            }
            header.extend_from_slice(&room[..count]);
            let [a, b, c, kind, _, stream @ ..] = &header[..] else { continue };
            let Ok(stream) = <[u8; 4]>::try_from(stream) else { continue };
            let (stream, kind) = (u32::from_be_bytes(stream), *kind);
            let length = [*a, *b, *c].map(usize::from);
            let mut payload = vec![0; length[0] << 16 | length[1] << 8 | length[2]];
            header.clear();
            if read.read_exact(&mut payload).await.is_err() {
                return;
            }
            // Once for each who left. Of those whom the crate `h2` does not remember, for too many
            // left within a second, it answers each frame by another reset: whoever answers that
            // by a frame does so without end, and wears the connection out.
            if kind == RST_STREAM && !gone.insert(stream) {
                continue;
            }
            let bytes = match kind {
                HEADERS if is_first && stream == 1 => {
                    waits = Some(stream);
                    frame(HEADERS, END_HEADERS, stream, OK)
                }
                HEADERS => self.answer(stream),
                RST_STREAM => frame(DATA, 0, stream, b".").repeat(self.late),
                _ => continue,
            };
            if write.write_all(&bytes).await.is_err() {
                return;
            }
            if kind == RST_STREAM {
                self.left.send_modify(|(left, _)| *left += 1);
            }
        }
    }

    fn answer(&self, stream: u32) -> Vec<u8> {
        let end = if self.ends { END_STREAM } else { 0 };
        let head = frame(HEADERS, END_HEADERS, stream, OK);
        let empty = frame(DATA, 0, stream, &[]).repeat(self.empty);
        [head, empty, frame(DATA, end, stream, b"a")].concat()
    }

    async fn start(&self, supervisor: &Supervisor) -> H2Server {
        let mut server = H2Server::start(supervisor, 100).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        server.address = listener.local_addr().unwrap();
        let (own, script) = (supervisor.clone(), self.clone());
        let connections = Arc::clone(&server.connections);
        supervisor.spawn("h2 script", TaskKind::Session, async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let is_first = connections.fetch_add(1, Ordering::Relaxed) == 0;
                own.spawn("h2 script", TaskKind::Session, script.clone().serve(tcp, is_first));
            }
        });
        server
    }
}

/// So many clients ask, and leave unless their answers end; one who asked before them waits for
/// its answer. On how many connections to the endpoint that was.
async fn witness(script: Script, clients: u32) -> u64 {
    let supervisor = Supervisor::new();
    let server = script.start(&supervisor).await;
    let balancer = Balancer::open(before(&[&server]), &supervisor).unwrap();
    let witness = H2::connect(&supervisor, &balancer).await;
    let mut waits = witness.send(get("/"), &[]).await;
    let mut body = waits.head().await.unwrap();
    let mut client = H2::connect(&supervisor, &balancer).await;
    for at in 1..=clients {
        // Who leaves too often is cut itself.
        if at % 200 == 0 {
            client = H2::connect(&supervisor, &balancer).await;
        }
        let mut asks = client.send(get("/"), &[]).await;
        if script.ends {
            assert_eq!(asks.answer().await.unwrap().body, "a", "{at}");
            continue;
        }
        let mut left = script.left.subscribe();
        drop(asks.head().await.unwrap_or_else(|error| panic!("{at}: {error}")));
        drop(asks);
        let is_known = left.wait_for(|(left, _)| *left >= at);
        timeout(LIMIT, is_known).await.expect("it is told").unwrap();
    }
    script.left.send_modify(|(_, ends)| *ends = true);
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"end");
    while let Some(rest) = body.data().await {
        assert_eq!(rest.unwrap().len(), 0, "it ends well");
    }
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0);
    server.connections.load(Ordering::Relaxed)
}

#[tokio::test]
async fn clients_that_leave_one_after_another_break_no_connection() {
    // On a quick machine not all are remembered. Either way, what comes for them is less than a
    // tenth of what wears a connection out.
    assert_eq!(witness(Script::new(0, 1), 1_500).await, 1);
}

/// The crate `h2` counts them for as long as their connection lives, though nobody keeps them.
#[tokio::test]
async fn crumbs_for_those_who_left_wear_a_connection_out_and_break_nobody() {
    assert_eq!(witness(Script::new(0, 2_000), 45).await, 3);
}

/// Of these it lets each connection have a hundred.
#[tokio::test]
async fn empty_frames_wear_a_connection_out_and_break_nobody() {
    assert!((2..=5).contains(&witness(Script::new(1, 0), 170).await));
}
