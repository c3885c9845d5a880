//! Talks to those who wait for a place at an endpoint, and gives them one when it is their turn.
//! In: work that ends, endpoints that change. Out: `Picked`.
//! States: in line → (a place, or nobody is left to ask) given → taken, or dropped and given on.
//! Keeps: a place is given from hand to hand: nobody who comes can take it in between. A look that
//! found nothing and the end of work at the same time miss each other never: the line is counted
//! before the second look, and the count is read after the work has ended.
//! Not here: whose turn it is (`tandem_core`), where there is a place (`group.rs`).
//! Tested by: `http/tests/balancing.rs`, `tests/limits.rs`.

use super::group::{Group, Picked, Wish};
use super::session::{Shared, wait};
use std::net::SocketAddr;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use tandem_core::clustering::load_balanced::attempts::Attempts;
use tokio::sync::oneshot;

/// What somebody in line wants, and how they are told.
#[derive(Debug)]
pub(super) struct Waiter {
    key: Option<u64>,
    attempts: Attempts<SocketAddr>,
    token: Option<u64>,
    pub(super) give: oneshot::Sender<Picked>,
}

impl Waiter {
    pub(super) fn new(wish: Wish<'_>) -> (Self, oneshot::Receiver<Picked>) {
        let (give, given) = oneshot::channel();
        let Wish { key, attempts, token, in_flight_max: _, held_max: _ } = wish;
        (Self { key, attempts: attempts.clone(), token, give }, given)
    }

    /// As it is now: how much endpoints may have can change while somebody waits.
    pub(super) const fn wish(&self, in_flight_max: u32) -> Wish<'_> {
        let Self { key, attempts, token, give: _ } = self;
        Wish { key: *key, attempts, token: *token, in_flight_max, held_max: 0 }
    }
}

/// Whom an endpoint tells that some of its work has ended.
#[derive(Debug)]
pub(super) struct Freed {
    waiting: AtomicUsize,
    group: Weak<Group>,
}

impl Freed {
    pub(super) const fn new(group: Weak<Group>) -> Self {
        Self { waiting: AtomicUsize::new(0), group }
    }

    pub(super) fn count(&self, waiting: usize) {
        self.waiting.store(waiting, Ordering::SeqCst);
    }

    /// Costs next to nothing while nobody waits.
    pub(super) fn tell(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some(group) = self.group.upgrade()
        {
            group.serve_line();
        }
    }
}

/// Somebody's place in line, until dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Waiting {
    group: Weak<Group>,
    ticket: u64,
    given: oneshot::Receiver<Picked>,
}

impl Waiting {
    pub(super) const fn new(
        group: Weak<Group>,
        ticket: u64,
        given: oneshot::Receiver<Picked>,
    ) -> Self {
        Self { group, ticket, given }
    }

    /// Ready with what is given when it is their turn.
    pub(in crate::proxy) async fn turn(mut self, shared: &Shared) -> Picked {
        let mut changed = shared.group.changed();
        // What changed before this was listened to woke nobody.
        shared.group.serve_line();
        loop {
            tokio::select! {
                biased;
                given = &mut self.given => match given {
                    Ok(picked) => return picked,
                    // The group is gone, and whoever waits will hear of it.
                    Err(_) => std::future::pending().await,
                },
                is_changed = wait(shared, &mut changed) => {
                    // With nothing but time, whoever is first serves for all.
                    if is_changed || shared.group.is_due() {
                        shared.group.serve_line();
                    }
                }
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(group) = self.group.upgrade() {
            group.leave_line(self.ticket);
        }
    }
}
