//! Talks to the daemons connected to this keeper, without ever waiting for one.
//! In: lines. Out: lines. A client that sends too long a line or does not read what it is sent is
//! dropped: it connects again and gets the whole status.
//! Not here: what a line means (`protocol`), what is done about it (`keeper`).
//! Tested by: `tests/keeper`.

use super::Error;
use crate::fence::protocol::{FromKeeper, LINE_BYTES_MAX, Message, SOCKET, VERSION};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A daemon, its successor during an upgrade, and people looking.
const CLIENTS_MAX: usize = 4;
/// What may wait for a slow reader.
const OUTBOX_BYTES_MAX: usize = 256 * 1024;

struct Client {
    id: u64,
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    lost: bool,
    /// Nothing of it is read before.
    greeted: bool,
}

pub(super) struct Clients {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    last_id: u64,
    /// Held as long as we live: one keeper per directory.
    _lock: File,
}

impl Clients {
    /// Takes the directory and listens in it.
    pub fn listen(dir: &Path) -> Result<Self, Error> {
        let unusable = |source| Error::Directory { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
        let dir = dir.canonicalize().map_err(unusable)?;
        if dir.metadata().map_err(unusable)?.mode() & 0o022 != 0 {
            return Err(Error::TooOpen { path: dir });
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(dir.join("keeper.lock")).map_err(unusable)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_held| Error::Taken { path: dir.clone() })?;
        let path = dir.join(SOCKET);
        // Left by a keeper that was killed: the lock says that it is gone.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
                Ok(listener)
            })
            .map_err(|source| Error::Listen { path: path.clone(), source })?;
        Ok(Self { listener, path, clients: Vec::new(), last_id: 0, _lock: lock })
    }

    /// The directory, whatever way led there.
    pub fn run_dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Takes in who knocked.
    pub fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() >= CLIENTS_MAX || !is_trusted(&stream) {
                continue;
            }
            if stream.set_nonblocking(true).is_ok() {
                self.last_id += 1;
                let (inbox, outbox) = (Vec::new(), Vec::new());
                let (id, lost, greeted) = (self.last_id, false, false);
                self.clients.push(Client { id, stream, inbox, outbox, lost, greeted });
            }
        }
    }

    /// Tells who was taken in since the last time; after what the others had sent by then was done.
    pub fn greet(&mut self, greeting: &Message) {
        for client in self.clients.iter_mut().filter(|client| !client.greeted) {
            client.greeted = true;
            client.send(greeting);
        }
    }

    /// The whole lines that have come from those who were greeted, each with its client.
    pub fn read(&mut self) -> Vec<(u64, Vec<u8>)> {
        let mut lines = Vec::new();
        for client in self.clients.iter_mut().filter(|client| client.greeted) {
            client.read();
            while let Some(end) = client.inbox.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = client.inbox.drain(..=end).collect();
                line.pop();
                lines.push((client.id, line));
            }
            client.lost |= client.inbox.len() > LINE_BYTES_MAX;
        }
        lines
    }

    /// Queues a message to one client.
    pub fn send(&mut self, id: u64, message: &Message) {
        self.clients.iter_mut().filter(|client| client.id == id).for_each(|c| c.send(message));
    }

    /// Queues a message to all.
    pub fn broadcast(&mut self, message: &Message) {
        self.clients.iter_mut().for_each(|client| client.send(message));
        self.flush();
    }

    /// Ends one connection.
    pub fn drop_one(&mut self, id: u64) {
        self.flush();
        self.clients.retain(|client| client.id != id);
    }

    /// Writes what can be written at once, and forgets who is gone.
    pub fn flush(&mut self) {
        self.clients.iter_mut().for_each(Client::flush);
        self.clients.retain(|client| !client.lost);
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// What to wake up for.
    pub fn interest(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = PollFd::new(&self.listener, PollFlags::IN);
        let clients = self.clients.iter().map(|client| {
            let out = if client.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::new(&client.stream, PollFlags::IN | out)
        });
        std::iter::once(listener).chain(clients)
    }

    /// Takes the socket away, so that nobody finds a keeper that is about to end.
    pub fn close(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.flush();
    }
}

impl Client {
    fn read(&mut self) {
        let mut chunk = [0; 4096];
        // At most one longest line at a time: nobody keeps the loop from looking at the lease.
        while self.inbox.len() <= LINE_BYTES_MAX && !self.lost {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.lost = true,
                Ok(count) => self.inbox.extend(chunk.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.lost = true,
            }
        }
    }

    fn send(&mut self, message: &Message) {
        let line = FromKeeper { v: VERSION, message: message.clone() };
        match serde_json::to_vec(&line) {
            Ok(line) if self.outbox.len() + line.len() < OUTBOX_BYTES_MAX => {
                self.outbox.extend(line);
                self.outbox.push(b'\n');
            }
            Ok(_) | Err(_) => self.lost = true,
        }
    }

    fn flush(&mut self) {
        while !self.outbox.is_empty() && !self.lost {
            match self.stream.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.lost = true,
            }
        }
    }
}

/// Root and our own user only: who can speak to a keeper can run programs as its user.
fn is_trusted(stream: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream).map_err(io::Error::from);
    peer.is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}
