//! Clients that ask without a pause, by many keys, and what they were told.

use crate::crowd::{Crowd, Shared};
use crate::http;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpStream;

const CLIENTS: usize = 4;
/// Enough that each partition has some.
const KEYS: u64 = 60;

/// The node that answered last, by partition.
type Owners = BTreeMap<u64, String>;

/// Clients of some doors.
pub struct Clients(Crowd<Owners>);

/// Everybody's requests have names of their own.
static NAMES: AtomicU64 = AtomicU64::new(0);

impl Clients {
    pub fn start(doors: &[SocketAddr]) -> Self {
        let all = doors.iter().flat_map(|door| [*door; CLIENTS]);
        Self(Crowd::start(all.map(|door| {
            move |shared: Arc<Shared<Owners>>| async move {
                let mut connection = None;
                while shared.goes_on() {
                    let name = NAMES.fetch_add(1, Ordering::Relaxed);
                    let answer = ask(&mut connection, door, name).await;
                    let answer = answer.map_err(|why| format!("{name} at {door}: {why}"));
                    shared.note(answer.map(|(node, partition)| {
                        move |by: &mut Owners| _ = by.insert(partition, node)
                    }));
                }
            }
        })))
    }

    /// Goes on until so many more were answered, one way or the other.
    pub async fn more(&self, count: u64) {
        self.0.more(count).await;
    }

    /// Goes on until these nodes, and no others, answer for the partitions.
    pub async fn answered_by(&self, nodes: &[&str]) {
        let wanted: BTreeSet<&str> = nodes.iter().copied().collect();
        self.0.until(|by| by.values().map(String::as_str).collect::<BTreeSet<_>>() == wanted).await;
    }

    /// Ends it; what went wrong.
    pub async fn end(self, what: &str) -> Vec<String> {
        self.0.end(what).await.wrong
    }
}

/// Asks once for what may not be done twice; who answered, and for which partition.
async fn ask(
    connection: &mut Option<TcpStream>,
    door: SocketAddr,
    name: u64,
) -> Result<(String, u64), String> {
    let (key, body) = (name % KEYS, name.to_string());
    let length = body.len();
    // A stranger says nothing of partitions that counts.
    let request = format!(
        "POST /work HTTP/1.1\r\nHost: shop\r\nX-Shop: {key}\r\nTandem-Partition: 1\r\n\
         Tandem-Epoch: 0\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let (head, body) = http::ask(connection, door, &request).await?;
    let words = body.split_once(' ').filter(|_| head.starts_with("HTTP/1.1 200"));
    let found = words.and_then(|(node, id)| Some((node.to_owned(), id.parse().ok()?)));
    found.ok_or(format!("{head} {body}"))
}

/// Sends one request on a connection of its own, and reads its response.
pub async fn once(door: SocketAddr, request: &str) -> (String, String) {
    http::ask(&mut None, door, request).await.unwrap()
}
