//! Talks to the clients of an HTTP service, and spreads their requests over its endpoints.
//! In: `HttpConfig`, connections that a balancer accepted. Out: requests at healthy endpoints,
//! their responses, `HttpSnapshot`.
//! States of a client: Idle → (head) → (no endpoint) Held → Sent → Answered → Idle …; 101 → Tunnel.
//! Keeps: INV-7, by the core's decision; H43 a request is sent again only if nothing of it was
//! sent, or it is idempotent and bodiless and not one byte came back, and the budget has a retry.
//! Why its own framing on top of `httparse`, and not hyper: hyper repairs what must be refused (a
//! transfer coding beside a length, bare line feeds), and what it parsed is copied into maps.
//! See docs/adr/0013.
//! Not here: who is chosen and who is out (`tandem_core::clustering::load_balanced`), sockets that
//! listen, checks and names (`balancer`).
//! Tested by: the modules below and `tests/`.

mod begin;
mod exchange;
mod h2;
mod key;
mod pool;
mod probe;
mod reach;
mod reply;
mod session;
mod stream;
#[cfg(test)]
pub(in crate::proxy) mod tests;
mod tls;
mod transfer;
mod trusted;
mod tunnel;
mod wire;

pub(super) use begin::serve;
pub(super) use h2::once;
pub(super) use probe::ask;

pub(super) use stream::Stream;
pub use tls::{Certificate, CertificateEnd};
pub use trusted::Network;

use pool::Pool;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::clustering::load_balanced::retry::{self, Budget};
use tandem_core::ids::ServiceId;
use tls::Loaded;
pub(super) use tls::{Certificates, Shows};
use tokio::time::Instant;
pub(super) use tunnel::relay;

/// What a balancer of requests does beyond one of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// The longest head, of a request or a response.
    pub head_bytes_max: usize,
    /// The most fields in a head.
    pub fields_max: usize,
    /// The longest body of a request.
    pub body_bytes_max: u64,
    /// For a head to come whole, from its first byte.
    pub head_timeout: Duration,
    /// How long a client may keep its connection open without a request.
    pub keep_alive: Duration,
    /// From the end of a request to the head of its response.
    pub answer_timeout: Duration,
    /// For a request and its response in all; none: no bound.
    pub total_timeout: Option<Duration>,
    /// Idle connections kept per endpoint.
    pub idle_max: usize,
    /// For how long.
    pub idle_timeout: Duration,
    /// Requests in flight per endpoint; 0 is no bound.
    pub in_flight_max: u32,
    /// How many requests may be sent again.
    pub retry: retry::Limits,
    /// A status of 500 or more counts as failed work.
    pub errors_count: bool,
    /// Clients that may say who their own clients are.
    pub trusted: Vec<Network>,
    /// What endpoints are spoken to by.
    pub upstream_protocol: Protocol,
    /// Clients may speak HTTP/2.
    pub http2: bool,
    /// What clients are shown; none: they speak in clear.
    pub certificates: Vec<Certificate>,
    /// The cookie that keeps a client at its endpoint.
    pub sticky: Option<String>,
    /// What names of endpoints are hidden with in that cookie; the same on every node.
    pub secret: [u8; 32],
    /// What of a request is its key; none: nobody asks for it.
    pub hash_key: Option<Source>,
    /// What tells clients apart that have a rate; who has none of it is its address.
    pub limit_key: Source,
}

impl Default for HttpConfig {
    /// The heads that nginx takes; a body of any size that is still a bound; an idle time for
    /// endpoints below the five seconds after which many of them close.
    fn default() -> Self {
        Self {
            head_bytes_max: 32 * 1024,
            fields_max: 100,
            body_bytes_max: 1024 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(60),
            total_timeout: None,
            idle_max: 64,
            idle_timeout: Duration::from_secs(4),
            in_flight_max: 0,
            retry: retry::Limits::default(),
            errors_count: true,
            trusted: Vec::new(),
            upstream_protocol: Protocol::Http1,
            http2: true,
            certificates: Vec::new(),
            sticky: None,
            secret: [0; 32],
            hash_key: None,
            limit_key: Source::Address,
        }
    }
}

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: a connection for each request that is under way.
    Http1,
    /// HTTP/2: many of them on one connection.
    Http2,
    /// Either, as it says itself when it begins to encrypt.
    Auto,
}

pub(super) const HTTP2: &[u8] = h2::ALPN;

impl Protocol {
    /// How TLS calls it, what is liked best first.
    pub(super) const fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[HTTP2],
            Self::Auto => &[HTTP2, b"http/1.1"],
        }
    }
}

/// What a check asks of an endpoint, and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// The path, with its query.
    pub path: String,
    /// What the field `Host` says; none: the endpoint's own address.
    pub host: Option<String>,
    /// The lowest and the highest status that is good.
    pub expect: (u16, u16),
}

/// What a balancer of requests has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpSnapshot {
    /// Requests whose head was understood.
    pub requests: u64,
    /// Requests refused for what they are.
    pub refused: u64,
    /// Requests sent once more.
    pub retried: u64,
    /// Requests that were not sent once more because too many were.
    pub over_budget: u64,
    /// Requests that waited for an endpoint in vain.
    pub expired: u64,
    /// Requests whose endpoint answered nothing in time.
    pub timed_out: u64,
    /// Requests whose endpoint broke or answered nonsense.
    pub broken: u64,
    /// Requests whose client left before its answer.
    pub abandoned: u64,
    /// Connections that changed to another protocol.
    pub upgraded: u64,
    /// Connections of HTTP/2 that were closed for sending little but frames without content.
    pub floods: u64,
    /// Responses by the first digit of their status, from 1 to 5.
    pub statuses: [u64; 5],
}

