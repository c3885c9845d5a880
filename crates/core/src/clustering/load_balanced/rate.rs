//! Decides whether one more request or connection is within its rate, and if not, when it will be.
//! In: who asks, the time. Out: yes, or `Over`.
//! Each client has a bucket of `burst` that fills by its rate; the service has another one for all.
//! A bucket is one number, the moment at which it will be full again (the generic cell rate
//! algorithm of ATM), so that a client costs 16 bytes. Clients are kept in a table of fixed size:
//! each one may stand in `WAYS` places, by the hash of its key, and where all are taken the one
//! whose bucket is the fullest makes room. Whoever comes back after that begins with a full bucket:
//! the error is in favour of clients, never against one.
//! Keeps: in any span a client that is in the table gets at most `burst`, plus its rate for the
//! length of the span; all clients together the same of the service's limit. What is refused costs
//! nothing of either.
//! Not here: who a client is (the shell).
//! Tested by: below.

use super::rendezvous;
use crate::time::Timestamp;
use alloc::vec::Vec;
use core::time::Duration;

/// Places in which a client may stand.
const WAYS: usize = 8;
/// Clients of one service that are told apart on one node: a megabyte.
pub const CLIENTS_MAX: usize = 65_536;

/// So many in so long a time, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many; at least 1.
    pub count: u32,
    /// In this time.
    pub per: Duration,
    /// How many may come at once after a pause; at least 1.
    pub burst: u32,
}

/// What a service allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Each client; none: any rate.
    pub per_client: Option<Limit>,
    /// All of them together; none: any rate.
    pub total: Option<Limit>,
}

/// One was over its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Whose rate it was.
    pub whose: Whose,
    /// After this time it would be within.
    pub wait: Duration,
}

/// A rate that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The client's own.
    Client,
    /// That of all together.
    Service,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    client: u64,
    /// When it is full, in nanoseconds; 0 of a place that nobody has.
    full_at: u64,
}

/// Who asked for how much lately.
#[derive(Clone, Debug)]
pub struct Limiter {
    limits: Limits,
    /// Mixed into every key: nobody outside knows who shares places with whom.
    seed: u64,
    all: Bucket,
    clients: Vec<Bucket>,
}

impl Limiter {
    /// Begins with full buckets.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let mut limiter = Self { limits, seed, all: Bucket::default(), clients: Vec::new() };
        limiter.configure(limits);
        limiter
    }

    /// Goes on with other limits; what was used stays used.
    pub fn configure(&mut self, limits: Limits) {
        self.limits = limits;
        match limits.per_client {
            Some(_) => self.clients.resize(CLIENTS_MAX, Bucket::default()),
            None => self.clients = Vec::new(),
        }
    }

    /// Whether anybody is limited.
    pub const fn is_on(&self) -> bool {
        self.limits.per_client.is_some() || self.limits.total.is_some()
    }

    /// Takes one for a client, by the hash of its key.
    ///
    /// # Errors
    /// It is over the client's rate, or over that of all.
    pub fn take(&mut self, client: u64, now: Timestamp) -> Result<(), Over> {
        let now = now.0.saturating_mul(1_000);
        let client = rendezvous::mix(client ^ self.seed);
        let mut own = None;
        if let Some(limit) = self.limits.per_client {
            let at = self.place(client);
            let over = |wait| Over { whose: Whose::Client, wait };
            own = Some((at, limit.next(&mut self.clients[at].full_at, now).map_err(over)?));
        }
        if let Some(limit) = self.limits.total {
            let over = |wait| Over { whose: Whose::Service, wait };
            self.all.full_at = limit.next(&mut self.all.full_at, now).map_err(over)?;
        }
        if let Some((at, full_at)) = own {
            self.clients[at] = Bucket { client, full_at };
        }
        Ok(())
    }

    /// Where a client stands, or will; whoever stood there before is forgotten.
    fn place(&mut self, client: u64) -> usize {
        let sets = (self.clients.len() / WAYS).max(1);
        let set = usize::try_from(client % sets as u64).unwrap_or(0) * WAYS;
        let places = set..set + WAYS;
        let mine = places
            .clone()
            .find(|at| self.clients[*at].client == client && self.clients[*at].full_at > 0);
        mine.unwrap_or_else(|| {
            let fullest = places.min_by_key(|at| self.clients[*at].full_at).unwrap_or(set);
            self.clients[fullest] = Bucket { client, full_at: 0 };
            fullest
        })
    }
}

