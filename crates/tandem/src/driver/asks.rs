//! Talks to those parts of this node that promise: where each takes the terms it is asked for.
//! In: services that come. Out: where to send a term.
//! Not here: who asks (`controller.rs`, other nodes), who promises (`instance.rs`, `singleton`,
//! `witness.rs`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tandem_core::ids::{ServiceId, Term};
use tokio::sync::mpsc;

/// Requests for promises that may wait; a controller asks again.
const ASKS_MAX: usize = 16;

/// Where each service takes requests for promises.
#[derive(Debug, Default)]
pub struct Asks(Mutex<BTreeMap<ServiceId, mpsc::Sender<Term>>>);

impl Asks {
    /// What a service that is new here is asked; none: it is not new.
    pub fn add(&self, service: &ServiceId) -> Option<mpsc::Receiver<Term>> {
        let mut all = self.all();
        if all.contains_key(service) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(ASKS_MAX);
        all.insert(service.clone(), sender);
        Some(receiver)
    }

    /// Nobody takes them after all.
    pub fn remove(&self, service: &ServiceId) {
        self.all().remove(service);
    }

    /// Where a service is asked.
    pub fn of(&self, service: &ServiceId) -> Option<mpsc::Sender<Term>> {
        self.all().get(service).cloned()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ServiceId, mpsc::Sender<Term>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
