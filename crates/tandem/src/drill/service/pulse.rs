//! Talks to what is at work in a drilled service, whichever way that is seen: by clients that are
//! answered, by what its copies write down where work is divided, or by both.
//! In: doors, a ledger. Out: how much went well and when, `History`.
//! Not here: clients (`clients.rs`), lines of divided work (`pieces.rs`).
//! Tested by: below, its two parts.

use super::clients::Clients;
use super::pieces::Pieces;
use crate::drill::evidence::history::History;
use tandem_core::time::Timestamp;

/// Whether it works.
#[derive(Debug)]
pub struct Pulse {
    /// Who is answered, where somebody asks.
    pub clients: Option<Clients>,
    /// What is worked on, where that is divided.
    pub pieces: Option<Pieces>,
}

impl Pulse {
    /// How much went well so far.
    pub fn acked(&self) -> u64 {
        let clients = self.clients.iter().map(Clients::acked);
        clients.chain(self.pieces.iter().map(Pieces::done)).min().unwrap_or_default()
    }

    /// When any client was answered last, and every partition worked on: who waits at a door that
    /// leads nowhere while a fault lasts has others beside it, and a partition has not.
    pub fn last_acked(&self) -> Timestamp {
        self.oldest(self.clients.as_ref().map(Clients::last_acked))
    }

    /// The same of every client: once nothing is broken, each door leads somewhere.
    pub fn last_of_all(&self) -> Timestamp {
        self.oldest(self.clients.as_ref().map(Clients::last_of_all))
    }

    fn oldest(&self, answered: Option<Timestamp>) -> Timestamp {
        let worked = self.pieces.iter().map(Pieces::last);
        answered.into_iter().chain(worked).min().unwrap_or_default()
    }

    /// How much of divided work somebody has.
    pub fn share(&self, name: &str) -> usize {
        self.pieces.as_ref().map_or(0, |pieces| pieces.share(name))
    }

    /// Ends it, and hands over what clients saw, if there are any.
    pub async fn stop(self) -> History {
        if let Some(pieces) = self.pieces {
            pieces.stop().await;
        }
        match self.clients {
            Some(clients) => clients.stop().await,
            None => History::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clients::Manner;
    use super::*;
    use crate::drill::evidence::workload::Load;
    use crate::drill::testing::until;
    use crate::drill::worker::{Does, Ledger, serve};
    use crate::runtime::supervisor::{Supervisor, TaskKind};
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::net::TcpListener;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_beats_no_better_than_its_weakest_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let tasks = Supervisor::new();
        let [good, nowhere] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0"));
        // The kernel takes connections of the second one, and nobody answers them.
        let (good, nowhere) = (good.await.unwrap(), nowhere.await.unwrap());
        let doors = [good.local_addr().unwrap(), nowhere.local_addr().unwrap()];
        let ledger = Arc::new(Ledger::open(&path, "a", 1).unwrap());
        let serving = serve(good, Arc::clone(&ledger), None, tasks.clone());
        tasks.spawn("server", TaskKind::Session, serving);
        let load = Load { writers: 2, pace: Duration::from_millis(1) };
        let pulse = Pulse {
            clients: Some(Clients::start(&load, &doors, "r", Manner::Anew)),
            pieces: Some(Pieces::start(&path, 0, 2)),
        };
        let work = |id| ledger.write(&[Does::Work { id, epoch: 1 }]).unwrap();
        let last_answer = || pulse.clients.as_ref().unwrap().last_acked();
        work(0);
        until("one is worked on", || pulse.acked() > 0 && pulse.share("a") == 1).await;
        assert!(last_answer() > Timestamp(0));
        assert_eq!(pulse.last_acked(), Timestamp(0), "whoever is answered, one partition is idle");
        work(1);
        until("both are", || pulse.last_acked() > Timestamp(0)).await;
        assert_eq!(pulse.last_of_all(), Timestamp(0), "and one client waits at its door");
        drop(nowhere);
        drop(pulse);
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }
}
