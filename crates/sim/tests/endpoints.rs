//! Storms of endpoints before several doors that know nothing of each other: endpoints refuse,
//! drop, slow down, are drained and heal, from a seed and in virtual time; the decisions are the
//! shipped ones. A failure names its seed: `endpoints(seed, Mutation::None)`
//! repeats it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::{Balance, Draw, Load, Policy};
use tandem_core::clustering::load_balanced::ejection::{Condition, Event, Group, Limits};
use tandem_core::clustering::load_balanced::latency::Latency;
use tandem_core::clustering::load_balanced::rendezvous::hash;
use tandem_core::clustering::load_balanced::retry::{self, Budget};
use tandem_core::time::Timestamp;

const SEEDS: u64 = 200;
const DOORS: usize = 3;
/// One step of virtual time.
const STEP: Duration = Duration::from_millis(20);
const STORM: Duration = Duration::from_secs(60);
/// What an endpoint may need to be itself again: the longest ejection, its slow start, checks.
const HEALING: Duration = Duration::from_secs(40);
/// When a story begins.
const BEGIN: Timestamp = Timestamp(1_000_000);
const QUIET: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits {
    fall: 2,
    rise: 2,
    failures: 5,
    success_percent_min: 50,
    window: Duration::from_secs(5),
    ejection: Duration::from_secs(5),
    ejection_max: Duration::from_secs(20),
    ejected_percent_max: 50,
    slow_start: Duration::from_secs(5),
};

const RETRIES: retry::Limits = retry::Limits { percent: 20, floor_per_second: 2 };

/// What is done wrong, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Bad work is not better than none.
    LastIsEjected,
    /// Any number may be out at once.
    AllAreEjected,
    /// What was slow once counts as slow for ever.
    PeaksNeverFade,
    /// Retries are not paid for.
    NoBudget,
    /// What fails at once counts as quick.
    FailuresAreQuick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// Works, and takes so many times as long.
    Slow(u32),
    /// Takes no connections, nor checks.
    Refuses,
    /// Takes connections and checks, and does nothing with them.
    Drops,
}

/// From a seed, the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        hash(&self.0.to_be_bytes())
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A node's balancer, as `proxy/balancer` is, without sockets.
struct Door {
    group: Group,
    balance: Balance,
    latency: Vec<Latency>,
    /// Sessions that end at a moment, by endpoint.
    open: Vec<Vec<Timestamp>>,
    worked: Vec<u64>,
    asked: Vec<u64>,
    attempts: u64,
    clients: u64,
    unserved: u64,
    /// There where requests are balanced: a connection that fails carried nothing, and costs none.
    budget: Option<Budget>,
    requests: u64,
    retries: u64,
    /// The slowest that each ever was.
    worst_us: Vec<u64>,
    mutation: Mutation,
}

impl Door {
    fn new(size: usize, (policy, checks): (Policy, bool), mutation: Mutation) -> Self {
        let ejected_percent_max = if mutation == Mutation::AllAreEjected { 100 } else { 50 };
        let limits = Limits { ejected_percent_max, ..LIMITS };
        Self {
            budget: None,
            requests: 0,
            retries: 0,
            worst_us: vec![0; size],
            mutation,
            group: Group::new(&vec![1; size], limits, checks),
            balance: Balance::new(policy),
            latency: vec![Latency::default(); size],
            open: vec![Vec::new(); size],
            worked: vec![0; size],
            asked: vec![0; size],
            attempts: 0,
            clients: 0,
            unserved: 0,
        }
    }

    fn check(&mut self, health: &[Health], now: Timestamp) {
        for (at, health) in health.iter().enumerate() {
            let answers = *health != Health::Refuses;
            let event = if answers { Event::CheckSucceeded } else { Event::CheckFailed };
            self.group.step(at, event, now);
        }
    }

    /// One client: a connect that fails is tried at another endpoint, what is dropped is not.
    fn serve(&mut self, health: &[Health], random: &mut Random, now: Timestamp) {
        self.clients += 1;
        self.requests += 1;
        self.budget.iter_mut().for_each(Budget::request);
        let mut avoid = vec![false; health.len()];
        let draw_key = random.next();
        loop {
            let shares = self.shares(now);
            let load = |(at, share): (usize, &u32)| Load {
                share: if avoid[at] { 0 } else { *share },
                in_flight: u32::try_from(self.open[at].len()).unwrap()
                    + self.latency[at].failing(now),
                latency_us: match self.mutation {
                    Mutation::PeaksNeverFade => self.worst_us[at],
                    _ => self.latency[at].mean_us(now),
                },
                far: false,
                name: hash(&at.to_be_bytes()),
            };
            let loads: Vec<Load> = shares.iter().enumerate().map(load).collect();
            let draw = Draw { random: [random.next(), random.next()], key: Some(draw_key) };
            let Some(at) = self.balance.choose(&loads, draw) else {
                self.unserved += 1;
                return;
            };
            self.attempts += 1;
            self.asked[at] += 1;
            match health[at] {
                Health::Refuses => {
                    self.failed(at, now);
                    avoid[at] = true;
                    if !self.may_retry(now) {
                        self.unserved += 1;
                        return;
                    }
                }
                Health::Drops => {
                    self.failed(at, now);
                    self.unserved += 1;
                    return;
                }
                Health::Good => return self.work(at, 1, now),
                Health::Slow(times) => return self.work(at, times, now),
            }
        }
    }

