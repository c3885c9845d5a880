//! Clients that ask through doors, each of them once.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tandem::runtime::clock;

/// Doors hold a client for 10 s; whoever is not answered by then was not held.
const HELD_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// What one was told.
#[derive(Clone, Debug)]
pub struct Told {
    pub came_ms: u64,
    pub left_ms: u64,
    /// The name of a node; or what went wrong.
    pub answer: Result<String, String>,
}

/// Clients that come to each door every few milliseconds, however long the others wait; and one
/// at each door that is always within a request that takes longer.
pub struct Clients {
    stop: Arc<AtomicBool>,
    at: Vec<JoinHandle<Vec<JoinHandle<Told>>>>,
}

impl Clients {
    pub fn start(doors: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |door: &SocketAddr| {
            let (door, stop) = (*door, Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut clients = Vec::new();
                let mut slow = None;
                while !stop.load(Ordering::Relaxed) {
                    clients.push(std::thread::spawn(move || ask(door, b"who\n")));
                    if slow.as_ref().is_none_or(JoinHandle::is_finished) {
                        clients.extend(slow.take());
                        slow = Some(std::thread::spawn(move || ask(door, b"slow\n")));
                    }
                    std::thread::sleep(PAUSE);
                }
                clients.extend(slow);
                clients
            })
        };
        let at = doors.iter().map(run).collect();
        Self { stop, at }
    }

    /// Once all of them were answered: no one was told anything wrong.
    pub fn end(self, what: &str, by: &[&str]) -> Vec<Told> {
        let told = self.stop();
        let is_wrong = |it: &&Told| !it.answer.as_deref().is_ok_and(|name| by.contains(&name));
        let wrong: Vec<&Told> = told.iter().filter(is_wrong).collect();
        let longest = told.iter().map(|it| it.left_ms - it.came_ms).max();
        println!("{what}: {} clients, {} failed, {longest:?} ms at most", told.len(), wrong.len());
        assert!(wrong.is_empty(), "{what}: {wrong:?}");
        told
    }

    fn stop(self) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.at.into_iter().flat_map(|door| door.join().unwrap());
        clients.map(|client| client.join().unwrap()).collect()
    }
}

fn now_ms() -> u64 {
    clock::now().0 / 1000
}

fn ask(door: SocketAddr, words: &[u8]) -> Told {
    let came_ms = now_ms();
    let mut answer = String::new();
    let asked = TcpStream::connect(door).and_then(|mut stream| {
        stream.set_read_timeout(Some(HELD_MAX))?;
        stream.write_all(words)?;
        stream.read_to_string(&mut answer)
    });
    let answer = match asked {
        Ok(0) => Err("it was closed without a word".to_owned()),
        Ok(_) => Ok(answer),
        Err(error) => Err(error.to_string()),
    };
    Told { came_ms, left_ms: now_ms(), answer }
}