#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    over_budget: AtomicU64,
    expired: AtomicU64,
    timed_out: AtomicU64,
    broken: AtomicU64,
    abandoned: AtomicU64,
    upgraded: AtomicU64,
    floods: AtomicU64,
    statuses: [AtomicU64; 5],
}

/// What the requests of a balancer share.
#[derive(Debug)]
pub(super) struct Http {
    pool: Pool,
    links: h2::Links,
    budget: Mutex<Budget>,
    tls: Shows,
    tally: Tally,
    nonsense: Mutex<Nonsense>,
}

/// Responses that were not understood and not said.
#[derive(Debug, Default)]
struct Nonsense {
    said_at: Option<Instant>,
    since: u64,
}

/// An endpoint that speaks something else would fill the log.
const NONSENSE_EVERY: Duration = Duration::from_secs(10);

impl Http {
    /// # Errors
    /// What is wrong with a certificate.
    pub(super) fn new(config: &HttpConfig) -> Result<Self, String> {
        let tls = Shows::new(Self::read(config)?);
        let pool = Pool::new(config.idle_max, config.idle_timeout);
        let budget = Budget::new(config.retry, crate::runtime::clock::now());
        Ok(Self {
            pool,
            links: h2::Links::default(),
            budget: Mutex::new(budget),
            tls,
            tally: Tally::default(),
            nonsense: Mutex::default(),
        })
    }

    /// Reads the certificates of a configuration.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(super) fn read(config: &HttpConfig) -> Result<Certificates, String> {
        Loaded::read(&config.certificates, config.http2).map(Certificates)
    }

    /// Goes on with other bounds and certificates.
    pub(super) fn configure(&self, config: &HttpConfig, certificates: Certificates) {
        self.tls.configure(certificates);
        self.pool.configure(config.idle_max, config.idle_timeout);
        self.budget(|budget| budget.limit(config.retry));
    }

    /// Reads certificates again whose files were written anew.
    pub(super) fn renew(&self, service: &ServiceId) {
        self.tls.renew(service);
    }

    /// Whether to say that a response was not understood, and of how many it was not said before.
    fn says_nonsense(&self) -> Option<u64> {
        let mut nonsense = lock(&self.nonsense);
        if nonsense.said_at.is_some_and(|at| at.elapsed() < NONSENSE_EVERY) {
            nonsense.since += 1;
            return None;
        }
        nonsense.said_at = Some(Instant::now());
        Some(std::mem::take(&mut nonsense.since))
    }

    /// How clients are spoken to; none: in clear.
    fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.tls.config()
    }

    /// Endpoints are spoken to in another way from now on: no request goes out on what was there.
    pub(super) fn forget(&self) {
        self.pool.clear();
        self.links.clear();
    }

    /// Closes idle connections that are old or nobody's.
    pub(super) fn sweep(&self, addresses: &[SocketAddr], idle_timeout: Duration) {
        self.pool.sweep(addresses);
        self.links.sweep(addresses, idle_timeout);
    }

    pub(super) fn snapshot(&self) -> HttpSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Tally { requests, refused, retried, over_budget, expired, .. } = &self.tally;
        let Tally { timed_out, broken, abandoned, upgraded, floods, statuses, .. } = &self.tally;
        HttpSnapshot {
            requests: read(requests),
            refused: read(refused),
            retried: read(retried),
            over_budget: read(over_budget),
            expired: read(expired),
            timed_out: read(timed_out),
            broken: read(broken),
            abandoned: read(abandoned),
            upgraded: read(upgraded),
            floods: read(floods),
            statuses: statuses.each_ref().map(read),
        }
    }

    fn budget<T>(&self, ask: impl FnOnce(&mut Budget) -> T) -> T {
        ask(&mut lock(&self.budget))
    }

    /// Whether a request may be sent once more; counted either way.
    fn may_retry(&self) -> bool {
        let may = self.budget(|budget| budget.retry(crate::runtime::clock::now()));
        let counter = if may { &self.tally.retried } else { &self.tally.over_budget };
        counter.fetch_add(1, Ordering::Relaxed);
        may
    }

    fn answered(&self, status: u16) {
        if let Some(counter) = self.tally.statuses.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves a value half changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_renewal_does_not_undo_what_was_configured_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let (chain, key) = (dir.path().join("a.crt"), dir.path().join("a.key"));
        std::fs::write(&chain, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let certificates = vec![Certificate { chain, key }];
        let config = HttpConfig { certificates, ..HttpConfig::default() };
        let http = Http::new(&config).unwrap();
        let before = http.tls.lock().clone().unwrap();
        let read = || Loaded::read(&config.certificates, config.http2).unwrap().unwrap();
        http.tls.renewed(&before, read());
        let renewed = http.tls.lock().clone().unwrap();
        assert!(!Arc::ptr_eq(&renewed.config, &before.config));
        // While its files were read, it was told to speak in clear.
        let clear = HttpConfig::default();
        http.configure(&clear, Http::read(&clear).unwrap());
        http.tls.renewed(&renewed, read());
        assert!(http.tls().is_none());
    }

    #[test]
    fn nonsense_is_said_once_in_a_while() {
        let http = Http::new(&HttpConfig::default()).unwrap();
        assert_eq!(http.says_nonsense(), Some(0));
        assert!((0..100).all(|_| http.says_nonsense().is_none()));
        lock(&http.nonsense).said_at = None;
        assert_eq!(http.says_nonsense(), Some(100));
    }
}
