//! Keeps count of who asked for how much of a balancer, and refuses what is over its rate.
//! In: the hash of a client. Out: yes, or after what time.
//! Costs: one lock for each connection or request, and nothing where nobody is limited.
//! Not here: the rates (`tandem_core`), what a refused client is told (`session.rs`, `http`).
//! Tested by: `tests/limits.rs`.

use crate::runtime::clock;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::hash;
use tandem_core::clustering::load_balanced::rate::{Limiter, Limits, Over, Whose};

/// The rates of one balancer.
#[derive(Debug)]
pub(in crate::proxy) struct Rates {
    is_on: AtomicBool,
    limiter: Mutex<Limiter>,
    client: AtomicU64,
    service: AtomicU64,
}

impl Rates {
    pub(super) fn new(limits: Limits) -> Self {
        let limiter = Limiter::new(limits, rand::random());
        let is_on = AtomicBool::new(limiter.is_on());
        let (client, service) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { is_on, limiter: Mutex::new(limiter), client, service }
    }

    /// Goes on with other rates.
    pub(super) fn configure(&self, limits: Limits) {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.configure(limits);
        self.is_on.store(limiter.is_on(), Ordering::Relaxed);
    }

    /// Takes one for a client.
    ///
    /// # Errors
    /// There is none for so long.
    pub(in crate::proxy) fn take(&self, client: u64) -> Result<(), Duration> {
        if !self.is_on.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = limiter.take(client, clock::now());
        drop(limiter);
        taken.map_err(|Over { whose, wait }| {
            let counter = match whose {
                Whose::Client => &self.client,
                Whose::Service => &self.service,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            wait
        })
    }

    /// How many were over their client's rate, and over that of all.
    pub(super) fn refused(&self) -> [u64; 2] {
        [&self.client, &self.service].map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// Who a client is for its rate. Whoever has an IPv6 network has more addresses than there is room
/// for: the first 64 bits are one client.
pub(in crate::proxy) fn client(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()[..8]),
    }
}