    fn shares(&self, now: Timestamp) -> Vec<u32> {
        let mut shares = self.group.shares(now);
        for (at, share) in shares.iter_mut().enumerate() {
            let ejected = matches!(self.group.condition(at, now), Some(Condition::Ejected(_)));
            if self.mutation == Mutation::LastIsEjected && ejected {
                *share = 0;
            }
        }
        shares
    }

    fn failed(&mut self, at: usize, now: Timestamp) {
        self.group.step(at, Event::WorkFailed, now);
        if self.mutation != Mutation::FailuresAreQuick {
            self.latency[at].failed(now);
        }
    }

    fn may_retry(&mut self, now: Timestamp) -> bool {
        let Some(budget) = &mut self.budget else { return true };
        let may = budget.retry(now) || self.mutation == Mutation::NoBudget;
        self.retries += u64::from(may);
        may
    }

    fn work(&mut self, at: usize, times: u32, now: Timestamp) {
        let took = Duration::from_micros(300) * times;
        self.latency[at].sample(took, now);
        self.worst_us[at] = self.worst_us[at].max(u64::from(times) * 300);
        self.open[at].push(now.plus(Duration::from_millis(60) * times));
        self.worked[at] += 1;
    }

    fn end(&mut self, now: Timestamp) {
        for at in 0..self.open.len() {
            let before = self.open[at].len();
            self.open[at].retain(|until| *until > now);
            for _ in self.open[at].len()..before {
                self.group.step(at, Event::WorkSucceeded, now);
            }
        }
    }

    /// What must be true at every moment.
    fn verify(&self, now: Timestamp, seed: u64) {
        let size = self.open.len();
        let conditions: Vec<Condition> =
            (0..size).filter_map(|at| self.group.condition(at, now)).collect();
        let refused = |c: &Condition| matches!(c, Condition::Down | Condition::Draining);
        let serves = self.shares(now).iter().any(|share| *share > 0);
        let may = !conditions.iter().all(refused);
        assert_eq!(serves, may, "seed {seed}: the last one was ejected: {conditions:?}");
        let out = conditions.iter().filter(|c| matches!(c, Condition::Ejected(_))).count();
        assert!(out <= 1.max(size / 2), "seed {seed}: too many were ejected: {conditions:?}");
        // From the first request on: a part of them, the floor of the time, and its first second.
        let seconds = now.since(BEGIN).as_millis().div_ceil(1_000);
        let floor = (u64::try_from(seconds).unwrap() + 1) * u64::from(RETRIES.floor_per_second);
        let most = self.requests * u64::from(RETRIES.percent) / 100 + floor;
        assert!(self.retries <= most, "seed {seed}: {} retries, not {most}", self.retries);
    }
}

struct World {
    seed: u64,
    random: Random,
    health: Vec<Health>,
    draining: Vec<bool>,
    checks: bool,
    doors: Vec<Door>,
    now: Timestamp,
}

impl World {
    fn new(seed: u64, policy: Policy, mutation: Mutation) -> Self {
        let mut random = Random(seed << 32);
        let size = 1 + usize::try_from(random.below(6)).unwrap();
        let checks = random.below(2) == 0;
        Self {
            seed,
            random,
            health: vec![Health::Good; size],
            draining: vec![false; size],
            checks,
            doors: (0..DOORS).map(|_| Door::new(size, (policy, checks), mutation)).collect(),
            now: BEGIN,
        }
    }

    fn run(&mut self, length: Duration, storm: bool) {
        let until = self.now.plus(length);
        let mut step = 0_u64;
        while self.now < until {
            self.now = self.now.plus(STEP);
            step += 1;
            if storm && self.random.below(25) == 0 {
                self.trouble();
            }
            for door in &mut self.doors {
                door.end(self.now);
                if step.is_multiple_of(25) {
                    door.check(&self.health, self.now);
                }
                for _ in 0..2 {
                    door.serve(&self.health, &mut self.random, self.now);
                }
                door.verify(self.now, self.seed);
            }
        }
    }

    fn trouble(&mut self) {
        let at = usize::try_from(self.random.below(self.health.len() as u64)).unwrap();
        self.health[at] = match self.random.below(6) {
            0 => Health::Refuses,
            1 => Health::Drops,
            2 => Health::Slow(2 + u32::try_from(self.random.below(50)).unwrap()),
            3 => {
                let drain = !self.draining[at];
                return self.drain(at, drain);
            }
            _ => Health::Good,
        };
    }

