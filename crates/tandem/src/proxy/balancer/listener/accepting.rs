//! Talks to the socket of a balancer while its door is open: accepts, and bounds how many.
//! In: a listener. Out: sessions.
//! Not here: what a client gets (`session.rs`), where it listens (`listener.rs`).
//! Tested by: `tests.rs`.

use super::super::session::{self, Shared};
use crate::proxy::listener::{ACCEPT_PAUSE, Slot, is_one_connection};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::runtime::woken::when_woken;
use crate::runtime::workers::Workers;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

pub(super) struct Accepting {
    pub(super) shared: Arc<Shared>,
    pub(super) connections: TaskTracker,
    pub(super) supervisor: Supervisor,
    pub(super) workers: Workers<Accepted>,
}

/// A client that has a place.
pub(super) struct Accepted {
    client: TcpStream,
    from: SocketAddr,
    /// Until the end.
    place: (Slot, TaskTrackerToken),
}

impl Accepting {
    pub(super) async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let stopped = pin!(stop.cancelled());
        let mut stopped = pin!(when_woken(stopped));
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((client, from)) => self.admit(client, from),
                Err(error) if is_one_connection(&error) => {}
                Err(error) => {
                    let service = &self.shared.config().service;
                    tracing::warn!(%service, %error, "cannot accept connections; pausing");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // The system has told these that they are connected; closing the listener would reset them.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((client, from)) = listener.accept() {
            let client = client.set_nonblocking(true).and_then(|()| TcpStream::from_std(client));
            if let Ok(client) = client {
                self.admit(client, from);
            }
        }
    }

    fn admit(&self, client: TcpStream, from: SocketAddr) {
        let tally = &self.shared.tally;
        let sessions_max = self.shared.config.borrow().sessions_max;
        let Some(slot) = Slot::take(&tally.sessions, sessions_max) else {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            self.shared.make_room();
            return;
        };
        tally.accepted.fetch_add(1, Ordering::Relaxed);
        self.shared.make_room();
        let accepted = Accepted { client, from, place: (slot, self.connections.token()) };
        let Err(accepted) = self.workers.give(accepted) else { return };
        let (shared, mut worker) = (Arc::clone(&self.shared), self.workers.worker());
        self.supervisor.spawn("balancer session", TaskKind::Session, async move {
            let mut next = Some(accepted);
            while let Some(Accepted { client, from, place }) = next {
                session::serve(&shared, client, from).await;
                drop(place);
                next = worker.next().await;
            }
        });
    }
}
