//! Keeps what clients of a drill note while they run: what each sent, and what it was told.
//! In: a `Pen` for each of them. Out: how much was acknowledged and when, `History`.
//! Not here: what is sent (`workload.rs`, `service/clients.rs`), what it proves (`history.rs`).
//! Tested by: below; its two users, against real servers.

use super::history::{Attempt, History, Outcome};
use crate::runtime::clock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tandem_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

/// Everything that clients noted so far.
#[derive(Debug)]
pub struct Log {
    clients: Vec<Mutex<Vec<Attempt>>>,
    closed_doors: Vec<AtomicU64>,
    turned_away: Mutex<Vec<Timestamp>>,
    acked: AtomicU64,
    /// Of each client.
    last_acked: Vec<AtomicU64>,
}

impl Log {
    /// Empty, for so many clients.
    pub fn new(clients: usize) -> Arc<Self> {
        Arc::new(Self {
            clients: (0..clients).map(|_| Mutex::default()).collect(),
            closed_doors: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            turned_away: Mutex::default(),
            acked: AtomicU64::new(0),
            last_acked: (0..clients).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// How much was acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// When the last of it was, whoever's that is.
    pub fn last_acked(&self) -> Timestamp {
        self.last().max().unwrap_or_default()
    }

    /// When that of the client was who waits longest: never, if one has nothing yet.
    pub fn last_of_all(&self) -> Timestamp {
        self.last().min().unwrap_or_default()
    }

    fn last(&self) -> impl Iterator<Item = Timestamp> {
        self.last_acked.iter().map(|at| Timestamp(at.load(Ordering::Relaxed)))
    }

    /// All of it.
    pub fn history(&self) -> History {
        let attempts = |client: &Mutex<Vec<Attempt>>| -> Vec<Attempt> {
            client.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        let closed = self.closed_doors.iter();
        History {
            writers: self.clients.iter().map(attempts).collect(),
            closed_doors: closed.map(|count| count.load(Ordering::Relaxed)).collect(),
            turned_away: self.turned_away.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// With which one client notes what it does.
#[derive(Debug)]
pub struct Pen {
    /// Which of all.
    pub number: usize,
    log: Arc<Log>,
    stop: CancellationToken,
}

impl Pen {
    /// The pen of one of them, which writes until `stop`.
    pub fn new(log: &Arc<Log>, number: usize, stop: CancellationToken) -> Self {
        Self { number, log: Arc::clone(log), stop }
    }

    /// Whether its client shall end.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// That is sent now.
    pub fn sent(&self, seq: i64) {
        let sent = clock::now();
        let attempt = Attempt { seq, sent, ended: sent, outcome: Outcome::Pending };
        if let Some(log) = self.log.clients.get(self.number) {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
        }
    }

    /// What was sent last has come to this.
    pub fn ended(&self, outcome: Outcome) {
        let ended = clock::now();
        if let Some(log) = self.log.clients.get(self.number)
            && let Some(attempt) = log.lock().unwrap_or_else(PoisonError::into_inner).last_mut()
        {
            attempt.ended = ended;
            attempt.outcome = outcome;
        }
        if outcome == Outcome::Acked {
            self.log.acked.fetch_add(1, Ordering::Relaxed);
            if let Some(last) = self.log.last_acked.get(self.number) {
                last.fetch_max(ended.0, Ordering::Relaxed);
            }
        }
    }

    /// No door let it in.
    pub fn closed_doors(&self) {
        if let Some(closed) = self.log.closed_doors.get(self.number) {
            closed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One door did not, or took back what it had given.
    pub fn turned_away(&self) {
        let now = clock::now();
        self.log.turned_away.lock().unwrap_or_else(PoisonError::into_inner).push(now);
    }

    /// Waits, unless it shall end.
    pub async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_noted_is_handed_over() {
        let (log, stop) = (Log::new(2), CancellationToken::new());
        let pen = Pen::new(&log, 1, stop.clone());
        pen.sent(7);
        assert_eq!(log.history().count(Outcome::Pending), 1, "sent, and nothing heard");
        pen.ended(Outcome::Acked);
        pen.sent(8);
        pen.ended(Outcome::Refused);
        pen.closed_doors();
        pen.turned_away();
        let history = log.history();
        assert_eq!((log.acked(), history.count(Outcome::Refused)), (1, 1));
        assert_eq!(log.last_acked(), history.writers[1][0].ended);
        assert_eq!((history.writers[0].len(), &history.closed_doors[..]), (0, &[0, 1][..]));
        assert!(history.turned_away[0] >= log.last_acked());
        assert_eq!(log.last_of_all(), Timestamp(0), "the other one has nothing");
        let other = Pen::new(&log, 0, stop.clone());
        other.sent(1);
        other.ended(Outcome::Acked);
        assert_eq!(log.last_of_all(), history.writers[1][0].ended);
        assert_eq!(log.last_acked(), log.history().writers[0][0].ended);
        stop.cancel();
        pen.pause(Duration::from_secs(600)).await;
        assert!(pen.is_stopped());
    }
}