    fn drain(&mut self, at: usize, drain: bool) {
        self.draining[at] = drain;
        let event = if drain { Event::Drained } else { Event::Undrained };
        for door in &mut self.doors {
            door.group.step(at, event, self.now);
        }
    }

    fn heal(&mut self) {
        for at in 0..self.health.len() {
            self.health[at] = Health::Good;
            self.drain(at, false);
        }
        self.run(HEALING, false);
        for door in &mut self.doors {
            (door.clients, door.attempts, door.unserved) = (0, 0, 0);
            door.worked.fill(0);
        }
    }
}

const POLICIES: [Policy; 5] =
    [Policy::PeakEwma, Policy::RoundRobin, Policy::LeastConnections, Policy::Random, Policy::Hash];

/// The whole story of a seed.
fn endpoints(seed: u64, mutation: Mutation) {
    let policy = POLICIES[usize::try_from(seed % 5).unwrap()];
    let mut world = World::new(seed, policy, mutation);
    world.run(STORM, true);
    world.heal();
    world.run(QUIET, false);
    for door in &world.doors {
        let case = format!("seed {seed} {policy:?}: {:?}", door.worked);
        assert_eq!(door.unserved, 0, "{case}: all is well and a client was not served");
        assert_eq!(door.attempts, door.clients, "{case}: all is well and something is tried again");
        // Whoever works gets work: nobody is forgotten after a storm.
        let fair = door.clients / door.worked.len() as u64;
        assert!(door.worked.iter().all(|worked| *worked * 2 >= fair), "{case}: starved");
    }
}

#[test]
fn storms_of_endpoints_leave_nobody_without_work() {
    for seed in 0..SEEDS {
        endpoints(seed, Mutation::None);
    }
}

/// While one endpoint works every client reaches it, and with checks little is tried in vain.
#[test]
fn one_that_works_serves_everybody() {
    for seed in 0..SEEDS {
        let policy = POLICIES[usize::try_from(seed % 5).unwrap()];
        let mut world = World::new(seed, policy, Mutation::None);
        world.health.fill(Health::Refuses);
        world.health[0] = Health::Good;
        world.run(QUIET, false);
        for door in &world.doors {
            let case = format!("seed {seed} {policy:?}: {:?}", door.worked);
            assert_eq!(door.unserved, 0, "{case}");
            let vain = door.attempts - door.clients;
            // Without checks the bound of ejections leaves some that refuse in service.
            let size = door.worked.len() as u64;
            let most = if world.checks { door.clients / 5 } else { door.clients * (size - 1) };
            assert!(vain <= most, "{case}: {vain} of {} in vain", door.attempts);
        }
    }
}

/// Requests in a storm: what fails is tried again only as far as the budget goes.
fn requests(seed: u64, mutation: Mutation) {
    let policy = POLICIES[usize::try_from(seed % 5).unwrap()];
    let mut world = World::new(seed, policy, mutation);
    for door in &mut world.doors {
        door.budget = Some(Budget::new(RETRIES, BEGIN));
    }
    world.run(STORM, true);
    // Most of them refuse, so that nearly everything wants to be tried again.
    world.health.fill(Health::Refuses);
    world.run(QUIET, false);
    world.heal();
    world.run(QUIET, false);
    for door in &world.doors {
        assert_eq!(door.unserved, 0, "seed {seed} {policy:?}: all is well again");
    }
}

#[test]
fn retries_are_never_more_than_their_budget() {
    for seed in 0..SEEDS {
        requests(seed, Mutation::None);
    }
}

/// What fails at once looks quick and idle, and gets no more than its share for that, even where
/// nobody is ejected.
fn dropping(seed: u64, mutation: Mutation) {
    let policy = [Policy::PeakEwma, Policy::LeastConnections][usize::try_from(seed % 2).unwrap()];
    let mut world = World::new(seed, policy, mutation);
    for door in &mut world.doors {
        let size = door.worked.len();
        let limits = Limits { failures: 0, success_percent_min: 0, ..LIMITS };
        door.group = Group::new(&vec![1; size], limits, world.checks);
    }
    world.health[0] = Health::Drops;
    world.run(QUIET, false);
    for door in &world.doors {
        let fair = door.clients / door.worked.len() as u64;
        assert!(door.asked[0] <= fair, "seed {seed} {policy:?}: {:?}", door.asked);
    }
}

#[test]
fn what_fails_at_once_draws_no_work() {
    for seed in 0..SEEDS {
        dropping(seed, Mutation::None);
    }
}

/// Each of these would be found.
#[test]
fn mutations_are_found() {
    type Story = fn(u64, Mutation);
    let found = |story: Story, mutation| {
        (0..SEEDS).any(|seed| std::panic::catch_unwind(|| story(seed, mutation)).is_err())
    };
    assert!(found(endpoints, Mutation::LastIsEjected));
    assert!(found(endpoints, Mutation::AllAreEjected));
    assert!(found(endpoints, Mutation::PeaksNeverFade));
    assert!(found(requests, Mutation::NoBudget));
    assert!(found(dropping, Mutation::FailuresAreQuick));
}