impl Limit {
    /// When a bucket will be full after one more, or how long there is none.
    fn next(&self, full_at: &mut u64, now: u64) -> Result<u64, Duration> {
        let per = u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX);
        let each = per.div_ceil(u64::from(self.count.max(1))).max(1);
        let whole = each.saturating_mul(u64::from(self.burst.max(1)));
        // With other limits before it may have been emptier than it can be now.
        *full_at = (*full_at).min(now.saturating_add(whole));
        let next = (*full_at).max(now).saturating_add(each);
        match next.checked_sub(now.saturating_add(whole)) {
            None | Some(0) => Ok(next),
            Some(over) => Err(Duration::from_nanos(over)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const fn limit(count: u32, burst: u32) -> Option<Limit> {
        Some(Limit { count, per: SECOND, burst })
    }

    fn taken(limiter: &mut Limiter, client: u64, wishes: u32, now: Timestamp) -> u32 {
        (0..wishes).map(|_| u32::from(limiter.take(client, now).is_ok())).sum()
    }

    fn random(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state += 1;
            rendezvous::mix(state) % below
        }
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut limiter = Limiter::new(Limits { per_client: limit(10, 20), total: None }, 7);
        let start = Timestamp(5_000_000);
        assert_eq!(taken(&mut limiter, 1, 100, start), 20);
        let wait = Duration::from_millis(100);
        assert_eq!(limiter.take(1, start), Err(Over { whose: Whose::Client, wait }));
        assert_eq!(taken(&mut limiter, 1, 100, start.plus(wait)), 1, "as it was told");
        assert_eq!(taken(&mut limiter, 1, 100, start.plus(SECOND)), 9);
        assert_eq!(taken(&mut limiter, 2, 100, start), 20, "another client");
        assert_eq!(taken(&mut limiter, 1, 100, Timestamp(0)), 0, "time that goes back");
        assert_eq!(taken(&mut limiter, 1, 100, start.plus(SECOND * 60)), 20, "never more");
    }

    #[test]
    fn all_together_have_a_rate_too_and_what_it_refuses_costs_the_client_nothing() {
        let limits = Limits { per_client: limit(5, 5), total: limit(8, 8) };
        let mut limiter = Limiter::new(limits, 7);
        let start = Timestamp(1);
        assert_eq!(taken(&mut limiter, 1, 9, start), 5);
        assert_eq!(taken(&mut limiter, 2, 9, start), 3);
        assert_eq!(limiter.take(2, start).unwrap_err().whose, Whose::Service);
        assert_eq!(limiter.take(1, start).unwrap_err().whose, Whose::Client);
        let later = start.plus(Duration::from_millis(250));
        assert_eq!(taken(&mut limiter, 2, 9, later), 2, "as all may, and it has them left");
    }

    #[test]
    fn other_limits_count_at_once_and_nothing_is_given_back() {
        let slow = Limits {
            per_client: Some(Limit { count: 1, per: SECOND * 3600, burst: 3 }),
            total: None,
        };
        let mut limiter = Limiter::new(slow, 7);
        let start = Timestamp(1);
        assert_eq!(taken(&mut limiter, 1, 9, start), 3);
        limiter.configure(Limits { per_client: limit(10, 2), total: None });
        assert_eq!(taken(&mut limiter, 1, 9, start), 0);
        assert_eq!(taken(&mut limiter, 1, 9, start.plus(SECOND)), 2, "not after an hour");
        limiter.configure(Limits::default());
        assert!(!limiter.is_on());
        assert_eq!(taken(&mut limiter, 1, 900, start), 900);
    }

    /// In every span of a random history, for each client and for all.
    #[test]
    fn nobody_gets_more_than_a_burst_and_the_rate() {
        for seed in 0..40 {
            let mut draw = random(seed << 32);
            let count = 1 + u32::try_from(draw(50)).unwrap();
            let burst = 1 + u32::try_from(draw(30)).unwrap();
            let limits = Limits { per_client: limit(count, burst), total: limit(count * 2, burst) };
            let mut limiter = Limiter::new(limits, seed);
            let mut now = Timestamp(draw(1_000_000));
            let mut passed: [Vec<u64>; 4] = Default::default();
            for _ in 0..1_500 {
                now = Timestamp(now.0 + draw(60_000));
                let client = draw(3);
                if limiter.take(client, now).is_ok() {
                    passed[usize::try_from(client).unwrap()].push(now.0);
                    passed[3].push(now.0);
                }
            }
            for (who, times) in passed.iter().enumerate() {
                let count = u64::from(if who == 3 { count * 2 } else { count });
                for (at, from) in times.iter().enumerate().step_by(5) {
                    for (n, to) in times[at..].iter().enumerate() {
                        let most = u64::from(burst) + (to - from) * count / 1_000_000;
                        assert!((n as u64) < most, "seed {seed} client {who}: {n} {most}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_flood_of_clients_takes_no_more_memory_and_refuses_nobody_new() {
        let mut limiter = Limiter::new(Limits { per_client: limit(1, 1), total: None }, 7);
        let now = Timestamp(1);
        for client in 0..4 * CLIENTS_MAX as u64 {
            assert_eq!(limiter.take(client, now), Ok(()));
        }
        assert_eq!(limiter.clients.len(), CLIENTS_MAX);
        // Who used most stays: it is the one to be bounded.
        let mut limiter = Limiter::new(Limits { per_client: limit(1, 100), total: None }, 7);
        assert_eq!(taken(&mut limiter, 1, 200, now), 100);
        for client in 2..4 * CLIENTS_MAX as u64 {
            assert_eq!(limiter.take(client, now), Ok(()));
        }
        assert_eq!(taken(&mut limiter, 1, 10, now), 0);
    }
}
